"""The commands that record and grade: bench, pool, score, grade, merge, calibrate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outthink.cli.given import given_kind, given_prices, given_shard, task_name, writable_json
from outthink.cli.options import (
    AnswerOption,
    AnswerOptions,
    BudgetOption,
    JsonOption,
    ModelOptions,
    PriceOption,
    ResourceOption,
    ResourceOptions,
    SamplingOptions,
    SeedOption,
    StrategyOptions,
    TaskArgument,
    TaskOptions,
    TotalBudgetOption,
)
from outthink.cli.ordering import order_of
from outthink.cli.parsing import takes_blocks
from outthink.cli.progress import Working
from outthink.cli.running import interruptible, opened_engines, opened_resources
from outthink.cli.shown import note, print_summaries, print_table, say_unasked
from outthink.cli.viewing import ViewOption, beside
from outthink.errors import OutthinkError, UsageError
from outthink.names import file_name

if TYPE_CHECKING:
    from outthink.bench.pool import PoolStanding
    from outthink.bench.run import Standing
    from outthink.tasks.example import Example


@takes_blocks
def bench(
    context: typer.Context,
    task: TaskArgument,
    how: StrategyOptions,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run directory; a part of the same run in it is gone on with.")
    ] = None,
    total_budget: TotalBudgetOption = None,
    shard: Annotated[str | None, typer.Option(help="I/K takes every K-th problem from the I-th, from 0.")] = None,
    view: ViewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a strategy over the problems of a task.

    An interrupted run is gone on with by the same command.
    """
    from outthink.records.runs import read_results
    from outthink.strategies.traits import recorded_cap

    order = order_of(context, task, how, writer, helpers, asked, drawn, taken, total_budget)
    examples = order.examples()
    say_doubts(examples)
    part = given_shard(shard)
    folder = out or Path("runs", order.title)

    with (
        opened_resources(helpers.resource) as resources,
        opened_engines(writer.model, writer.role, order.prices) as engines,
        Working(order.title, unit="problems") as bar,
    ):
        page = live = None
        if view:
            from outthink.strategies.making import strategy_data
            from outthink.view.live import LiveRun
            from outthink.view.recordings import Shelf

            named = {role: engine.spec.name for role, engine in engines.items()}
            live = LiveRun(strategy_data(order.chosen), order.sampling, drawn.seed, named)
            page = context.with_resource(beside(Shelf([folder], solving=live)))
        told = False
        left = ""

        def progress(standing: Standing) -> None:
            nonlocal told, left
            left = left or standing.left or ""
            before = standing.before
            if not told and before.done:
                note(f"Going on: {len(before.done)} problems are finished.")
            if not told and before.interrupted:
                note(f"{before.interrupted} problems were cut off and begin anew; paid again: {_amounts(before.lost)}.")
            told = True
            bar.tell(standing.done, standing.total)

        try:
            summary = interruptible(
                lambda stop: order.carry_out(
                    examples,
                    folder,
                    engines,
                    resources,
                    on_progress=progress,
                    watching=None if live is None else live.watching,
                    stop=stop,
                    shard=part,
                )
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_interrupted_run(folder)) from None
    print_summaries({str(folder): summary}, as_json)
    failed: str | None = None
    ended: str | None = None
    caps: set[int] = set()
    roles: set[str] = set()
    for result in read_results(folder):
        failed = failed or result.error
        if result.trace is not None:
            ended = ended or result.trace.error
            caps.add(result.trace.sampling.cap)
            roles.update(call.role for call in result.trace.calls)
    own = drawn.max_tokens is None and recorded_cap(order.chosen) is None
    if own and caps and min(caps) < drawn.sampling().cap:
        most = f"{min(caps):,} to {max(caps):,}" if len(caps) > 1 else f"{min(caps):,}"
        note(
            f"Samples have up to {most} tokens, so that several fit the budget at once; --max-tokens sets another cap."
        )
    if summary.errors:
        note(f"{summary.errors} problems failed; the first one: {failed}")
    if ended is not None:
        note(f"Some problems ended with an error and kept what they had; the first one: {ended}")
    say_unasked(engines.keys() - roles)
    if left:
        note(f"Nothing came back for some problems, and nothing was charged for them; the first one: {left}")
    if page is not None and summary.attempts == summary.planned:
        page.stay()
    if summary.attempts < summary.planned:
        note(f"{summary.planned - summary.attempts} problems are left: run the same command again to go on.")
        raise typer.Exit(130)
    if summary.errors == summary.problems:
        raise typer.Exit(1)


