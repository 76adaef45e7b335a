"""What the commands print."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from outthink.types import Trace

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_ESCAPED |= {code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))}
_ARGUMENT = re.compile(r"(?<![\w\"'-])max_tokens(?![\w\"'])")
_WIDEST = 100_000  # characters; wider than any table


def console() -> Console:
    """Standard output; where it is no terminal, with lines of 120 characters, or of as many as COLUMNS says."""
    from rich.console import Console

    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal or os.environ.get("COLUMNS", "").isdigit() else 120)


def note(text: str) -> None:
    """A remark on standard error, in the words of the command line."""
    typer.echo(printable(in_options(text)), err=True)


def say_unasked(roles: Collection[str]) -> None:
    """Tell of roles that were given a model which nothing asked: a wrong word, or a method without such a role."""
    from outthink.models.roles import MAIN

    for role in sorted({*roles} - {MAIN}):
        note(f"Nothing was asked of the model of the role {role!r}.")


def in_options(text: str) -> str:
    """What the library says of its own argument, said of the option that sets it."""
    return _ARGUMENT.sub("--max-tokens", text)


def printable(text: str) -> str:
    """A text for a terminal: control characters are escaped, which could move its cursor, change its title or turn the
    order of what is read."""
    return text.translate(_ESCAPED)


def one_line(text: str) -> str:
    """A text on a single line."""
    return printable(" ".join(text.split()))


def print_table(table: Table) -> None:
    """A table whose words all stay whole; where that needs more than there is, each row is a list of its cells."""
    from rich.measure import Measurement

    printed = console()
    first = table.columns[0]
    first.no_wrap = True
    wide = printed.options.update(width=_WIDEST, max_width=_WIDEST)
    sizes = [
        [Measurement.get(printed, wide, cell) for cell in (column.header, *column.cells)] for column in table.columns
    ]
    least = [max(size.minimum for size in column) for column in sizes]
    most = [max(size.maximum for size in column) for column in sizes]
    least[0] = most[0]
    beside = Measurement.get(printed, wide, table).maximum - sum(most)  # of what stands between the columns
    free = printed.width - beside - sum(least)
    if free < 0:
        _print_rows(printed, table)
        return
    for column, width in zip(table.columns, _widths(least, most, free), strict=True):
        column.width = width
    printed.print(table)


def _widths(least: list[int], most: list[int], free: int) -> list[int]:
    """`free` more characters than `least`, given first to what is nearest to `most`, so that few are wrapped."""
    widths = list(least)
    waiting = sorted(range(len(most)), key=lambda place: most[place] - least[place])
    for done, place in enumerate(waiting):
        added = min(most[place] - least[place], free // (len(waiting) - done))
        widths[place] += added
        free -= added
    return widths


def _print_rows(printed: Console, table: Table) -> None:
    """Each row as its first cell and, below it, the others by the names of their columns."""
    headers = [str(column.header) for column in table.columns]
    for name, *cells in zip(*(column.cells for column in table.columns), strict=True):
        printed.print(name, soft_wrap=True)
        for header, cell in zip(headers[1:], cells, strict=True):
            if str(cell):
                printed.print(f"  {header}: " if header else "  ", cell, sep="", soft_wrap=True)


def print_json(data: Any) -> None:
    """Data as JSON; characters are written as they are where standard output can hold them."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    typer.echo(json.dumps(data, indent=2, ensure_ascii=not encoding.startswith("utf")))


def print_summaries(summaries: dict[str, Any], as_json: bool) -> None:
    """Runs as a table, or as JSON."""
    import dataclasses

    from outthink.reports.report import table
    from outthink.reports.tables import plain

    if as_json:
        print_json({run: plain(dataclasses.asdict(summary)) for run, summary in summaries.items()})
    else:
        print_table(table(summaries))


