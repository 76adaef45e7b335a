"""The commands plan and quote."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from outthink.cli.given import given_amounts, given_kind, given_question, given_writer, writable_json
from outthink.cli.options import (
    AnswerOption,
    AnswerOptions,
    BlockOption,
    BudgetOption,
    FigureOption,
    FilesArgument,
    JsonOption,
    MarkdownOption,
    ModelOptions,
    PoolScorerOption,
    QuestionArgument,
    SamplingOptions,
    ScoresOption,
    SeedOption,
    TargetOption,
    UnitOption,
    VerifierOption,
    WriterOption,
)
from outthink.cli.parsing import Command, group, takes_blocks
from outthink.cli.progress import Working
from outthink.cli.running import opened_engines
from outthink.cli.shown import note, print_table
from outthink.errors import UsageError

plan_app = group("Learn what to do when, for the strategy auto.")


@plan_app.command("fit", cls=Command)
def plan_fit(
    files: FilesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("plan.json"),
    target: TargetOption = None,
    scores: ScoresOption = None,
    verifier: PoolScorerOption = None,
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
    """Learn a plan from recorded samples.

    It says when to draw more, when to go over to another model or strategy, and when to stop.
    """
    from outthink.jsonl import write_whole
    from outthink.planner.make import make_plan

    writable_json(out)
    if bins != "absolute" and not (bins.isdigit() and int(bins) >= 1):
        raise UsageError(f"Cannot read --bins {bins!r}; write a number such as 5, or absolute.")
    recordings = _recordings(files, target, scores, verifier, unit, writer, answer, seed, cache_block)
    with Working("Fitting", unit="fits") as standing:
        plan, _ = make_plan(
            recordings,
            budgets=given_amounts(budgets),
            folds=folds,
            bins=None if bins == "absolute" else int(bins),
            difficulty=difficulty,
            probe=probe,
            seed=seed,
            tell=lambda text, done, total: standing.tell(done, total, text),
        )
    write_whole(out, plan.to_json())
    if as_json:
        typer.echo(plan.to_json())
        return
    _print_plan(out, as_markdown=False)
    typer.echo(f"{out}: use it as --strategy auto --plan {out}, and ask `outthink quote` with it")


@plan_app.command("show", cls=Command)
def plan_show(
    plan: Annotated[Path, typer.Argument(help="A file of `outthink plan fit`.")],
    figure: FigureOption = None,
    as_markdown: MarkdownOption = False,
) -> None:
    """The curve of a plan against fixed strategies.

    Its strategy for every bin of difficulty and budget is shown, too.
    """
    from outthink.planner.plan import Plan
    from outthink.planner.show import figure as drawn

    opened = Plan.open(plan)
    if figure is not None:
        from outthink.reports.figures import save

        save(drawn(opened), figure)
    _print_plan(plan, as_markdown=as_markdown)


@plan_app.command("check", cls=Command)
def plan_check(
    plan: Annotated[Path, typer.Argument(help="A file of `outthink plan fit`.")],
    files: Annotated[
        list[Path], typer.Argument(help="One new pool, or runs of auto with this plan, recorded traffic too.")
    ],
    target: TargetOption = None,
    scores: ScoresOption = None,
    verifier: PoolScorerOption = None,
    writer: WriterOption = None,
    cache_block: BlockOption = 0,
    answer: AnswerOption = None,
    seed: SeedOption = 0,
) -> None:
    """Measure a plan on new recordings.

    It says where they are not as the plan expects; the exit code is then 1.
    """
    from outthink.planner.check import check_plan, check_run, served
    from outthink.planner.plan import Plan
    from outthink.planner.show import checks
    from outthink.records.runs import read_results
    from outthink.reports.tables import text_table
    from outthink.reports.traffic import is_traffic

    opened = Plan.open(plan)
    if all(os.path.isdir(path) for path in files):
        checked = [
            check_run(opened, served(opened, path) if is_traffic(path) else list(read_results(path))) for path in files
        ]
    else:
        with Working("Reading"):
            checked = check_plan(
                opened, _recordings(files, target, scores, verifier, opened.unit, writer, answer, seed, cache_block)
            )
    print_table(text_table(*checks(checked)))
    if any(one.drift for one in checked):
        note("These recordings are not what the plan was fitted on: fit it again with them.")
        raise typer.Exit(1)


@plan_app.command("learn", cls=Command)
def plan_learn(
    runs: Annotated[
        list[Path], typer.Argument(help="What `serve --learn --record FOLDER` recorded: FOLDER/served, graded or not.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .json file to write.")] = Path("plan2.json"),
    plan: Annotated[Path | None, typer.Option(help="The plan that serves now, for what the new one gains.")] = None,
    gold: Annotated[
        Path | None, typer.Option(help='Right answers: lines {"problem": ID, "answer": TEXT or list}.')
    ] = None,
    value_of_correct: Annotated[str, typer.Option(help="What a right answer is worth in tokens: 5k-tokens.")] = "",
    auto_update: Annotated[
        bool,
        typer.Option(
            "--auto-update", help="Put the new plan in the place of --plan if it surely gains; keep FILE.previous."
        ),
    ] = False,
    since: Annotated[str, typer.Option(help="Only requests from this day (UTC) on: 2026-11-30.")] = "",
    answer: AnswerOption = "chat",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Learn a plan from a server's traffic.

    It says what each action is worth, where actions were drawn at random and somebody has judged the answers.
    """
    import dataclasses

    from outthink.jsonl import write_whole
    from outthink.planner.learning import LEAST, plan_gain, read_traffic, replace_plan
    from outthink.planner.logged import action_values, changes
    from outthink.planner.make import make_plan
    from outthink.planner.plan import Plan
    from outthink.planner.recordings import read
    from outthink.planner.show import action_rows, learned_sentences
    from outthink.reports.tables import plain, text_table
    from outthink.tasks.golds import read_golds

    writable_json(out)
    if auto_update and plan is None:
        raise UsageError("--auto-update replaces the plan that serves now: name it by --plan FILE.")
    kind = given_kind(answer or "chat")
    old = None if plan is None else Plan.open(plan)
    price = _price(value_of_correct, old)
    golds = {} if gold is None else read_golds(gold, kind)
    with Working("Reading"):
        traffic = read_traffic(runs, golds=golds, answer=kind, since=_day(since), seed=seed)
    if not traffic.requests:
        raise UsageError(
            "No request has both a drawn action and a judged answer: serve with --learn and --record, then collect "
            "feedback, or grade the run."
        )
    values = action_values(traffic.requests, price=price)
    told = changes(traffic.requests)
    gain, updated = None, False
    if len(traffic.rows) >= LEAST:
        pool = out.with_suffix(".pool.jsonl")
        write_whole(pool, (json.dumps(row) + "\n" for row in traffic.rows), mode=0o600)
        with Working("Fitting", unit="fits") as standing:
            recordings = read([pool], answer=kind, seed=seed)
            made, _ = make_plan(recordings, seed=seed, tell=lambda text, done, total: standing.tell(done, total, text))
            gain = None if old is None else plan_gain(recordings.material, old, price=price, seed=seed)
        write_whole(out, made.to_json())
        if auto_update and plan is not None and gain is not None and gain[1] > 0:
            replace_plan(plan, made)
            updated = True
    lines = learned_sentences(traffic, values, told, gain, out, price)
    if auto_update:
        lines.append(
            f"{plan} is the new plan now, and the old one {plan}.previous."
            if updated
            else f"{plan} stays: it is not sure that the new plan gains anything."
        )
    if as_json:
        actions = [dataclasses.asdict(value) for value in values]
        typer.echo(json.dumps(plain({"actions": actions, "gain": gain, "drift": told, "sentences": lines}), indent=2))
        return
    print_table(text_table(*action_rows(values)))
    for line in lines:
        typer.echo(line)


