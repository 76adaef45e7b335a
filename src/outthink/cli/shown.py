"""What the commands print."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from outthink.types import Trace


def console() -> Console:
    """Standard output, with lines of 120 characters where it is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def note(text: str) -> None:
    """A remark on standard error."""
    typer.echo(text, err=True)


def print_summaries(summaries: dict[str, Any], as_json: bool) -> None:
    """Runs as a table, or as JSON."""
    import dataclasses

    from outthink.reports.report import table
    from outthink.reports.tables import plain

    if as_json:
        typer.echo(json.dumps({run: plain(dataclasses.asdict(of)) for run, of in summaries.items()}, indent=2))
    else:
        console().print(table(summaries))


def print_trace(trace: Trace) -> None:
    """What happened on one problem: answer, why it ended, ledger."""
    from rich.markup import escape
    from rich.table import Table

    from outthink.records.sharing import sharing

    printed = console()
    if trace.text is not None:
        printed.print(f"[dim]{escape(trace.text.strip())}[/dim]\n")
    confidence = "" if trace.confidence is None else f"   (confidence {trace.confidence:.2f})"
    lacking = "the method abstained" if trace.abstained else "no sample ended with a readable answer"
    shown = f"none: {lacking}" if trace.answer is None else trace.answer
    printed.print(f"[bold]Answer: {escape(shown)}[/bold]{confidence}")
    why = f": {trace.error}" if trace.error else ""
    parameters = ", ".join(f"{name}={value!r}" for name, value in trace.strategy.items() if name != "name")
    printed.print(
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
    printed.print(table)
    if (tree := sharing(trace)).levels > 1:
        printed.print(
            f"{tree.levels} levels; paths of {tree.logical:,} tokens, {tree.unique:,} of them unique; "
            f"resident {tree.resident:,.0f} on average, {tree.peak:,} at the largest level"
        )
    printed.print(_costs(trace))


def _costs(trace: Trace) -> str:
    cost = trace.cost
    parts = [f"{cost.get('tokens', 0):,.0f} tokens"]
    if "flops" in cost:
        parts.append(f"{cost['flops']:.3g} FLOPs")
    parts.append(f"{cost['seconds']:.1f} s")
    parts.append(f"{cost['usd']:.6f} USD" if "usd" in cost else "no price known")
    return "Total: " + ", ".join(parts)


def trace_json(trace: Trace) -> str:
    """The same as JSON."""
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