def _interrupted_run(folder: Path) -> str:
    """What an interrupted run has, in a sentence."""
    from outthink.records.runs import read_before

    try:
        before = read_before(folder)
    except OutthinkError:
        return "Interrupted."
    lost = f"; {_amounts(before.lost)} of unfinished ones will be paid again" if before.lost else ""
    return (
        f"Interrupted; {len(before.done)} finished problems are in {folder}{lost}. Run the same command again to go on."
    )


def _amounts(cost: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:,.6g} {unit}" for unit, amount in cost.items())


@takes_blocks
def pool(
    task: TaskArgument,
    writer: ModelOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    n: Annotated[int, typer.Option(help="Samples per problem.")] = 32,
    until: Annotated[
        int | None,
        typer.Option(help="Draw until so many are right, at most --n: for `law passuntil`, which tells small rates."),
    ] = None,
    probe_every: Annotated[
        int | None,
        typer.Option(help="Force an answer after every so many tokens of a thought, for `replay` inside of thoughts."),
    ] = None,
    forced: Annotated[str | None, typer.Option(help="What forces it; it belongs to the model.")] = None,
    top_logprobs: Annotated[
        int | None, typer.Option(help="Keep how likely the so many likeliest tokens were, for `replay` of deepconf.")
    ] = None,
    resource: ResourceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .jsonl file; a part of it is gone on with.")
    ] = None,
) -> None:
    """Record many samples per problem; `--model FILE` plays them back.

    Token ids and logprobs are kept, too, where the model gives them.
    """
    from outthink.bench.pool import need_recordable, record_pool
    from outthink.models.roles import GENERATOR, MAIN, read_roles
    from outthink.strategies.probing import FORCED

    if read_roles(writer.role).keys() - {MAIN}:
        raise UsageError(f"A pool holds what the {GENERATOR} writes, so --role takes {GENERATOR}=MODEL only.")
    if forced is not None and probe_every is None:
        raise UsageError("--forced is what --probe-every writes; give both.")
    path = out or Path(file_name(f"pool-{task_name(task)}") + ".jsonl")
    need_recordable(
        path, n=n, until=until, probe_every=probe_every, top_logprobs=top_logprobs
    )  # before a model is loaded
    examples = taken.examples(task, asked, drawn.seed)
    say_doubts(examples)
    sampling, prices = drawn.sampling(), writer.prices()
    last: PoolStanding | None = None

    with (
        opened_resources(resource) as resources,
        opened_engines(writer.model, writer.role, prices) as engines,
        Working(f"{task_name(task)}", unit="problems") as bar,
    ):

        def progress(standing: PoolStanding) -> None:
            nonlocal last
            last = standing
            bar.tell(standing.done, standing.total)

        try:
            recorded = interruptible(
                lambda stop: record_pool(
                    examples,
                    n=n,
                    until=until,
                    probe_every=probe_every,
                    forced=FORCED if forced is None else forced,
                    top_logprobs=top_logprobs,
                    model=engines["model"],
                    path=path,
                    sampling=sampling,
                    seed=drawn.seed,
                    concurrency=taken.concurrency,
                    resources=resources,
                    on_progress=progress,
                    stop=stop,
                )
            )
        except KeyboardInterrupt:
            has = (
                ""
                if last is None
                else f" {last.done} of {last.total} problems are in {path} ({last.tokens:,.0f} tokens)."
            )
            raise KeyboardInterrupt(f"Interrupted.{has} Run the same command again to go on.") from None
    many = f"up to {n}" if until else f"{n}"
    typer.echo(
        f"{path}: {recorded.done} of {recorded.total} problems with {many} samples; {recorded.tokens:,.0f} tokens now"
    )
    for name, why in recorded.failed.items():
        note(f"Not recorded: {name}: {why}")
    if recorded.done < recorded.total:
        note("Run the same command again to go on.")
        raise typer.Exit(1 if recorded.failed else 130)