def _price(value_of_correct: str, old: Any) -> float:
    """Right answers that a token is worth; that of the plan where nobody says it, else 0."""
    from outthink.cost import worth

    if not value_of_correct:
        return 0.0 if old is None else min(point.price for point in old.expected)
    try:
        value, unit = worth(value_of_correct)
    except ValueError as cause:
        raise UsageError(f"{cause}.") from None
    if unit != "tokens":
        raise UsageError("What is learned from traffic is counted in tokens: write --value-of-correct 5k-tokens.")
    return 1 / value


def _day(since: str) -> float:
    import math
    from datetime import UTC, datetime

    if not since:
        return -math.inf
    try:
        return datetime.fromisoformat(since).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise UsageError(f"Cannot read --since {since!r}; write a day, such as 2026-11-30.") from None


@takes_blocks
def quote(
    writer: ModelOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    question: QuestionArgument = None,
    plan: Annotated[Path | None, typer.Option(help="A file of `outthink plan fit`.")] = None,
    budget: BudgetOption = None,
    value_of_correct: Annotated[str, typer.Option(help="What a right answer is worth, such as 5k-tokens.")] = "",
    probe: Annotated[bool, typer.Option("--probe", help="Spend the plan's probe to see how hard it is.")] = False,
    verifier: VerifierOption = None,
    as_json: JsonOption = False,
) -> None:
    """What `auto` will probably gain and cost on a question."""
    from outthink.answers.asking import ask
    from outthink.driver import as_budget
    from outthink.planner.auto import GENERAL
    from outthink.planner.plan import Plan
    from outthink.planner.quote import ease_of, price_at
    from outthink.planner.quote import quote as quoted

    if plan is None:
        typer.echo(json.dumps({"notes": [GENERAL]}, indent=2) if as_json else GENERAL)
        return
    opened = Plan.open(plan)
    limits = as_budget(budget)
    at = price_at(opened, limits, value_of_correct)
    text = given_question(question)
    if not text.strip():
        raise UsageError("There is no question; put it in quotes.")
    limit = limits.limits.get(opened.unit)
    spent = None
    if probe:
        problem = ask(text, answer=given_kind(asked.answer), template=asked.prompt_template)
        sampling, prices = drawn.sampling(), writer.prices()
        with opened_engines(writer.model, writer.role, prices) as engines:
            ease, spent = asyncio.run(
                ease_of(opened, problem, models=engines, verifier=verifier, sampling=sampling, seed=drawn.seed)
            )
        expected = quoted(opened, at, limit=limit, bin_number=int(opened.table.bin(ease)))
    else:
        expected = quoted(opened, at, limit=limit)
    if as_json:
        typer.echo(json.dumps({**expected.plain(), "spent": spent or {}}, indent=2))
        return
    for line in expected.sentences():
        typer.echo(line)
    typer.echo("Nothing was spent." if spent is None else f"The probe cost {spent['tokens']:,.0f} tokens.")


