"""The command show."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outthink.cli.options import JsonOption
from outthink.cli.shown import console, one_line, print_json, print_table, print_trace, printable
from outthink.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.text import Text
    from rich.tree import Tree

    from outthink.records.runs import Result
    from outthink.reports.problems import TreeNode
    from outthink.types import Trace

_SHOWN = 20  # problems, where no limit is given
_ROUNDS = 12
_ANSWER, _BEGINS = 40, 60  # characters of an answer and of the beginning of a text
_FEWEST = 24  # characters that a line of the tree keeps for itself, however deep it is


def show(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    problem: Annotated[
        str | None, typer.Argument(help="Show this one: its id, or a part of it that no other one has.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Argument(help="Print the whole text of this candidate of it, such as model/0/3.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show only the first so many problems.")] = _SHOWN,
    as_json: JsonOption = False,
) -> None:
    """What happened on the problems of a run; the tree of one.

    Failures are first. Of a PROBLEM every candidate is shown with its score, its answer, and the rule by which that was
    read.
    """
    from outthink.reports.problems import pick

    if problem is None:
        _show_run(run, limit, as_json)
        return
    result = pick(run, problem)
    if candidate is not None:
        _show_text(result, candidate, as_json)
    else:
        _show_problem(run, result, as_json)


def _show_run(run: Path, limit: int, as_json: bool) -> None:
    from collections import Counter

    from rich.table import Table

    from outthink.reports.problems import outcome, plain_result, results_of, wrong_first

    # candidates are most of a run, and only their number is shown
    short = []
    for result in results_of(run):
        samples = 0 if result.trace is None else len(result.trace.candidates)
        light = result.trace and dataclasses.replace(result.trace, candidates=())
        short.append((dataclasses.replace(result, trace=light), samples))
    counts = {result.problem: samples for result, samples in short}
    results = wrong_first([result for result, _ in short])
    if as_json:
        print_json([{**plain_result(result), "candidates": counts[result.problem]} for result in results])
        return
    shown = Table("problem", "", "answer", "candidates", "tokens", "seconds", "ended", box=None, pad_edge=False)
    for column in shown.columns[3:6]:
        column.justify = "right"
    for result in results[:limit]:
        trace = result.trace
        shown.add_row(
            _text(result.problem, _BEGINS),
            outcome(result),
            _text("-" if trace is None or trace.answer is None else trace.answer, _ANSWER),
            f"{counts[result.problem]:,}",
            "-" if trace is None else f"{trace.cost['tokens']:,.0f}",
            "-" if trace is None else f"{trace.seconds:.1f}",
            _text(result.error or ("-" if trace is None else trace.stopped), _BEGINS),
        )
    if shown.row_count:
        print_table(shown)
    left = len(results) - shown.row_count
    if left:
        typer.echo(f"... and {left} more (--limit {len(results)} shows all).")
    each = ", ".join(f"{count} {what}" for what, count in Counter(map(outcome, results)).items())
    typer.echo(f"{len(results)} {'problem' if len(results) == 1 else 'problems'}: {each or 'none is finished'}.")


def _show_problem(run: Path, result: Result, as_json: bool) -> None:
    from rich.markup import escape

    from outthink.reports.problems import (
        kind_of_run,
        outcome,
        plain_result,
        plain_rounds,
        plain_sampling,
        plain_tree,
        tree_of,
    )

    trace = result.trace
    if trace is None:
        if as_json:
            print_json(plain_result(result))
        else:
            typer.echo(f"{one_line(result.problem)}: {outcome(result)}: {one_line(result.error or '')}")
        return
    roots, nodes = tree_of(trace, kind_of_run(run))
    if as_json:
        print_json(
            {
                **plain_result(result),
                "rounds": plain_rounds(trace),
                "notes": list(trace.notes),
                "sampling": plain_sampling(trace),
                "candidates": plain_tree(nodes),
            }
        )
        return
    why = f": {one_line(result.error)}" if result.error else ""
    console().print(f"[bold]{escape(one_line(result.problem))}[/bold]: {outcome(result)}{escape(why)}", soft_wrap=True)
    print_trace(trace)
    for way in plain_sampling(trace):
        settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in way["sampling"].items())
        typer.echo(f"{way['kind']} ({way['role']}), {way['calls']:,} calls: {printable(settings)}")
    _print_rounds(trace)
    for remark in trace.notes:
        typer.echo(f"Note: {printable(remark)}")
    if nodes:
        _print_tree(roots, nodes)
        typer.echo(f"`outthink show {one_line(str(run))} PROBLEM CANDIDATE` prints the whole text of a candidate.")


def _show_text(result: Result, name: str, as_json: bool) -> None:
    trace = result.trace
    if trace is None or not trace.candidates:
        raise UsageError(f"{result.problem} has no candidates; leave {name!r} out.")
    ids = [one.id for one in trace.candidates]
    if name not in ids:
        raise UnknownName("candidate", name, ids)
    text = trace.whole_text(name)
    print_json({"id": name, "text": text}) if as_json else typer.echo(printable(text))


def _print_rounds(trace: Trace) -> None:
    """What was answered when; of many rounds those in which the answer changed, and the last."""
    from rich.table import Table

    rounds = trace.rounds
    changed = [
        place
        for place, one in enumerate(rounds)
        if place in (0, len(rounds) - 1) or one.answer != rounds[place - 1].answer
    ]
    if len(rounds) < 2:
        return
    kept = changed if len(rounds) > _ROUNDS else list(range(len(rounds)))
    shown = Table("round", "tokens", "seconds", "candidates", "answer", "confidence", box=None, pad_edge=False)
    for column in shown.columns[:4]:
        column.justify = "right"
    for place in kept[: _ROUNDS - 1] + kept[_ROUNDS - 1 :][-1:]:
        one = rounds[place]
        shown.add_row(
            str(place + 1),
            f"{one.cost.get('tokens', 0.0):,.0f}",
            f"{one.at:.1f}",
            str(len(one.candidates)),
            _text("-" if one.answer is None else one.answer, _ANSWER),
            "-" if one.confidence is None else f"{one.confidence:.2f}",
        )
    print_table(shown)
    if (left := len(rounds) - shown.row_count) > 0:
        typer.echo(f"... and {left} more of the {len(rounds)} rounds.")


def _print_tree(roots: tuple[str, ...], nodes: Mapping[str, TreeNode]) -> None:
    """The candidates below those they were made from.

    What has a single child goes on at the same depth, and so does what would be too deep for the screen; then its line
    begins with an arrow.
    """
    from rich.tree import Tree

    printed = console()
    deepest = max((printed.width - _FEWEST) // 4, 1)
    whole = Tree(f"{len(nodes):,} candidate{'s' * (len(nodes) != 1)}")
    waiting: list[tuple[str, Tree, int, bool]] = [(root, whole, 1, False) for root in reversed(roots)]
    while waiting:
        name, parent, depth, goes_on = waiting.pop()
        node = nodes[name]
        branch = parent.add(_label(name, node, goes_on))
        below = len(node.children) > 1 and depth < deepest
        waiting += [(child, branch if below else parent, depth + below, not below) for child in reversed(node.children)]
    printed.print(whole)


def _label(name: str, node: TreeNode, goes_on: bool) -> Text:
    """One line: which candidate, whether it is the answer, score, answer and rule, tokens, and how its text begins."""
    from rich.text import Text

    one = node.candidate
    facts: list[str] = []
    if node.score is not None:
        facts.append(f"{node.score:.3g}")
    if one.answer is not None:
        rule = f" ({node.rule})" if node.rule else ""
        facts.append(f"= {one_line(one.answer)[:_ANSWER]}{rule}")
    facts.append(f"{one.tokens:,} tokens")
    if one.finish not in ("eos", "stop"):
        facts.append({"length": "cut off"}.get(one.finish, one.finish))
    if len(one.parents) > 1:
        facts.append(f"from {', '.join(map(one_line, one.parents))}")
    label = Text("-> " if goes_on else "")
    label.append(("* " if node.chosen else "") + one_line(name), style="bold" if node.chosen else "")
    label.append(" " + ", ".join(facts))
    begins = one_line(one.text[: 4 * _BEGINS])[:_BEGINS]
    label.append(f" {begins}" if begins else "", style="dim")
    return label


def _text(text: str, most: int) -> Any:
    """A cell without markup, shortened."""
    from rich.text import Text

    line = one_line(text[: 4 * most])
    return Text(line if len(line) <= most else line[: most - 3] + "...")
