"""The command line: solve, bench, pool, report, grade, law, merge, calibrate, strategies, models, prm, takeover."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar, cast, get_args, runtime_checkable

import typer
from typer.exceptions import TyperException

from outthink import __version__
from outthink.errors import OutthinkError, UnknownName, UsageError
from outthink.types import AnswerKind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from outthink.meter import Meter
    from outthink.models.engine import Engine, Price, Tokenizing
    from outthink.strategies import Strategy
    from outthink.tasks import Example
    from outthink.types import Sampling, Trace

T = TypeVar("T")


@runtime_checkable
class _Formatted(Protocol):
    """An error of the command-line parser that words itself."""

    def format_message(self) -> str: ...


DEFAULT_MODEL = "qwen2.5-coder-0.5b-instruct"

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Spend inference compute where it pays: test-time scaling under an enforced budget, with an honest ledger.",
)
models_app = typer.Typer(help="List, fetch and locate the models that run on this machine.")
app.add_typer(models_app, name="models")
prm_app = typer.Typer(help="Train a small process reward model from recorded samples, and measure it.")
app.add_typer(prm_app, name="prm")
takeover_app = typer.Typer(help="Decide how often a dear model takes over from a cheap one, for the strategy atts.")
app.add_typer(takeover_app, name="takeover")
plan_app = typer.Typer(help="Learn from recorded samples what to do when, for the strategy auto.")
app.add_typer(plan_app, name="plan")

StrategyOption = Annotated[
    str, typer.Option("--strategy", "-s", help="A name from `outthink strategies`, or module:Name.")
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Catalogue name, path of a GGUF, recorded pool, or address: http://HOST/v1[#MODEL]."
    ),
]
RoleOption = Annotated[
    list[str] | None, typer.Option("--role", help="Model of a further role, such as judge=NAME or fusor=NAME.")
]
VerifierOption = Annotated[
    str | None,
    typer.Option(
        "--verifier", help="Scores answers: confidence, judge, pairwise, tests, FILE.json, address or module:function."
    ),
]
PrmOption = Annotated[
    str | None,
    typer.Option(
        "--prm", help="Scores steps: confidence, judge, FILE.json of `outthink prm train`, address or module:function."
    ),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option("--embedder", help="Compares steps: hashing, sentence-transformers:MODEL or module:name."),
]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", "-b", help="Limits per problem, such as 20k-tokens,8s,0.01usd,2T-flops.")
]
TemperatureOption = Annotated[float, typer.Option(help="0 is greedy.")]
TopPOption = Annotated[float, typer.Option(help="Nucleus mass in (0, 1].")]
MaxTokensOption = Annotated[int, typer.Option(help="Most tokens of one sample.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all randomness.")]
AnswerOption = Annotated[
    str | None, typer.Option("--answer", help=f"How answers are read: {', '.join(get_args(AnswerKind))}.")
]
TemplateOption = Annotated[
    str | None, typer.Option("--prompt-template", help="The prompt, with {question} where the question goes.")
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="US dollars per million tokens: [ROLE=]PROMPT,COMPLETION, such as 0.15,0.60; auto: published; FILE.json.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
HYPERPARAMETERS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Options that are not the command's own are the strategy's hyperparameters: --n 16 --balance 0.1."""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    _help_if_alone(context)


@models_app.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    _help_if_alone(context)


@prm_app.callback(invoke_without_command=True)
def _prm(context: typer.Context) -> None:
    _help_if_alone(context)


@takeover_app.callback(invoke_without_command=True)
def _takeover(context: typer.Context) -> None:
    _help_if_alone(context)


@plan_app.callback(invoke_without_command=True)
def _plan(context: typer.Context) -> None:
    _help_if_alone(context)


