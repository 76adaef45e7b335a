"""The commands that record and grade: bench, pool, grade, merge, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outthink.cli.given import (
    file_name,
    given_kind,
    given_prices,
    given_sampling,
    given_shard,
    given_strategy,
    loaded_task,
)
from outthink.cli.options import (
    DEFAULT_MODEL,
    AnswerOption,
    BudgetOption,
    ConcurrencyOption,
    EmbedderOption,
    FileOption,
    JsonOption,
    LimitOption,
    MaxTokensOption,
    ModelOption,
    PriceOption,
    PrmOption,
    RoleOption,
    SeedOption,
    SplitOption,
    StrategyOption,
    TaskArgument,
    TemperatureOption,
    TemplateOption,
    TopPOption,
    VerifierOption,
)
from outthink.cli.running import interruptible, opened_engines, progress_bar
from outthink.cli.shown import console, note, print_summaries
from outthink.errors import UsageError

if TYPE_CHECKING:
    from outthink.tasks.example import Example


def bench(
    context: typer.Context,
    task: TaskArgument,
    strategy: StrategyOption = "self_consistency",
    model: ModelOption = DEFAULT_MODEL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; a part of the same run in it is gone on with.")
    ] = None,
    budget: BudgetOption = None,
    total_budget: Annotated[
        str | None, typer.Option(help="Of all problems together, such as 1M-tokens; auto with a plan spreads it.")
    ] = None,
    verifier: VerifierOption = None,
    prm: PrmOption = None,
    embedder: EmbedderOption = None,
    role: RoleOption = None,
    answer: AnswerOption = None,
    prompt_template: TemplateOption = None,
    file: FileOption = None,
    split: SplitOption = "test",
    limit: LimitOption = None,
    temperature: TemperatureOption = 0.8,
    top_p: TopPOption = 1.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    price: PriceOption = None,
    concurrency: ConcurrencyOption = 16,
    shard: Annotated[str | None, typer.Option(help="I/K takes every K-th problem from the I-th, from 0.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a strategy over the problems of a task; interrupted runs are gone on with by the same command."""
    from outthink.bench.run import Standing
    from outthink.bench.run import bench as run_bench
    from outthink.driver import as_budget
    from outthink.records.runs import read_results

    chosen = given_strategy(strategy, context)
    examples = loaded_task(task, file, split, limit, prompt_template, answer, seed)
    _say_doubts(examples)
    sampling, limits, priced, part = (
        given_sampling(temperature, top_p, max_tokens),
        as_budget(budget),
        given_prices(price),
        given_shard(shard),
    )
    folder = out or Path("runs", file_name(f"{task}-{strategy}" + (f"-{verifier or prm}" if verifier or prm else "")))

    with opened_engines(model, role, priced) as engines, progress_bar() as bar:
        told = False
        left = ""

        def progress(standing: Standing) -> None:
            nonlocal told, left
            left = left or standing.left or ""
            before = standing.before
            if not told and before.done:
                note(f"Going on: {len(before.done)} problems are finished.")
            if not told and before.interrupted:
                lost = ", ".join(f"{amount:,.6g} {unit}" for unit, amount in before.lost.items())
                note(f"{before.interrupted} problems were cut off and begin anew; paid again: {lost}.")
            told = True
            bar(standing.done, standing.total)

        found = interruptible(
            lambda stop: run_bench(
                examples,
                chosen,
                store=folder,
                model=engines["model"],
                models=engines,
                verifier=verifier,
                prm=prm,
                embedder=embedder,
                budget=limits,
                total_budget=total_budget,
                sampling=sampling,
                seed=seed,
                task=task,
                shard=part,
                concurrency=concurrency,
                on_progress=progress,
                stop=stop,
            )
        )
    print_summaries({str(folder): found}, as_json)
    if found.errors:
        first = next(result.error for result in read_results(folder) if result.error is not None)
        note(f"{found.errors} problems failed; the first one: {first}")
    if (ended := next((r.trace.error for r in read_results(folder) if r.trace and r.trace.error), None)) is not None:
        note(f"Some problems ended with an error and kept what they had; the first one: {ended}")
    if left:
        note(f"Nothing came back for some problems, and nothing was charged for them; the first one: {left}")
    if found.problems < found.planned:
        note(f"{found.planned - found.problems} problems are left: run the same command again to go on.")
        raise typer.Exit(130)
    if found.errors == found.problems:
        raise typer.Exit(1)


