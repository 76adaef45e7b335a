"""The commands that look at what was recorded: report, replay, law."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from outthink.cli.given import given_kind
from outthink.cli.options import AnswerOption, JsonOption, SeedOption
from outthink.cli.shown import console, print_summaries
from outthink.errors import UsageError


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
    from outthink.records.runs import DOUBTS, read_settings
    from outthink.reports.report import (
        agreement,
        agreement_sentence,
        markdown,
        paired,
        read_run,
        sentence,
        tree_sentence,
    )
    from outthink.reports.tables import plain

    pools = [run for run in runs if run.suffix in (".jsonl", ".gz")]
    if pools:
        if len(pools) < len(runs):
            raise UsageError("Give run directories or pools, not both.")
        if against is not None:
            raise UsageError("--against compares runs with a pool: give run directories.")
        _report_pools(pools, as_json, as_markdown)
        return

    found = {str(run): read_run(run) for run in runs}
    doubts = {str(run): told for run in runs if (told := read_settings(run).get(DOUBTS))}
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
            "doubts": doubts,
            "equal_tokens": {run: None if of is None else dataclasses.asdict(of) for run, of in equal.items()},
        }
        typer.echo(json.dumps(plain(shown), indent=2))
        return
    if as_markdown:
        typer.echo(markdown(summaries))
    else:
        print_summaries(summaries, as_json=False)
    for run in others:
        difference, agreed = differences[run], agreements[run]
        if agreed.graded < agreed.problems:
            typer.echo(("- " if as_markdown else "") + agreement_sentence((run, base), agreed))
        if difference.problems or agreed.graded == agreed.problems:
            typer.echo(("- " if as_markdown else "") + sentence((run, base), difference))
    for run, of in summaries.items():
        if of.tree:
            typer.echo(("- " if as_markdown else "") + tree_sentence(run, of.tree))
    for run, told in doubts.items():
        for doubt in told:
            typer.echo(("- " if as_markdown else "") + f"{run}, please check: {doubt}")
    for run, same in equal.items():
        told = f"{run} cost less than one sample of {against}." if same is None else same.sentence(run)
        typer.echo(("- " if as_markdown else "") + told)


def _at_equal_tokens(results: dict[str, list[Any]], pool: Path) -> dict[str, Any]:
    from outthink.records.pools import read_pool
    from outthink.reports.replay import at_equal_tokens

    recorded = read_pool(pool)
    return {run: at_equal_tokens(found, recorded) for run, found in results.items()}


def _report_pools(pools: list[Path], as_json: bool, as_markdown: bool) -> None:
    from outthink.reports.coverage import coverage_markdown, coverage_table, pool_coverage

    found = {str(pool): pool_coverage(pool) for pool in pools}
    if as_json:
        import dataclasses

        typer.echo(json.dumps({pool: dataclasses.asdict(of) for pool, of in found.items()}, indent=2))
    elif as_markdown:
        typer.echo(coverage_markdown(found))
    else:
        console().print(coverage_table(found))
    if not as_json:
        for pool, of in found.items():
            typer.echo(("- " if as_markdown else "") + of.sentence(pool))


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
    from outthink.reports.replay import replay_pool

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
        answer="text" if answer is None else given_kind(answer),
        subsamples=subsamples,
        seed=seed,
    )
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    elif as_markdown:
        typer.echo(found.markdown())
    else:
        console().print(found.table())
    for line in found.sentences():
        typer.echo(("- " if as_markdown else "") + line) if not as_json else None


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
    from outthink.reports.figures import check, save
    from outthink.reports.laws import table as laws

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
        "answer": None if answer is None else given_kind(answer),
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
        console().print(found.table())
    for line in found.sentences:
        typer.echo(("- " if as_markdown else "") + line)


def _list_laws(as_json: bool) -> None:
    from outthink.reports.laws.table import LAWS, needs, summary

    if as_json:
        typer.echo(json.dumps([{"name": law, "says": summary(law), "needs": needs(law)} for law in LAWS], indent=2))
        return
    from rich.table import Table

    table = Table("law", "what it says", "needs", box=None, pad_edge=False)
    for law in LAWS:
        table.add_row(law, summary(law), needs(law))
    console().print(table)