def print_trace(trace: Trace, *, chat: bool = False) -> None:
    """What happened on one problem: answer, why it ended, ledger; a chat's answer is its text, if no more is read."""
    from rich.markup import escape
    from rich.table import Table

    from outthink.records.generations import generations_of
    from outthink.records.sharing import sharing

    printed = console()
    said = _text(trace)
    said = None if said is None else said.strip()
    text = None if said is None else printable(said)
    if chat and text is not None and trace.answer in (None, said):
        printed.print(f"{escape(text)}\n", soft_wrap=True)
    else:
        if text is not None:
            printed.print(f"[dim]{escape(text)}[/dim]\n", soft_wrap=True)
        confidence = "" if trace.confidence is None else f"   (confidence {trace.confidence:.2f})"
        lacking = "the method abstained" if trace.abstained else "no sample ended with a readable answer"
        shown = f"none: {lacking}" if trace.answer is None else printable(trace.answer)
        printed.print(f"[bold]Answer: {escape(shown)}[/bold]{confidence}", soft_wrap=True)
    for told in trace.notes:
        printed.print(escape(f"Note: {one_line(told)}"), soft_wrap=True)
    why = f": {one_line(trace.error)}" if trace.error else ""
    parameters = ", ".join(f"{name}={value!r}" for name, value in trace.strategy.items() if name != "name")
    printed.print(
        escape(f"{trace.strategy['name']}({parameters}) stopped: {trace.stopped}{why}; budget: {trace.budget}"),
        soft_wrap=True,
    )
    lines = trace.ledger()
    apart = ["seen"] if any(not line.exact for line in lines) else []  # what was seen, where more is charged
    table = Table("", "calls", "samples", "prompt", "cached", "completion", "tokens", *apart, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        sign = "" if line.exact else "<= "
        table.add_row(
            f"{line.kind} ({line.role})",
            f"{line.calls:,}",
            f"{line.children:,}",
            f"{line.usage.prompt:,}",
            f"{line.usage.cached:,}",
            f"{sign}{line.usage.completion:,}",
            f"{sign}{line.usage.tokens:,}",
            *(f"{line.seen.tokens:,}" for _ in apart),
        )
    print_table(table)
    for line in (line for line in lines if line.failed):
        calls = [call for call in trace.calls if (call.kind, call.role) == (line.kind, line.role)]
        first = next((f"; the first one: {one_line(call.error)}" for call in calls if call.failed and call.error), "")
        failed = f"{line.failed:,} of {line.children:,} failed: {line.kind} ({line.role}){first}"
        printed.print(escape(failed), soft_wrap=True)
    if (tree := sharing(trace)).levels > 1:
        printed.print(
            f"{tree.levels} levels; paths of {tree.logical:,} tokens, {tree.unique:,} of them unique; "
            f"resident {tree.resident:,.0f} on average, {tree.peak:,} at the largest level"
        )
    for generation in generations_of(trace):
        printed.print(f"Generation {generation.number}: {generation.told()}.", soft_wrap=True)
    printed.print(costs(trace.cost))


def _text(trace: Trace) -> str | None:
    """The text of the answer; where nothing was chosen the fullest one, which is paid for all the same."""
    from outthink.types import fullest

    longest = fullest(trace.candidates, {one.id: one for one in trace.candidates}) if trace.text is None else None
    return trace.text if longest is None else trace.whole_text(longest.id)


def costs(cost: Mapping[str, float]) -> str:
    """The sum of what was charged, in words."""
    parts = [f"{cost.get('tokens', 0):,.0f} tokens"]
    if "flops" in cost:
        parts.append(f"{cost['flops']:.3g} FLOPs")
    parts.append(f"{cost['seconds']:.1f} s")
    parts.append(f"{cost['usd']:.6f} USD" if "usd" in cost else "no price known")
    return "Total: " + ", ".join(parts)


def trace_json(trace: Trace) -> dict[str, Any]:
    """The same as data for JSON."""
    from outthink.records.generations import generations_of

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
            "seen": {"prompt": line.seen.prompt, "cached": line.seen.cached, "completion": line.seen.completion},
            "exact": line.exact,
            "cost": line.cost,
        }
        for line in trace.ledger()
    ]
    told = ("number", "answers", "distinct", "read", "cached", "written")
    generations = [{name: getattr(one, name) for name in told} for one in generations_of(trace)]
    return {
        **({"generations": generations} if generations else {}),
        "answer": trace.answer,
        "text": _text(trace),
        "confidence": trace.confidence,
        "stopped": trace.stopped,
        "error": trace.error,
        "notes": list(trace.notes),
        "strategy": dict(trace.strategy),
        "model": trace.resources["model"],
        "budget": dict(trace.budget.limits),
        "cost": trace.cost,
        "ledger": lines,
    }
