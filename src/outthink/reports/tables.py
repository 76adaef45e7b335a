"""Tables as text, as Markdown and as LaTeX, and data as plain JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


_LEFT = ("run", "pool", "strategy", "ended", "best fixed")
"""Columns of words, which stand on the left."""


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for a terminal."""
    from rich.table import Table  # here, because importing rich is slow

    shown = Table()
    for column in columns:
        shown.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---" for _ in columns], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def latex_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, made_by: str = "") -> str:
    """A tabular for the package booktabs: what is named stands on the left, numbers on the right.

    Columns without a single value are left out. `made_by` is told in a comment.
    """
    kept = [place for place in range(len(columns)) if any(row[place] not in ("", "-") for row in rows)]
    head, *body = [[_latex(line[place]) for place in kept] for line in (columns, *rows)]
    left = "".join("l" if columns[place] in _LEFT else "r" for place in kept)
    made_by = "".join(char for char in " ".join(made_by.split()) if char.isprintable())
    comment = f"% made by: {made_by}\n" if made_by else ""
    lines = [r"\toprule", " & ".join(head) + r" \\", r"\midrule", *(" & ".join(line) + r" \\" for line in body)]
    return (
        f"{comment}% needs: \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{left}}}\n"
        + "".join(f"  {line}\n" for line in (*lines, r"\bottomrule"))
        + "\\end{tabular}\n"
    )


def _latex(text: str) -> str:
    """A text as LaTeX shows it: nothing in it is a command, and a minus is one."""
    shown = "".join(char for char in " ".join(text.split()) if char.isprintable()).translate(_LATEX)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", shown)


def plain(value: Any) -> Any:
    """Data for JSON, which has neither NaN nor infinity: None in their place."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