@takes_blocks
def score(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz); it is only read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .jsonl file; a part of it is gone on with.")],
    writer: ModelOptions,
    asked: AnswerOptions,
    verifier: Annotated[
        list[str] | None, typer.Option("--verifier", help="Scores answers, such as judge; may be given several times.")
    ] = None,
    prm: Annotated[
        list[str] | None, typer.Option("--prm", help="Scores every step, such as rollout; may be given several times.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="What ends a step.")] = "\\n\\n",
    budget: BudgetOption = None,
    seed: SeedOption = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems at once.")] = 16,
    resource: ResourceOption = None,
) -> None:
    """Score the samples of a pool, into a new pool.

    `replay`, `law` and `prm train` read the scores. --budget is the most of one scorer on one problem.
    """
    from outthink.bench.scoring import open_scorers, score_pool

    prices = writer.prices()
    ends = delimiter.replace("\\n", "\n")
    open_scorers(out, verifiers=verifier or [], prms=prm or [], delimiter=ends)  # before a model is loaded
    with (
        opened_resources(resource) as resources,
        opened_engines(writer.model, writer.role, prices) as engines,
        Working(f"Scoring {pool.name}", unit="problems") as bar,
    ):
        scored = interruptible(
            lambda stop: score_pool(
                pool,
                out,
                verifiers=verifier or [],
                prms=prm or [],
                models=engines,
                answer=None if asked.answer is None else given_kind(asked.answer),
                template=asked.prompt_template,
                delimiter=ends,
                budget=budget,
                seed=seed,
                concurrency=concurrency,
                resources=resources,
                on_progress=lambda standing: bar.tell(standing.done, standing.total),
                stop=stop,
            )
        )
    told = _amounts({unit: amount for unit, amount in scored.cost.items() if unit != "seconds"})
    typer.echo(f"{out}: {scored.done} of {scored.total} problems scored; {told or 'nothing'} now")
    for name, count in scored.missing.items():
        if count:
            note(f"{name} gave no score to {count:,} of what it was shown.")
    for name, why in scored.failed.items():
        note(f"Not scored: {name}: {why}")
    if scored.done < scored.total:
        note(f"Run {'it with a larger --budget' if scored.unpaid else 'the same command again'} to go on.")
        raise typer.Exit(1 if scored.failed else 130)


def say_doubts(examples: list[Example]) -> None:
    """Tell what looks wrong with the questions, before anything is spent on them."""
    from outthink.tasks.checks import doubts

    for doubt in doubts(examples):
        note(f"Please check: {doubt}")


def grade(
    run: Annotated[Path, typer.Argument(help="A run directory, such as what a server recorded; it is only read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    gold: Annotated[
        Path | None, typer.Option(help='The right answers: lines {"problem": ID, "answer": TEXT or list}.')
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that judges the replies that nobody else has: a name or an address.")
    ] = None,
    price: PriceOption = None,
    budget: BudgetOption = None,
    answer: AnswerOption = "chat",
) -> None:
    """Grade a recorded run afterwards, into a new run directory.

    By right answers that people wrote down, else by what callers have said, else by a judge.
    """
    from outthink.bench.grading import grade_run

    if judge is None and (price is not None or budget is not None):
        raise UsageError("--price and --budget are of the judge: name one by --judge MODEL.")
    kind = given_kind(answer)
    if judge is None:
        graded = grade_run(run, gold, out, answer=kind)
    else:
        with opened_engines(judge, None, given_prices(price)) as engines, Working("Judging"):
            graded = grade_run(run, gold, out, answer=kind, judge=engines["model"], budget=budget)
    typer.echo(f"{out}: {graded.problems} problems graded, {graded.right:g} of them right.")
    if graded.cost:
        told = ", ".join(f"{amount:,.6g} {unit}" for unit, amount in graded.cost.items() if unit != "seconds")
        typer.echo(f"The judge cost {told}.")
    if graded.unknown:
        note(f"Answers to problems that {run} does not have: {graded.unknown}.")


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
    """Measure how fast a model reads and writes here.

    It is timed with 1, 2, 4 and more samples at once, and its latency is fitted.
    """
    from outthink.cost.measuring import calibrate as measure
    from outthink.jsonl import write_whole

    name = Path(model).stem if os.path.exists(Path(model)) else model.rpartition("#")[2]
    path = out or Path(file_name(f"calibration-{name}") + ".json")
    writable_json(path)
    with opened_engines(model, None, {}) as engines, Working(f"Measuring {model}") as standing:
        try:
            measured = interruptible(
                lambda stop: measure(
                    engines["model"],
                    seconds=seconds,
                    most=most,
                    on_row=lambda row: standing.update(
                        f"Measuring {model}: {row.timed.samples} samples took {row.timed.seconds:.3g} s"
                    ),
                    stop=stop,
                )
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Interrupted: {path} was not written.") from None
    if as_json:
        typer.echo(measured.calibration.text(), nl=False)
    else:
        print_table(measured.table())
        for line in measured.sentences(knee):
            typer.echo(line)
    write_whole(path, measured.calibration.text())  # after it was shown, which a full disk cannot take away
    if not as_json:
        typer.echo(path)
