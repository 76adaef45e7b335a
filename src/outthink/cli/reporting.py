"""The commands that look at what was recorded: report, replay, law."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from outthink.cli import completing
from outthink.cli.given import given_kind
from outthink.cli.options import AnswerOption, FigureOption, JsonOption, MarkdownOption, SeedOption, TableOptions
from outthink.cli.parsing import takes_blocks
from outthink.cli.progress import Working
from outthink.cli.shown import note, print_json, print_summaries, print_table, printable
from outthink.errors import UsageError


@takes_blocks
def report(
    written: TableOptions,
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories or folders with some, the first one as the baseline; or pools (.jsonl)."),
    ],
    as_json: JsonOption = False,
    as_markdown: MarkdownOption = False,
    against: Annotated[
        Path | None,
        typer.Option(help="A pool of the same problems: compare each run with its vote, at equal tokens and calls."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page of `outthink view` as one .html file instead.")
    ] = None,
) -> None:
    """Accuracy and cost of runs, with intervals; pass@k of pools.

    Runs are compared with the first one on the same problems; those that differ in their seeds only are one. How their
    answers were read is told, too.
    """
    from outthink.records.runs import DOUBTS, is_pool, read_settings
    from outthink.reports.compared import paper_table, run_figure, run_frame
    from outthink.reports.report import (
        agreement,
        agreement_sentence,
        baselines,
        generations_sentences,
        markdown,
        paired,
        seeds_sentence,
        sentence,
        tree_sentence,
    )
    from outthink.reports.tables import plain

    written.check()
    if out is not None:
        if against is not None or as_json or as_markdown or written.asked:
            raise UsageError("-o writes the page and nothing else: leave it out, or the other outputs.")
        _write_page(runs, out)
        return
    pools = [run for run in runs if is_pool(run)]
    if pools:
        if len(pools) < len(runs):
            raise UsageError("Give run directories or pools, not both.")
        if against is not None:
            raise UsageError("--against compares runs with a pool: give run directories.")
        _report_pools(pools, as_json, as_markdown, written)
        return

    folders, both = _read(runs)
    summaries = {run: summary for run, (summary, _) in both.items()}
    results = {run: light for run, (_, light) in both.items()}
    doubts = {name: told for name, paths in folders.items() if (told := read_settings(paths[0]).get(DOUBTS))}
    bases = baselines(results)
    differences = {run: paired(results[run], results[base]) for run, base in bases.items()}
    # answers of several seeds are several: there is no one answer to agree with
    alone = {run: base for run, base in bases.items() if not summaries[run].seeds and not summaries[base].seeds}
    agreements = {run: agreement(results[run], results[base]) for run, base in alone.items()}
    equal = {} if against is None else _at_equal_cost(results, against)
    read = {name: _rules(paths) for name, paths in folders.items()}
    helped = _helped(results, folders, alone)
    written.write(
        run_frame(summaries, differences, bases, folders),
        *paper_table(summaries, differences),
        lambda: run_figure(summaries, folders),
    )
    if as_json:
        import dataclasses

        shown = {
            "runs": {run: dataclasses.asdict(summary) for run, summary in summaries.items()},
            "folders": {run: [str(path) for path in paths] for run, paths in folders.items()},
            "baselines": bases,
            "differences": {run: dataclasses.asdict(difference) for run, difference in differences.items()},
            "agreements": {run: dataclasses.asdict(agreed) for run, agreed in agreements.items()},
            **{
                f"equal_{unit}": {run: None if same is None else dataclasses.asdict(same) for run, same in runs.items()}
                for unit, runs in equal.items()
            },
            "doubts": doubts,
            "rules": read,
            "judged": {
                run: {name: dataclasses.asdict(told) for name, told in groups.items()}
                for run, (_, groups) in helped.items()
            },
        }
        print_json(plain(shown))
        return

    def tell(line: str) -> None:
        typer.echo(("- " if as_markdown else "") + printable(line))

    for said, _ in helped.values():
        tell(said)
    if as_markdown:
        typer.echo(markdown(summaries))
    else:
        print_summaries(summaries, as_json=False)

    for run, base in bases.items():
        difference, agreed = differences[run], agreements.get(run)
        if agreed is not None and agreed.graded < agreed.problems:
            tell(agreement_sentence((run, base), agreed))
        if difference.problems or agreed is None or agreed.graded == agreed.problems:
            tell(sentence((run, base), difference))
    for run, summary in summaries.items():
        if summary.seeds:
            tell(seeds_sentence(run, summary))
        if summary.tree:
            tell(tree_sentence(run, summary.tree))
        for line in generations_sentences(run, summary.generations):
            tell(line)
    for run, said in doubts.items():
        for doubt in said:
            tell(f"{run}, please check: {doubt}")
    _tell_groups(helped, as_markdown)
    for unit, each in equal.items():
        for run, same in each.items():
            less = f"{run} cost fewer {unit} than one sample of {against}."
            tell(less if same is None else same.sentence(run))
    _tell_rules(read, as_markdown)


def _helped(
    results: Mapping[str, Sequence[Any]], folders: Mapping[str, Sequence[Path]], bases: Mapping[str, str]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """For each run of recorded traffic the sentence about what it changed, and that in numbers: of all requests under
    "", by key ("key NAME") and by day; runs of which nothing is judged are left out."""
    from outthink.reports.traffic import by_day, by_key, is_traffic, judged, judged_sentence, strategy_of, told_by

    helped = {}
    for run, base in bases.items():
        (mine, *_), (other, *_) = folders[run], folders[base]
        if not (is_traffic(mine) and is_traffic(other)):
            continue
        told = judged(results[run], results[base])
        if not told.requests:
            continue
        groups = {"": told}
        parts = {**{f"key {name}": one for name, one in by_key(results[base]).items()}, **by_day(results[base])}
        groups |= {name: judged(results[run], part) for name, part in parts.items()}
        said = judged_sentence((strategy_of(mine), strategy_of(other)), told, told_by(mine))
        helped[run] = said, {name: one for name, one in groups.items() if one.requests}
    return helped


def _tell_groups(helped: Mapping[str, tuple[str, dict[str, Any]]], as_markdown: bool) -> None:
    """By key and by day, where there are several."""
    from outthink.reports.tables import markdown_table, text_table
    from outthink.reports.traffic import GROUPS, group_rows

    for _, groups in helped.values():
        rows = group_rows({name: told for name, told in groups.items() if name})
        if as_markdown and rows:
            typer.echo("\n" + markdown_table(GROUPS, rows))
        elif rows:
            print_table(text_table(GROUPS, rows))


def _read(runs: Sequence[Path]) -> tuple[dict[str, list[Path]], dict[str, Any]]:
    """The runs by name with their directories, and what was read of each.

    One that was only come upon in a folder is left out where it cannot be read, with a word.
    """
    from outthink.records.runs import read_settings, runs_in
    from outthink.reports.report import read_runs
    from outthink.reports.seeds import by_method

    there: list[Path] = []
    for run in runs:
        for folder in runs_in(run):
            try:
                read_settings(folder)
                there.append(folder)
            except UsageError as cause:
                if folder in runs:
                    raise
                note(f"Left out: {cause}")
    folders = by_method(there)
    both: dict[str, Any] = {}
    kept: dict[str, list[Path]] = {}
    with Working("Reading", unit="runs") as standing:
        for name, paths in folders.items():
            standing.tell(len(both), len(folders), f"Reading {name}")
            try:
                both[name], kept[name] = read_runs(paths), paths
            except UsageError:
                if set(paths) & set(runs):
                    raise
                for left, whole in by_method([path for path in paths if _is_whole(path)]).items():
                    both[left], kept[left] = read_runs(whole), whole
    if not both:
        raise UsageError(f"Nothing can be read in {', '.join(map(str, runs))}.")
    return kept, both


def _is_whole(run: Path) -> bool:
    """Whether every line can be read; where not, that is told."""
    from outthink.records.runs import read_results

    try:
        for _ in read_results(run):
            pass
    except UsageError as cause:
        note(f"Left out: {cause}")
        return False
    return True


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


def _at_equal_cost(results: dict[str, list[Any]], pool: Path) -> dict[str, dict[str, Any]]:
    """By unit, then by run; empty where there is no pool."""
    from typing import get_args

    from outthink.records.pools import read_pool
    from outthink.reports.replay import Equal, at_equal_cost

    recorded = read_pool(pool)
    return {
        unit: {run: at_equal_cost(light, recorded, unit) for run, light in results.items()} for unit in get_args(Equal)
    }


def _rules(paths: Sequence[Path]) -> dict[str, int]:
    """How many replies of runs or of a pool were read by which rule."""
    from itertools import chain, islice

    from outthink.reports.reading import kind_of, replies, rules

    every = chain.from_iterable(map(replies, paths))
    first = list(islice(every, 200))
    return rules((reply.text for reply in chain(first, every) if reply.complete), kind_of(first))


def _tell_rules(read: dict[str, dict[str, int]], as_markdown: bool) -> None:
    from outthink.reports.reading import counted, doubt

    for name, counts in read.items():
        if counts:
            told = f"{name}: answers by how they were read: {counted(counts)}."
            typer.echo(printable(("- " if as_markdown else "") + told))
        warning = doubt(counts)
        if warning is not None:
            note(f"{name}: {warning}")


def _report_pools(pools: list[Path], as_json: bool, as_markdown: bool, written: TableOptions) -> None:
    from outthink.reports.coverage import (
        coverage_cells,
        coverage_figure,
        coverage_frame,
        coverage_markdown,
        coverage_table,
        pool_coverage,
    )
    from outthink.reports.tables import plain

    covered = {str(pool): pool_coverage(pool) for pool in pools}
    read = {str(pool): _rules([pool]) for pool in pools}
    written.write(coverage_frame(covered), *coverage_cells(covered), lambda: coverage_figure(covered))
    if as_json:
        import dataclasses

        print_json(plain({pool: {**dataclasses.asdict(covered[pool]), "rules": read[pool]} for pool in covered}))
        return
    if as_markdown:
        typer.echo(coverage_markdown(covered))
    else:
        print_table(coverage_table(covered))
    for pool, coverage in covered.items():
        typer.echo(("- " if as_markdown else "") + coverage.sentence(pool))
    _tell_rules(read, as_markdown)


@takes_blocks
def replay(
    written: TableOptions,
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
    from outthink.reports.tables import plain

    written.check()
    try:
        ns = sorted({int(part) for part in n.split(",")}) if n else None
    except ValueError:
        raise UsageError(f"Cannot read --n {n!r}; write whole numbers, such as 1,2,4.") from None
    with Working("Replaying", unit="strategies") as standing:
        replayed = replay_pool(
            pool,
            [name.strip() for name in strategies.split(",")],
            ns=ns,
            verifier=verifier,
            verdicts=verdicts,
            answer="text" if answer is None else given_kind(answer),
            subsamples=subsamples,
            seed=seed,
            on_progress=lambda name, done, total: standing.tell(done, total, f"Replaying {name}"),
        )
    written.write(replayed.frame(), *replayed.rows(), replayed.figure)
    if as_json:
        print_json(plain(replayed.plain()))
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
    labels: Annotated[
        Path | None,
        typer.Option(help='For soundness: what people found, lines {"problem": ID, "sample": PLACE, "flaws": LIST}.'),
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
        "labels": labels,
        "answer": None if answer is None else given_kind(answer),
        "seed": seed,
    }
    if figure is not None:
        check(figure)  # before anything is computed
    with Working(f"Fitting {name}"):
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
