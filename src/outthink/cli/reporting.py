"""The commands that look at what was recorded: report, replay, law."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from outthink.cli import completing
from outthink.cli.given import given_kind
from outthink.cli.options import AnswerOption, FigureOption, JsonOption, MarkdownOption, SeedOption
from outthink.cli.shown import note, print_summaries, print_table
from outthink.errors import UsageError


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, the first one as the baseline; or pools (.jsonl).")
    ],
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
    against: Annotated[
        Path | None,
        typer.Option(help="A pool of the same problems: compare each run with its vote at equal tokens."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page of `outthink view` as one .html file instead.")
    ] = None,
) -> None:
    """Accuracy and cost of runs, with intervals; pass@k of pools.

    Runs are compared with the first one, problem by problem. How their answers were read is told, too.
    """
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

    if out is not None:
        _write_page(runs, out)
        return
    pools = [run for run in runs if run.suffix in (".jsonl", ".gz")]
    if pools:
        if len(pools) < len(runs):
            raise UsageError("Give run directories or pools, not both.")
        if against is not None:
            raise UsageError("--against compares runs with a pool: give run directories.")
        _report_pools(pools, as_json, as_markdown)
        return

    both = {str(run): read_run(run) for run in runs}
    summaries = {run: summary for run, (summary, _) in both.items()}
    results = {run: light for run, (_, light) in both.items()}
    doubts = {str(run): told for run in runs if (told := read_settings(run).get(DOUBTS))}
    base, *others = results
    differences = {run: paired(results[run], results[base]) for run in others}
    agreements = {run: agreement(results[run], results[base]) for run in others}
    equal = {} if against is None else _at_equal_tokens(results, against)
    read = {str(run): _rules(run) for run in runs}
    if as_json:
        import dataclasses

        shown = {
            "runs": {run: dataclasses.asdict(summary) for run, summary in summaries.items()},
            "differences": {run: dataclasses.asdict(difference) for run, difference in differences.items()},
            "agreements": {run: dataclasses.asdict(agreed) for run, agreed in agreements.items()},
            "equal_tokens": {run: None if same is None else dataclasses.asdict(same) for run, same in equal.items()},
            "doubts": doubts,
            "rules": read,
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
    for run, summary in summaries.items():
        if summary.tree:
            typer.echo(("- " if as_markdown else "") + tree_sentence(run, summary.tree))
    for run, said in doubts.items():
        for doubt in said:
            typer.echo(("- " if as_markdown else "") + f"{run}, please check: {doubt}")
    for run, same in equal.items():
        told = f"{run} cost less than one sample of {against}." if same is None else same.sentence(run)
        typer.echo(("- " if as_markdown else "") + told)
    _tell_rules(read, as_markdown)


def _write_page(runs: list[Path], out: Path) -> None:
    """One file with the page and all that it shows; raises UsageError where something is not there."""
    import shlex
    import sys
    import time

    from outthink import __version__
    from outthink.jsonl import write_whole
    from outthink.view.mailed import mailed
    from outthink.view.recordings import Shelf

    if out.suffix != ".html" or not out.absolute().parent.is_dir():
        raise UsageError(f"Cannot write {out}: name an .html file in a folder that exists.")
    for run in runs:
        if not run.exists():
            raise UsageError(f"There is no {run}: name run directories, pools, or a folder with them.")
    shelf = Shelf(runs)
    if not shelf.recordings:
        raise UsageError(f"There are no runs and no pools in {', '.join(map(str, runs))}.")
    command = shlex.join(["outthink", *sys.argv[1:]])
    made = f"Made by Outthink {__version__} on {time.strftime('%Y-%m-%d')} with: {command}"
    try:
        write_whole(out, mailed(shelf.recordings, made=made))
    finally:
        shelf.close()
    typer.echo(f"{out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser, or mail it.")


def _at_equal_tokens(results: dict[str, list[Any]], pool: Path) -> dict[str, Any]:
    from outthink.records.pools import read_pool
    from outthink.reports.replay import at_equal_tokens

    recorded = read_pool(pool)
    return {run: at_equal_tokens(light, recorded) for run, light in results.items()}


def _rules(path: Path) -> dict[str, int]:
    """How many replies of a run or a pool were read by which rule."""
    from itertools import chain, islice

    from outthink.reports.reading import kind_of, replies, rules

    every = replies(path)
    first = list(islice(every, 200))
    return rules((reply.text for reply in chain(first, every) if reply.complete), kind_of(first))


def _tell_rules(read: dict[str, dict[str, int]], as_markdown: bool) -> None:
    from outthink.reports.reading import counted, doubt

    for name, counts in read.items():
        if counts:
            typer.echo(("- " if as_markdown else "") + f"{name}: answers by how they were read: {counted(counts)}.")
        warning = doubt(counts)
        if warning is not None:
            note(f"{name}: {warning}")


def _report_pools(pools: list[Path], as_json: bool, as_markdown: bool) -> None:
    from outthink.reports.coverage import coverage_markdown, coverage_table, pool_coverage

    covered = {str(pool): pool_coverage(pool) for pool in pools}
    read = {str(pool): _rules(pool) for pool in pools}
    if as_json:
        import dataclasses

        shown = {pool: {**dataclasses.asdict(covered[pool]), "rules": read[pool]} for pool in covered}
        typer.echo(json.dumps(shown, indent=2))
        return
    if as_markdown:
        typer.echo(coverage_markdown(covered))
    else:
        print_table(coverage_table(covered))
    for pool, coverage in covered.items():
        typer.echo(("- " if as_markdown else "") + coverage.sentence(pool))
    _tell_rules(read, as_markdown)


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
    as_markdown: MarkdownOption = False,
) -> None:
    """What strategies are worth at every n, on recorded samples.

    Their accuracy and tokens are shown; nothing is generated.
    """
    from outthink.reports.replay import replay_pool

    try:
        ns = sorted({int(part) for part in n.split(",")}) if n else None
    except ValueError:
        raise UsageError(f"Cannot read --n {n!r}; write whole numbers, such as 1,2,4.") from None
    replayed = replay_pool(
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
        typer.echo(json.dumps(replayed.plain(), indent=2))
    elif as_markdown:
        typer.echo(replayed.markdown())
    else:
        print_table(replayed.table())
    for line in replayed.sentences():
        typer.echo(("- " if as_markdown else "") + line) if not as_json else None


def law(
    name: Annotated[
        str | None,
        typer.Argument(help="Which law; without it they are listed.", autocompletion=completing.laws),
    ] = None,
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
    figure: FigureOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the resamples.")] = None,
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Fit a scaling law to recorded samples or runs.

    It gives parameters with intervals, predictions and a figure.
    """
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
    fitted = laws.analyse(name, files or [], **{key: value for key, value in options.items() if value is not None})
    if figure is not None:
        save(fitted.figure, figure)
    if as_json:
        typer.echo(json.dumps(fitted.plain(), indent=2))
        return
    if as_markdown:
        typer.echo(fitted.markdown())
    else:
        typer.echo(fitted.title)
        print_table(fitted.table())
    for line in fitted.sentences:
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
    print_table(table)