def pool(
    task: TaskArgument,
    n: Annotated[int, typer.Option(help="Samples per problem.")] = 32,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .jsonl file; a part of it is gone on with.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    answer: AnswerOption = None,
    prompt_template: TemplateOption = None,
    file: FileOption = None,
    split: SplitOption = "test",
    limit: LimitOption = None,
    temperature: TemperatureOption = 0.8,
    top_p: TopPOption = 1.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    price: PriceOption = None,
    concurrency: ConcurrencyOption = 16,
) -> None:
    """Record many samples per problem with token ids and logprobs; `--model FILE` plays them back."""
    from outthink.bench.pool import record_pool

    examples = loaded_task(task, file, split, limit, prompt_template, answer, seed)
    _say_doubts(examples)
    sampling, priced = given_sampling(temperature, top_p, max_tokens), given_prices(price)
    path = out or Path(file_name(f"pool-{task}") + ".jsonl")

    with opened_engines(model, None, priced) as engines, progress_bar() as bar:
        found = interruptible(
            lambda stop: record_pool(
                examples,
                n=n,
                model=engines["model"],
                path=path,
                sampling=sampling,
                seed=seed,
                concurrency=concurrency,
                on_progress=lambda standing: bar(standing.done, standing.total),
                stop=stop,
            )
        )
    typer.echo(f"{path}: {found.done} of {found.total} problems with {n} samples; {found.tokens:,.0f} tokens now")
    for name, why in found.failed.items():
        note(f"Not recorded: {name}: {why}")
    if found.done < found.total:
        note("Run the same command again to go on.")
        raise typer.Exit(1 if found.failed else 130)


def _say_doubts(examples: list[Example]) -> None:
    """What looks wrong with the questions, before anything is spent on them."""
    from outthink.tasks.checks import doubts

    for doubt in doubts(examples):
        note(f"Please check: {doubt}")


def grade(
    run: Annotated[Path, typer.Argument(help="A run directory, such as what a server recorded; it is only read.")],
    gold: Annotated[Path, typer.Option(help='The right answers: lines {"problem": ID, "answer": TEXT or list}.')],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    answer: AnswerOption = "chat",
) -> None:
    """Grade a recorded run afterwards, from right answers that people wrote down, into a new run directory."""
    from outthink.bench.grading import grade_run

    found = grade_run(run, gold, out, answer=given_kind(answer))
    typer.echo(f"{out}: {found.problems} problems graded, {found.right:g} of them right.")
    if found.unknown:
        note(f"Answers to problems that {run} does not have: {found.unknown}.")


def merge(
    out: Annotated[Path, typer.Argument(help="The run directory to make.")],
    shards: Annotated[list[Path], typer.Argument(help="The run directories of all shards.")],
) -> None:
    """Join the finished shards of one run."""
    from outthink.records.runs import merge as join

    join(shards, out)
    typer.echo(out)


def calibrate(
    model: Annotated[
        str, typer.Argument(help="Catalogue name, path of a GGUF, or address of a server: http://HOST/v1[#MODEL].")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The .json file to write.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="About how long it may take.")] = 60.0,
    most: Annotated[int, typer.Option(min=2, help="Most samples at once.")] = 128,
    knee: Annotated[
        float, typer.Option(min=0, help="From which share of a one-sample step a further sample is said to cost.")
    ] = 0.1,
    as_json: JsonOption = False,
) -> None:
    """Measure how long a model reads and writes here, for 1, 2, 4 ... samples at once, and fit its latency."""
    from rich.console import Console

    from outthink.cost.measuring import calibrate as measure
    from outthink.jsonl import write_whole

    name = Path(model).stem if Path(model).exists() else model.rpartition("#")[2]
    path = out or Path(file_name(f"calibration-{name}") + ".json")
    if path.suffix != ".json" or not path.parent.is_dir():
        raise UsageError(f"Cannot write {path}: name a .json file in a folder that exists.")
    with opened_engines(model, None, {}) as engines, Console(stderr=True).status(f"Measuring {model}") as status:
        try:
            found = interruptible(
                lambda stop: measure(
                    engines["model"],
                    seconds=seconds,
                    most=most,
                    on_row=lambda row: status.update(
                        f"Measuring {model}: {row.timed.samples} samples took {row.timed.seconds:.3g} s"
                    ),
                    stop=stop,
                )
            )
        except KeyboardInterrupt:
            note(f"Interrupted: {path} was not written.")
            raise
    if as_json:
        typer.echo(found.calibration.text(), nl=False)
    else:
        console().print(found.table())
        for line in found.sentences(knee):
            typer.echo(line)
    write_whole(path, found.calibration.text())  # after it was shown, which a full disk cannot take away
    if not as_json:
        typer.echo(path)