def _help_if_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(context_settings=HYPERPARAMETERS)
def solve(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    strategy: StrategyOption = "self_consistency",
    model: ModelOption = DEFAULT_MODEL,
    budget: BudgetOption = None,
    verifier: VerifierOption = None,
    prm: PrmOption = None,
    embedder: EmbedderOption = None,
    role: RoleOption = None,
    answer: AnswerOption = None,
    prompt_template: TemplateOption = None,
    temperature: TemperatureOption = 0.8,
    top_p: TopPOption = 1.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    price: PriceOption = None,
    trace: Annotated[Path | None, typer.Option(help="Append the whole trace to this JSONL file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Solve one question: live progress, then the answer, what it cost and why it stopped."""
    from outthink.driver import as_budget, solve_async
    from outthink.problems import ask

    chosen = _strategy(strategy, context)
    problem = ask(
        sys.stdin.read() if question == "-" else question, answer=_answer_kind(answer), template=prompt_template
    )
    sampling, limits, priced = _sampling(temperature, top_p, max_tokens), as_budget(budget), _prices(price)

    if trace is not None:
        try:
            trace.open("a").close()  # before anything is paid for
        except OSError as cause:
            raise UsageError(f"Cannot write {trace}: {cause.strerror}; name a file in a folder that exists.") from None
    failure: OutthinkError | None = None
    with _engines(model, role, priced) as engines:
        watcher = None if as_json else _Watcher()

        async def go(stop: asyncio.Event) -> Trace:
            try:
                return await solve_async(
                    problem,
                    chosen,
                    model=engines["model"],
                    models=engines,
                    verifier=verifier,
                    prm=prm,
                    embedder=embedder,
                    budget=limits,
                    sampling=sampling,
                    seed=seed,
                    stop=stop,
                    watch=watcher.start if watcher else None,
                )
            finally:
                if watcher:
                    watcher.stop()

        try:
            found = _interruptible(go)
        except OutthinkError as error:
            if error.trace is None or not error.trace.calls:
                raise
            found, failure = error.trace, error  # it has the bill
    if trace is not None:
        with trace.open("a", encoding="utf-8") as file:
            file.write(found.to_json() + "\n")
    typer.echo(_as_json(found)) if as_json else _print_trace(found)
    if failure is not None:
        raise failure
    if found.answer is None:
        raise typer.Exit(3)


TaskArgument = Annotated[
    str,
    typer.Argument(
        help="gsm8k, math500, humaneval, mbpp, gym:NAME?key=value, or your own .jsonl with question and answer."
    ),
]
FileOption = Annotated[Path | None, typer.Option("--file", help="The file of a published set.")]
SplitOption = Annotated[str, typer.Option(help="Split of the task.")]
LimitOption = Annotated[int | None, typer.Option(help="Take only the first so many problems of the fixed order.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Most problems at once.")]


@app.command(context_settings=HYPERPARAMETERS)
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
    from outthink.bench.store import read_results
    from outthink.driver import as_budget

    chosen = _strategy(strategy, context)
    examples = _load(task, file, split, limit, prompt_template, answer, seed)
    sampling, limits, priced, part = (
        _sampling(temperature, top_p, max_tokens),
        as_budget(budget),
        _prices(price),
        _shard(shard),
    )
    folder = out or Path("runs", _file_name(f"{task}-{strategy}" + (f"-{verifier or prm}" if verifier or prm else "")))

    with _engines(model, role, priced) as engines, _bar() as bar:
        told = False
        left = ""

        def progress(standing: Standing) -> None:
            nonlocal told, left
            left = left or standing.left or ""
            before = standing.before
            if not told and before.done:
                _note(f"Going on: {len(before.done)} problems are finished.")
            if not told and before.interrupted:
                lost = ", ".join(f"{amount:,.6g} {unit}" for unit, amount in before.lost.items())
                _note(f"{before.interrupted} problems were cut off and begin anew; paid again: {lost}.")
            told = True
            bar(standing.done, standing.total)

        found = _interruptible(
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
    _print_summaries({str(folder): found}, as_json)
    if found.errors:
        first = next(result.error for result in read_results(folder) if result.error is not None)
        _note(f"{found.errors} problems failed; the first one: {first}")
    if (ended := next((r.trace.error for r in read_results(folder) if r.trace and r.trace.error), None)) is not None:
        _note(f"Some problems ended with an error and kept what they had; the first one: {ended}")
    if left:
        _note(f"Nothing came back for some problems, and nothing was charged for them; the first one: {left}")
    if found.problems < found.planned:
        _note(f"{found.planned - found.problems} problems are left: run the same command again to go on.")
        raise typer.Exit(130)
    if found.errors == found.problems:
        raise typer.Exit(1)


@app.command()
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

    examples = _load(task, file, split, limit, prompt_template, answer, seed)
    sampling, priced = _sampling(temperature, top_p, max_tokens), _prices(price)
    path = out or Path(_file_name(f"pool-{task}") + ".jsonl")

    with _engines(model, None, priced) as engines, _bar() as bar:
        found = _interruptible(
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
        _note(f"Not recorded: {name}: {why}")
    if found.done < found.total:
        _note("Run the same command again to go on.")
        raise typer.Exit(1 if found.failed else 130)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, the first one as the baseline; or pools (.jsonl).")
    ],
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="A pool of the same problems: compare each run with its vote at equal tokens."),
    ] = None,
) -> None:
    """Accuracy, agreement and cost of runs with intervals, paired differences from the first; pass@k of pools."""
    from outthink.bench.report import (
        agreement,
        agreement_sentence,
        markdown,
        paired,
        plain,
        read_run,
        sentence,
        tree_sentence,
    )

    pools = [run for run in runs if run.suffix in (".jsonl", ".gz")]
    if pools:
        if len(pools) < len(runs):
            raise UsageError("Give run directories or pools, not both.")
        if against is not None:
            raise UsageError("--against compares runs with a pool: give run directories.")
        _report_pools(pools, as_json, as_markdown)
        return

    found = {str(run): read_run(run) for run in runs}
    summaries = {run: of for run, (of, _) in found.items()}
    results = {run: of for run, (_, of) in found.items()}
    base, *others = results
    differences = {run: paired(results[run], results[base]) for run in others}
    agreements = {run: agreement(results[run], results[base]) for run in others}
    equal = {} if against is None else _at_equal_tokens(results, against)
    if as_json:
        import dataclasses

        shown = {
            "runs": {run: dataclasses.asdict(of) for run, of in summaries.items()},
            "differences": {run: dataclasses.asdict(of) for run, of in differences.items()},
            "agreements": {run: dataclasses.asdict(of) for run, of in agreements.items()},
            "equal_tokens": {run: None if of is None else dataclasses.asdict(of) for run, of in equal.items()},
        }
        typer.echo(json.dumps(plain(shown), indent=2))
        return
    if as_markdown:
        typer.echo(markdown(summaries))
    else:
        _print_summaries(summaries, as_json=False)
    for run in others:
        difference, agreed = differences[run], agreements[run]
        if agreed.graded < agreed.problems:
            typer.echo(("- " if as_markdown else "") + agreement_sentence((run, base), agreed))
        if difference.problems or agreed.graded == agreed.problems:
            typer.echo(("- " if as_markdown else "") + sentence((run, base), difference))
    for run, of in summaries.items():
        if of.tree:
            typer.echo(("- " if as_markdown else "") + tree_sentence(run, of.tree))
    for run, same in equal.items():
        told = f"{run} cost less than one sample of {against}." if same is None else same.sentence(run)
        typer.echo(("- " if as_markdown else "") + told)


def _at_equal_tokens(results: dict[str, list[Any]], pool: Path) -> dict[str, Any]:
    from outthink.bench.pooldata import read_pool
    from outthink.bench.replay import at_equal_tokens

    recorded = read_pool(pool)
    return {run: at_equal_tokens(found, recorded) for run, found in results.items()}


def _report_pools(pools: list[Path], as_json: bool, as_markdown: bool) -> None:
    from outthink.bench.report import coverage, coverage_markdown, coverage_table

    found = {str(pool): coverage(pool) for pool in pools}
    if as_json:
        import dataclasses

        typer.echo(json.dumps({pool: dataclasses.asdict(of) for pool, of in found.items()}, indent=2))
    elif as_markdown:
        typer.echo(coverage_markdown(found))
    else:
        _console().print(coverage_table(found))
    if not as_json:
        for pool, of in found.items():
            typer.echo(("- " if as_markdown else "") + of.sentence(pool))


@app.command()
def grade(
    run: Annotated[Path, typer.Argument(help="A run directory, such as what a server recorded; it is only read.")],
    gold: Annotated[Path, typer.Option(help='The right answers: lines {"problem": ID, "answer": TEXT or list}.')],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to make.")],
    answer: AnswerOption = "chat",
) -> None:
    """Grade a recorded run afterwards, from right answers that people wrote down, into a new run directory."""
    from outthink.bench.grading import grade_run

    found = grade_run(run, gold, out, answer=_answer_kind(answer))
    typer.echo(f"{out}: {found.problems} problems graded, {found.right:g} of them right.")
    if found.unknown:
        _note(f"Answers to problems that {run} does not have: {found.unknown}.")


@app.command()
def replay(
    pool: Annotated[
        Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz); samples must say whether they are correct.")
    ],
    strategies: Annotated[
        str, typer.Option(help="Names with options, separated by commas: self_consistency,borda?p=1.")
    ] = "self_consistency",
    n: Annotated[str, typer.Option(help="Numbers of samples, separated by commas; by default 1, 2, 4 ... all.")] = "",
    verifier: Annotated[str | None, typer.Option(help="Which scores of the pool verifiers give.")] = None,
    verdicts: Annotated[
        int | None,
        typer.Option(min=1, help="How many recorded verdicts make a score, drawn at random; all by default."),
    ] = None,
    answer: AnswerOption = None,
    subsamples: Annotated[int, typer.Option(min=1, help="Random subsamples of each problem.")] = 1000,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Accuracy and tokens of strategies at every n, on recorded samples; nothing is generated."""
    from outthink.bench.replay import replay_pool

    try:
        ns = sorted({int(part) for part in n.split(",")}) if n else None
    except ValueError:
        raise UsageError(f"Cannot read --n {n!r}; write whole numbers, such as 1,2,4.") from None
    found = replay_pool(
        pool,
        [name.strip() for name in strategies.split(",")],
        ns=ns,
        verifier=verifier,
        verdicts=verdicts,
        answer="text" if answer is None else _answer_kind(answer),
        subsamples=subsamples,
        seed=seed,
    )
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    elif as_markdown:
        typer.echo(found.markdown())
    else:
        _console().print(found.table())
    for line in found.sentences():
        typer.echo(("- " if as_markdown else "") + line) if not as_json else None


@app.command()
def law(
    name: Annotated[str | None, typer.Argument(help="Which law; without it they are listed.")] = None,
    files: Annotated[list[Path] | None, typer.Argument(help="Pools (.jsonl, .jsonl.gz) or run directories.")] = None,
    at: Annotated[str, typer.Option(help="Also predict at these budgets, separated by commas.")] = "",
    verifier: Annotated[str | None, typer.Option(help="Which scores of the pool are verdicts.")] = None,
    verdict_cost: Annotated[
        float | None, typer.Option(help="For genrm: tokens of one verdict over those of one solution.")
    ] = None,
    shape: Annotated[
        list[Path] | None,
        typer.Option(help="For kinetics and crossover: .gguf or config.json of the model of each pool."),
    ] = None,
    answer: AnswerOption = None,
    figure: Annotated[Path | None, typer.Option(help="Draw into this .svg, .png or .html file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resamples.")] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Fit a scaling law to recorded samples or runs: parameters with intervals, predictions, a figure."""
    from outthink.bench import laws
    from outthink.figures import check, save

    if name is None:
        _list_laws(as_json)
        return
    try:
        budgets = [float(part) for part in at.split(",")] if at else []
    except ValueError:
        budgets = [0.0]
    if not all(0 < budget < math.inf for budget in budgets):
        raise UsageError(f"Cannot read --at {at!r}; write numbers above 0, such as 64,128.")
    options = {
        "at": budgets or None,
        "verifier": verifier,
        "verdict_cost": verdict_cost,
        "shape": shape or None,
        "answer": None if answer is None else _answer_kind(answer),
        "seed": seed,
    }
    if figure is not None:
        check(figure)  # before anything is computed
    found = laws.analyse(name, files or [], **{key: value for key, value in options.items() if value is not None})
    if figure is not None:
        save(found.figure, figure)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
        return
    if as_markdown:
        typer.echo(found.markdown())
    else:
        typer.echo(found.title)
        _console().print(found.table())
    for line in found.sentences:
        typer.echo(("- " if as_markdown else "") + line)


def _list_laws(as_json: bool) -> None:
    from outthink.bench.laws import LAWS, needs, summary

    if as_json:
        typer.echo(json.dumps([{"name": law, "says": summary(law), "needs": needs(law)} for law in LAWS], indent=2))
        return
    from rich.table import Table

    table = Table("law", "what it says", "needs", box=None, pad_edge=False)
    for law in LAWS:
        table.add_row(law, summary(law), needs(law))
    _console().print(table)


@app.command()
def merge(
    out: Annotated[Path, typer.Argument(help="The run directory to make.")],
    shards: Annotated[list[Path], typer.Argument(help="The run directories of all shards.")],
) -> None:
    """Join the finished shards of one run."""
    from outthink.bench.store import merge as join

    join(shards, out)
    typer.echo(out)


@app.command()
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

    from outthink.bench.calibrate import calibrate as measure
    from outthink.jsonl import write_whole

    name = Path(model).stem if Path(model).exists() else model.rpartition("#")[2]
    path = out or Path(_file_name(f"calibration-{name}") + ".json")
    if path.suffix != ".json" or not path.parent.is_dir():
        raise UsageError(f"Cannot write {path}: name a .json file in a folder that exists.")
    with _engines(model, None, {}) as engines, Console(stderr=True).status(f"Measuring {model}") as status:
        try:
            found = _interruptible(
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
            _note(f"Interrupted: {path} was not written.")
            raise
    if as_json:
        typer.echo(found.calibration.text(), nl=False)
    else:
        _console().print(found.table())
        for line in found.sentences(knee):
            typer.echo(line)
    write_whole(path, found.calibration.text())  # after it was shown, which a full disk cannot take away
    if not as_json:
        typer.echo(path)


@app.command()
def strategies(as_json: JsonOption = False) -> None:
    """List the methods: hyperparameters, what they need, and their sources."""
    from outthink.strategies.listing import describe

    found = describe()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.table import Table

    table = Table("strategy", "what it does", "hyperparameters", "needs", box=None, pad_edge=False)
    for entry in found:
        parameters = " ".join(f"{name}={value!r}" for name, value in entry["hyperparameters"].items())
        table.add_row(entry["name"], entry["summary"], parameters, ", ".join(entry["needs"]))
    _console().print(table)


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """The models of the catalogue, and which of them are on this machine."""
    from outthink.models import catalog

    rows = [
        {"name": name, "licence": entry.licence, "path": str(found) if (found := catalog.path(name)) else None}
        for name, entry in catalog.entries().items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = row["path"] or f"not here; outthink models pull {row['name']}"
        typer.echo(f"{row['name']:30} {row['licence']:12} {where}")


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A name from `outthink models list`.")]) -> None:
    """Fetch a model, check it and keep it in the cache."""
    from outthink.models import catalog

    typer.echo(catalog.pull(name, announce=lambda text: typer.echo(text, err=True)))


@models_app.command("probe")
def models_probe(
    url: Annotated[str, typer.Argument(help="Address of a server: http://HOST/v1, or http://HOST/v1#MODEL.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a server, with real requests, what it does with each field; kept for a week."""
    import dataclasses

    from outthink.models.probe import probe_and_remember

    with _status(f"Asking {url}"):
        found = asyncio.run(probe_and_remember(url))
    facts = dataclasses.asdict(found.facts)
    if as_json:
        cost = {"requests": found.requests, **dataclasses.asdict(found.usage)}
        typer.echo(json.dumps({**facts, "powers": sorted(found.facts.powers), "notes": found.notes, "cost": cost}))
        return
    for name, value in facts.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else "-" if value is None else value
        typer.echo(f"{name:12} {shown}")
    typer.echo(f"{'powers':12} {', '.join(sorted(found.facts.powers)) or '-'}")
    for note in found.notes:
        _note(note)
    _note(
        f"This took {found.requests} requests, {found.usage.prompt:,} prompt and {found.usage.completion:,} "
        "completion tokens."
    )


@models_app.command("path")
def models_path(name: Annotated[str, typer.Argument(help="A name from `outthink models list`.")]) -> None:
    """Print where a model's file is."""
    from outthink.models import catalog

    if name not in catalog.entries():
        raise UnknownName("model", name, catalog.entries())
    found = catalog.path(name)
    if found is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    typer.echo(found)


TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Tells where tokens end in pools that do not say so: the model that wrote them."
    ),
]


@prm_app.command("train")
def prm_train(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz) of `outthink pool`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("probe.json"),
    delimiter: Annotated[str, typer.Option(help="What ends a step.")] = "\\n\\n",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cross-validation.")] = 5,
    model: TokenizerOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn from the outcomes of recorded samples which beginnings end right; `--prm FILE` uses it."""
    from outthink.bench.prm import TELL, train
    from outthink.jsonl import write_whole

    _writable_json(out)
    with _tokenizer(model) as tokenizer, _status("Training"):
        found = train(pool, delimiter=delimiter.replace("\\n", "\n"), folds=folds, seed=seed, tokenizer=tokenizer)
    write_whole(out, found.probe.text())
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
        return
    _console().print(found.table())
    if found.unclear:
        _note(f"Of {found.unclear} samples it is not known which logprobs belong to which step; {TELL}.")
    typer.echo(f"{out}: use it as --verifier {out} or --prm {out}")


@prm_app.command("eval")
def prm_eval(
    probe: Annotated[Path, typer.Argument(help="A file of `outthink prm train`.")],
    files: Annotated[
        list[Path], typer.Argument(help="Pools it was not trained on, or solutions whose first error is marked.")
    ],
    threshold: Annotated[float, typer.Option(help="Below it a step is taken for wrong.")] = 0.5,
    fit: Annotated[Path | None, typer.Option(help="Marked solutions on which to fit the threshold instead.")] = None,
    model: TokenizerOption = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """How well a trained process reward model ranks, is calibrated, chooses among samples and finds first errors."""
    from outthink.bench.prm import evaluate
    from outthink.rewards.probe import Probe

    opened = Probe.open(probe)
    with _tokenizer(model) as tokenizer, _status("Measuring"):
        found = evaluate(opened, files, threshold=threshold, fit_on=fit, tokenizer=tokenizer)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    elif as_markdown:
        typer.echo(found.markdown())
    else:
        for heading, table in found.tables():
            typer.echo(heading)
            _console().print(table)
    for line in found.sentences():
        typer.echo(("- " if as_markdown else "") + line) if not as_json else None


@takeover_app.command("fit")
def takeover_fit(
    pool: Annotated[Path, typer.Argument(help="A pool (.jsonl, .jsonl.gz) of the cheap model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("takeover.json"),
    signal: Annotated[
        Literal["agreement", "logprob", "verifier"], typer.Option(help="What says how badly a draft conforms.")
    ] = "agreement",
    n: Annotated[int, typer.Option(min=1, help="Samples of a draft.")] = 4,
    model: Annotated[str | None, typer.Option(help="Who wrote the pool, where it does not say.")] = None,
    verifier: Annotated[str | None, typer.Option(help="Which scores of the pool to take for verifier.")] = None,
    answer: AnswerOption = None,
    seed: SeedOption = 0,
) -> None:
    """Store how drafts of a cheap model score, so that `--strategy atts` calls the dear one at a chosen rate.

    The rate is controlled on questions like those of the pool; how often an answer is wrong is not.
    """
    from outthink.bench.takeover import fit
    from outthink.jsonl import write_whole

    _writable_json(out)
    found = fit(
        pool,
        signal=signal,
        n=n,
        model=model,
        verifier=verifier,
        answer="text" if answer is None else _answer_kind(answer),
        seed=seed,
    )
    write_whole(out, found.calibration.text())
    for line in found.sentences():
        typer.echo(line)
    calibration = found.calibration
    typer.echo(
        f"{out}: use it as --strategy atts --role draft={calibration.model} --signal {signal} --n {n} "
        f"--calibration {out} --alpha RATE"
    )


FilesArgument = Annotated[
    list[Path], typer.Argument(help="One pool of the model, and run directories of other strategies on its problems.")
]
TargetOption = Annotated[
    Path | None, typer.Option("--target", help="Pool of a dearer model on the same problems, to go over to.")
]
ScoresOption = Annotated[
    Path | None, typer.Option("--scores", help="Run of best_of_n with a verifier over all samples of the pool.")
]
UnitOption = Annotated[Literal["tokens", "flops", "usd"], typer.Option(help="What costs are counted in.")]
BlockOption = Annotated[
    int,
    typer.Option(
        "--cache-block",
        min=0,
        help="Prompts are found in the cache in blocks of so many tokens (embedded: 32); the rest is read anew.",
    ),
]
WriterOption = Annotated[
    list[str] | None,
    typer.Option("--writer", help="Who wrote a pool that does not say: NAME, or target=NAME; gives it its FLOPs."),
]


@plan_app.command("fit")
def plan_fit(
    files: FilesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("plan.json"),
    target: TargetOption = None,
    scores: ScoresOption = None,
    unit: UnitOption = "tokens",
    writer: WriterOption = None,
    cache_block: BlockOption = 0,
    budgets: Annotated[
        str, typer.Option(help="Mean costs of a problem, separated by commas: 200,400 or 1T,2T; by default nine.")
    ] = "",
    bins: Annotated[str, typer.Option(help="Number of quantile bins of difficulty, or absolute.")] = "5",
    difficulty: Annotated[
        Literal["agreement", "entropy", "length", "logprob", "verifier", "oracle"] | None,
        typer.Option(help="What bins are cut by; oracle knows the answers and is an upper bound."),
    ] = None,
    probe: Annotated[int, typer.Option(min=1, help="Samples on which a bin's difficulty is measured.")] = 4,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cross-validation.")] = 5,
    answer: AnswerOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn from recorded samples when to draw more, go over to another model or strategy, or stop."""
    from outthink.jsonl import write_whole
    from outthink.planner.make import make_plan

    _writable_json(out)
    if bins != "absolute" and not (bins.isdigit() and int(bins) >= 1):
        raise UsageError(f"Cannot read --bins {bins!r}; write a number such as 5, or absolute.")
    recordings = _recordings(files, target, scores, unit, writer, answer, seed, cache_block)
    with _status("Reading") as status:
        plan, _ = make_plan(
            recordings,
            budgets=_amounts(budgets),
            folds=folds,
            bins=None if bins == "absolute" else int(bins),
            difficulty=difficulty,
            probe=probe,
            seed=seed,
            tell=lambda text: status.update(text),
        )
    write_whole(out, plan.to_json())
    if as_json:
        typer.echo(plan.to_json())
        return
    _print_plan(out, as_markdown=False)
    typer.echo(f"{out}: use it as --strategy auto --plan {out}, and ask `outthink quote` with it")


@plan_app.command("show")
def plan_show(
    plan: Annotated[Path, typer.Argument(help="A file of `outthink plan fit`.")],
    figure: Annotated[Path | None, typer.Option(help="Draw into this .svg, .png or .html file.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """The curve of a plan against fixed strategies, and its strategy for every bin of difficulty and budget."""
    from outthink.planner.plan import Plan
    from outthink.planner.show import figure as drawn

    opened = Plan.open(plan)
    if figure is not None:
        from outthink.figures import save

        save(drawn(opened), figure)
    _print_plan(plan, as_markdown=as_markdown)


@plan_app.command("check")
def plan_check(
    plan: Annotated[Path, typer.Argument(help="A file of `outthink plan fit`.")],
    files: Annotated[list[Path], typer.Argument(help="One new pool, or runs of auto with this plan.")],
    target: TargetOption = None,
    scores: ScoresOption = None,
    writer: WriterOption = None,
    cache_block: BlockOption = 0,
    answer: AnswerOption = None,
    seed: SeedOption = 0,
) -> None:
    """Measure a plan on new recordings, and say where they are not as it expects; exit code 1 where they are not."""
    from outthink.bench.report import text_table
    from outthink.bench.store import read_results
    from outthink.planner.make import check_plan, check_run
    from outthink.planner.plan import Plan
    from outthink.planner.show import checks

    opened = Plan.open(plan)
    if all(path.is_dir() for path in files):
        found = [check_run(opened, list(read_results(path))) for path in files]
    else:
        with _status("Reading"):
            found = check_plan(
                opened, _recordings(files, target, scores, opened.unit, writer, answer, seed, cache_block)
            )
    _console().print(text_table(*checks(found)))
    if any(of.drift for of in found):
        _note("These recordings are not what the plan was fitted on: fit it again with them.")
        raise typer.Exit(1)


@app.command()
def quote(
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    plan: Annotated[Path, typer.Option(help="A file of `outthink plan fit`.")],
    budget: BudgetOption = None,
    value_of_correct: Annotated[str, typer.Option(help="What a right answer is worth, such as 5k-tokens.")] = "",
    probe: Annotated[bool, typer.Option("--probe", help="Spend the plan's probe to see how hard it is.")] = False,
    model: ModelOption = DEFAULT_MODEL,
    verifier: VerifierOption = None,
    answer: AnswerOption = None,
    prompt_template: TemplateOption = None,
    temperature: TemperatureOption = 0.8,
    top_p: TopPOption = 1.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    price: PriceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What `auto` will probably gain and cost on a question, before it is asked."""
    from outthink.driver import as_budget
    from outthink.planner.plan import Plan
    from outthink.planner.quote import ease_of, price_at
    from outthink.planner.quote import quote as quoted
    from outthink.problems import ask

    opened = Plan.open(plan)
    limits = as_budget(budget)
    at = price_at(opened, limits, value_of_correct)
    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise UsageError("There is no question; put it in quotes.")
    limit = limits.limits.get(opened.unit)
    spent = None
    if probe:
        problem = ask(text, answer=_answer_kind(answer), template=prompt_template)
        sampling, priced = _sampling(temperature, top_p, max_tokens), _prices(price)
        with _engines(model, None, priced) as engines:
            ease, spent = asyncio.run(
                ease_of(opened, problem, engines["model"], verifier=verifier, sampling=sampling, seed=seed)
            )
        found = quoted(opened, at, limit=limit, bin_number=int(opened.table.bin(ease)))
    else:
        found = quoted(opened, at, limit=limit)
    if as_json:
        typer.echo(json.dumps({**found.plain(), "spent": spent or {}}, indent=2))
        return
    for line in found.sentences():
        typer.echo(line)
    typer.echo("Nothing was spent." if spent is None else f"The probe cost {spent['tokens']:,.0f} tokens.")


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Keeps the names and hashes of keys: --api-key-file of a server.")],
    name: Annotated[str | None, typer.Option(help="Whose key it is; otherwise key-1, key-2 ...")] = None,
) -> None:
    """Make a key for a caller of the server, print it, once, and add its hash to a file."""
    from outthink.server.keys import make_key

    name, made = make_key(file, name)
    typer.echo(made)
    _note(f"This is the key {name}; {file} keeps its hash only, so it is not shown again.")


def _recordings(
    files: list[Path],
    target: Path | None,
    scores: Path | None,
    unit: str,
    writers: list[str] | None,
    answer: str | None,
    seed: int,
    cache_block: int,
) -> Any:
    from outthink.planner.make import read

    specs = {}
    for given in writers or []:
        role, _, name = given.rpartition("=")
        if role not in ("", "target"):
            raise UsageError(f"Cannot read --writer {given!r}; write NAME or target=NAME.")
        specs[role or "model"] = _writer(name)
    with _status("Reading"):
        return read(
            files,
            target=target,
            scores=scores,
            unit=unit,
            answer="text" if answer is None else _answer_kind(answer),
            specs=specs,
            cache_block=cache_block,
            seed=seed,
        )


def _writer(name: str) -> Any:
    """What is known of a model of the catalogue without opening it."""
    from outthink.cost.shapes import read_shape
    from outthink.models import catalog
    from outthink.models.engine import EngineSpec

    if name not in catalog.entries():
        raise UnknownName("model", name, catalog.entries())
    file = catalog.path(name)
    if file is None:
        raise UsageError(f"The model {name} is not on this machine yet: run `outthink models pull {name}`.")
    return EngineSpec(name=name, shape=read_shape(file))


def _amounts(text: str) -> list[float] | None:
    """Amounts separated by commas, with k, M, G or T; None of nothing."""
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    found = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        number, factor = (part[:-1], scale[part[-1]]) if part[-1] in scale else (part, 1.0)
        try:
            found.append(float(number) * factor)
        except ValueError:
            found.append(math.nan)
        if not 0 < found[-1] < math.inf:
            raise UsageError(f"Cannot read the budget {part!r}; write amounts above 0 such as 200,1k,2T.")
    return found or None


def _print_plan(path: Path, *, as_markdown: bool) -> None:
    from outthink.bench.report import markdown_table, text_table
    from outthink.planner import show
    from outthink.planner.plan import Plan

    plan = Plan.open(path)
    for line in show.sentences(plan):
        typer.echo(("- " if as_markdown else "") + line)
    for rows in (show.curve(plan), show.gains(plan), show.bins(plan)):
        if as_markdown:
            typer.echo("\n" + markdown_table(*rows))
        else:
            _console().print(text_table(*rows))


@contextlib.contextmanager
def _tokenizer(model: str | None) -> Iterator[Tokenizing | None]:
    """The engine of a model as what turns its tokens into text; None where no model is named."""
    if model is None:
        yield None
        return
    with _engines(model, None, {}) as engines:
        engine = engines["model"]
        if "tokens" not in engine.spec.powers:
            raise UsageError(f"{model} does not turn tokens into text; name a model that does.")
        yield cast("Tokenizing", engine)


@app.command(context_settings=HYPERPARAMETERS)
def serve(
    context: typer.Context,
    upstream: Annotated[
        str | None, typer.Option(help="The server in front of which it runs: http://HOST/v1[#MODEL].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="An embedded model instead: catalogue name or path of a GGUF.")
    ] = None,
    strategy: Annotated[
        str, typer.Option("--strategy", "-s", help="For requests that name none; none is one sample as asked for.")
    ] = "auto",
    budget: Annotated[
        str | None, typer.Option("--budget", "-b", help="The most that any request may spend, as 20k-tokens,0.01usd.")
    ] = None,
    answer: Annotated[
        str, typer.Option(help="How replies are compared; chat looks at the first one before it draws more.")
    ] = "chat",
    free_form: Annotated[
        str | None, typer.Option(help="For replies that cannot be compared: best_of_n (with --verifier), mbr ...")
    ] = None,
    plan: Annotated[list[str] | None, typer.Option(help="[NAME=]FILE of `outthink plan fit`; callers name it.")] = None,
    verifier: VerifierOption = None,
    prm: PrmOption = None,
    embedder: EmbedderOption = None,
    role: RoleOption = None,
    price: PriceOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a sample, where the request does not say.")] = 4096,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of a request that names no others.")] = 300.0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Only callers with a key of this file (`outthink key`) are served.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests at once.")] = 256,
    queue: Annotated[int, typer.Option(min=0, help="Most requests that wait; others are told to come later.")] = 1024,
    shed: Annotated[
        bool, typer.Option("--shed", help="Requests spend less while more than half of the places are taken.")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="Keep the traces of all requests in this folder.")] = None,
    shadow: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests also run by --alternative, for `outthink report`.")
    ] = 0.0,
    alternative: Annotated[str, typer.Option(help="What shadows run; none is one sample.")] = "none",
) -> None:
    """Serve OpenAI's chat API with test-time compute behind it: /v1/chat/completions, /v1/models, /v1/quote."""
    from outthink.driver import as_budget

    try:
        from outthink.server import start
        from outthink.server.app import Settings
    except ImportError:
        raise UsageError("The server needs more packages: pip install 'outthink[server]'.") from None
    if (upstream is None) == (model is None):
        raise UsageError("Name what to serve: --upstream http://HOST/v1, or --model with an embedded one.")
    if upstream is not None and not upstream.startswith(("http://", "https://")):
        raise UsageError(f"{upstream!r} is not the address of a server; write it like http://localhost:8000/v1")
    prices = _prices(price)
    scorers = {name: given for name, given in (("verifier", verifier), ("prm", prm)) if given is not None}
    start.check_alternative(alternative, strategy, shadow, record, scorers)
    if strategy == "none" and context.args:
        raise UsageError(f"none is one sample as it was asked for; leave {context.args[0]} out, or name a strategy.")
    settings = Settings(
        host=host,
        port=port,
        max_tokens=max_tokens,
        timeout=timeout,
        concurrency=concurrency,
        queue=queue,
        sheds=shed,
        shadow=shadow,
        alternative=alternative,
    )
    keys = start.keys(host, api_key_file)
    policy = start.policy(
        strategy=None if strategy == "none" else _strategy(strategy, context),
        budget=as_budget(budget),
        answer=_answer_kind(answer),
        free_form=free_form,
        plans=plan or [],
        scorers=scorers,
    )
    several = [] if upstream is None or "#" in upstream else start.models(upstream)
    if len(several) > 1 and not isinstance(prices.get("model", ""), str):
        raise UsageError("One price cannot be that of several models: name one by #MODEL, or use auto or FILE.json.")
    # of several models each is opened when somebody asks for it
    one = model or (upstream if len(several) <= 1 else None)
    roles = {} if one is not None or "model" not in prices else {"model": prices.pop("model")}
    with _engines(one, role, prices) as engines:
        start.run(
            settings,
            policy,
            engines,
            upstream=None if one is not None else upstream,
            priced=lambda name: _priced(roles["model"], name) if roles else None,
            embedder=embedder,
            keys=keys,
            record=record,
            started=lambda address: _note(f"Serving at {address}/v1; Ctrl-C ends it."),
        )


# --- what the commands share -------------------------------------------------------------------------------------


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _strategy(name: str, context: typer.Context) -> Strategy:
    """The strategy with the hyperparameters that were given as further options."""
    from outthink.driver import make_strategy

    parameters: dict[str, Any] = {}
    words = list(context.args)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UsageError(
                f"Unexpected argument {word!r}; put the question in quotes, and write options as --name value."
            )
        option, _, value = word[2:].partition("=")
        if not value:
            if not words or words[0].startswith("--"):
                raise UsageError(f"The option --{option} needs a value.")
            value = words.pop(0)
        parameters[option.replace("-", "_")] = value.replace("\\n", "\n")  # --delimiter '\n' as people write it
    known = [field.replace("_", "-") for field in make_strategy(name).__dataclass_fields__]
    for given in parameters:
        if given.replace("_", "-") not in known:
            own = [option for parameter in context.command.params for option in parameter.opts if option[:2] == "--"]
            options = [*(f"--{field}" for field in known), *own]
            raise UnknownName(f"option of {name}", f"--{given.replace('_', '-')}", options)
    return make_strategy(name, parameters)


def _sampling(temperature: float, top_p: float, max_tokens: int) -> Sampling:
    from outthink.types import Sampling

    try:
        return Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    except ValueError as cause:
        raise UsageError(f"{cause}.") from None


def _answer_kind(text: str | None) -> Any:
    kinds = get_args(AnswerKind)
    if text is not None and text not in kinds:
        raise UnknownName("kind of answer", text, kinds)
    return text or "math"


def _prices(given: list[str] | None) -> dict[str, Price | str]:
    """Prices by role; "auto" and paths of files stay as they are, since they need the name of the model."""
    from outthink.models.engine import Price

    prices: dict[str, Price | str] = {}
    for text in given or []:
        role, _, amounts = text.rpartition("=")
        if amounts == "auto" or amounts.endswith(".json"):
            prices[role or "model"] = amounts
            continue
        try:
            prompt, completion = (float(part) for part in amounts.split(","))
            prices[role or "model"] = Price(prompt=prompt, completion=completion)
        except ValueError:
            raise UsageError(
                f"Cannot read the price {text!r}; write PROMPT,COMPLETION in US dollars per million tokens, auto or "
                "FILE.json, with ROLE= before it for the model of a role."
            ) from None
    return prices


def _priced(given: Price | str, name: str) -> Price:
    """The price of the model `name`; says on standard error where it was looked up."""
    if not isinstance(given, str):
        return given
    from outthink.cost.price import price_of

    found, where = price_of(given, name)
    cached = "" if found.cached is None else f", {found.cached:g} cached"
    _note(f"Price: {found.prompt:g} prompt, {found.completion:g} completion{cached}, USD per million ({where}).")
    return found


def _load(
    task: str, file: Path | None, split: str, limit: int | None, template: str | None, answer: str | None, seed: int
) -> list[Example]:
    from outthink import tasks

    kind = None if answer is None else _answer_kind(answer)
    return tasks.load(task, path=file, split=split, limit=limit, template=template, answer=kind, seed=seed)


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        place, of = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"Cannot read the shard {text!r}; write I/K, such as 0/4.") from None
    return place, of


def _writable_json(out: Path) -> None:
    """Raise UsageError, before anything is computed, where no .json file can be written there."""
    if out.suffix != ".json" or not out.parent.is_dir():
        raise UsageError(f"Cannot write {out}: name a .json file in a folder that exists.")


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _print_summaries(summaries: dict[str, Any], as_json: bool) -> None:
    import dataclasses

    from outthink.bench.report import plain, table

    if as_json:
        typer.echo(json.dumps({run: plain(dataclasses.asdict(of)) for run, of in summaries.items()}, indent=2))
    else:
        _console().print(table(summaries))


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, from the first time it is told something."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "problems", TimeElapsedColumn(), "left", TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task("", total=None)

    def tell(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        if progress.live.is_started:
            progress.stop()


@contextlib.contextmanager
def _engines(model: str | None, roles: list[str] | None, prices: dict[str, Price | str]) -> Iterator[dict[str, Engine]]:
    """The engines by role, closed at the end; the same name is opened once. Opened outside any event loop."""
    from outthink.models import open_engine

    names = {} if model is None else {"model": model}
    for given in roles or []:
        role, _, name = given.partition("=")
        if not role or not name or role == "model":
            raise UsageError(f"Cannot read --role {given!r}; write ROLE=MODEL, such as judge=smollm2-135m-instruct.")
        names[role] = name
    for role in prices:
        if role not in names:
            raise UsageError(f"There is a price for the role {role!r} but no model; add --role {role}=MODEL.")
    wanted = {name: prices[role] for role, name in names.items() if role in prices}
    for role, name in names.items():
        if name in wanted and prices.get(role, wanted[name]) != wanted[name]:
            raise UsageError(f"{name} has two prices; a model has the same one in every role.")
    priced = {name: _priced(price, name) for name, price in wanted.items()}
    opened: dict[str, Engine] = {}
    try:
        for name in dict.fromkeys(names.values()):
            with _status(f"Loading {name}"):
                opened[name] = open_engine(name, price=priced.get(name))
        yield {role: opened[name] for role, name in names.items()}
    finally:
        for engine in opened.values():
            asyncio.run(engine.close())


@contextlib.contextmanager
def _status(text: str) -> Iterator[Status]:
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status


class _Watcher:
    """Shows, while a problem is being solved, what has been spent and what the answer is so far."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._meter: Meter | None = None
        self._live = Live(console=Console(stderr=True), get_renderable=self._line, refresh_per_second=4, transient=True)

    def start(self, meter: Meter) -> None:
        self._meter = meter
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def _line(self) -> str:
        from rich.markup import escape

        meter = self._meter
        if meter is None:
            return ""
        growing = sum(sum(progress.tokens) for progress in meter.running)
        samples = sum(progress.n for progress in meter.running)
        answer = meter.rounds[-1].answer if meter.rounds else None
        so_far = "" if answer is None else f" | answer so far: {escape(answer[:60])}"
        charged = meter.cost().get("tokens", 0.0)
        return (
            f"{meter.now():5.1f} s | {charged:,.0f} tokens charged, {growing:,} in {samples} running samples{so_far}"
            f" | Ctrl-C stops and keeps the best answer"
        )


def _interruptible(start: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine; the first Ctrl-C asks it to stop, the second one ends it."""

    async def go() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(start(stop))

        def interrupt() -> None:
            if stop.is_set():
                task.cancel()
            stop.set()

        previous: Any = None
        try:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        except NotImplementedError:  # Windows
            previous = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(interrupt))
        try:
            return await task
        finally:
            if previous is not None:
                signal.signal(signal.SIGINT, previous)

    try:
        return asyncio.run(go())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _print_trace(trace: Trace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from outthink.sharing import sharing

    console = _console()
    if trace.text is not None:
        console.print(f"[dim]{escape(trace.text.strip())}[/dim]\n")
    confidence = "" if trace.confidence is None else f"   (confidence {trace.confidence:.2f})"
    lacking = "the method abstained" if trace.abstained else "no sample ended with a readable answer"
    shown = f"none: {lacking}" if trace.answer is None else trace.answer
    console.print(f"[bold]Answer: {escape(shown)}[/bold]{confidence}")
    why = f": {trace.error}" if trace.error else ""
    parameters = ", ".join(f"{name}={value!r}" for name, value in trace.strategy.items() if name != "name")
    console.print(
        escape(f"{trace.strategy['name']}({parameters}) stopped: {trace.stopped}{why}; budget: {trace.budget}")
    )
    table = Table("", "calls", "samples", "prompt", "cached", "completion", "tokens", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in trace.ledger():
        sign = "" if line.exact else "<= "
        table.add_row(
            f"{line.kind} ({line.role})",
            f"{line.calls:,}",
            f"{line.children:,}",
            f"{line.usage.prompt:,}",
            f"{line.usage.cached:,}",
            f"{sign}{line.usage.completion:,}",
            f"{sign}{line.usage.tokens:,}",
        )
    console.print(table)
    if (tree := sharing(trace)).levels > 1:
        console.print(
            f"{tree.levels} levels; paths of {tree.logical:,} tokens, {tree.unique:,} of them unique; "
            f"resident {tree.resident:,.0f} on average, {tree.peak:,} at the largest level"
        )
    console.print(_costs(trace))


def _costs(trace: Trace) -> str:
    cost = trace.cost
    parts = [f"{cost.get('tokens', 0):,.0f} tokens"]
    if "flops" in cost:
        parts.append(f"{cost['flops']:.3g} FLOPs")
    parts.append(f"{cost['seconds']:.1f} s")
    parts.append(f"{cost['usd']:.6f} USD" if "usd" in cost else "no price known")
    return "Total: " + ", ".join(parts)


def _as_json(trace: Trace) -> str:
    lines = [
        {
            "kind": line.kind,
            "role": line.role,
            "calls": line.calls,
            "samples": line.children,
            "failed": line.failed,
            "prompt_tokens": line.usage.prompt,
            "cached_tokens": line.usage.cached,
            "completion_tokens": line.usage.completion,
            "exact": line.exact,
            "cost": line.cost,
        }
        for line in trace.ledger()
    ]
    shown = {
        "answer": trace.answer,
        "text": trace.text,
        "confidence": trace.confidence,
        "stopped": trace.stopped,
        "error": trace.error,
        "strategy": dict(trace.strategy),
        "model": trace.resources["model"],
        "budget": dict(trace.budget.limits),
        "cost": trace.cost,
        "ledger": lines,
    }
    return json.dumps(shown, indent=2, ensure_ascii=False)


def main() -> None:
    """Entry point: errors are one sentence and a non-zero exit, never a traceback."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except OutthinkError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except TyperException as error:
        _fail(error.format_message() if isinstance(error, _Formatted) else str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        _fail("Interrupted.", 130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if os.environ.get("OUTTHINK_DEBUG"):
            raise
        _fail(f"Internal error: {type(error).__name__}: {error}. Set OUTTHINK_DEBUG=1 to see where.", 1)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"outthink: {sentence}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