def _recordings(
    files: list[Path],
    target: Path | None,
    scores: Path | None,
    verifier: str | None,
    unit: str,
    writers: list[str] | None,
    answer: str | None,
    seed: int,
    cache_block: int,
) -> Any:
    from outthink.planner.recordings import read

    specs = {}
    for given in writers or []:
        role, _, name = given.rpartition("=")
        if role not in ("", "target"):
            raise UsageError(f"Cannot read --writer {given!r}; write NAME or target=NAME.")
        specs[role or "model"] = given_writer(name)
    with Working("Reading"):
        return read(
            files,
            target=target,
            scores=scores,
            verifier=verifier,
            unit=unit,
            answer="text" if answer is None else given_kind(answer),
            specs=specs,
            cache_block=cache_block,
            seed=seed,
        )


def _print_plan(path: Path, *, as_markdown: bool) -> None:
    from outthink.planner import show
    from outthink.planner.plan import Plan
    from outthink.reports.tables import markdown_table, text_table

    plan = Plan.open(path)
    for line in show.sentences(plan):
        typer.echo(("- " if as_markdown else "") + line)
    for rows in (show.plan_curve(plan), show.gains(plan), show.bins(plan)):
        if as_markdown:
            typer.echo("\n" + markdown_table(*rows))
        else:
            print_table(text_table(*rows))
