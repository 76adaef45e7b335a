"""Tables as text and as Markdown, and data as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal."""
    from rich.table import Table  # here, because importing rich is slow

    shown = Table()
    for column in columns:
        left = column in ("run", "pool", "strategy", "ended", "best fixed")
        shown.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---" for _ in columns], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def plain(value: Any) -> Any:
    """Data for JSON, which has no NaN: None in its place."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
