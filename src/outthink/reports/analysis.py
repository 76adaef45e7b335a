"""What a law says about some data: a table, sentences and a figure, and how numbers are worded in them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.intervals import Interval, mean_and_interval
from outthink.reports.figures import Figure, Series
from outthink.reports.tables import markdown_table, text_table

if TYPE_CHECKING:
    from rich.table import Table

Unit = Literal["number", "share", "points"]


class Cell(NamedTuple):
    """A number of a table.

    Args:
        unit: shares are in [0, 1]; "points" are differences of shares, in [-1, 1].
        low, high: its 95% interval where it is an estimate.
    """

    value: float
    unit: Unit = "number"
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        shown = worded(self.value, self.unit)
        if self.low is None or self.high is None:
            return shown
        return f"{shown} ({worded(self.low, self.unit)} to {worded(self.high, self.unit)})"


Row = tuple[str | Cell | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What a law says about some data.

    Args:
        title: the law and its formula.
        columns, rows: a table; None where there is nothing to say.
        sentences: the same in words, with what to be careful about.
        figure: what was measured, and the law through it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]
    figure: Figure

    def plain(self) -> dict[str, Any]:
        """As plain data; an estimate is its value with `low` and `high`, and a number that is not finite is None."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        whole = {
            "title": self.title,
            "rows": rows,
            "sentences": self.sentences,
            "figure": dataclasses.asdict(self.figure),
        }
        plain: dict[str, Any] = _plain(whole)
        return plain

    def table(self) -> Table:
        """For a terminal."""
        return text_table(self.columns, self._shown())

    def markdown(self) -> str:
        """As a Markdown table."""
        return markdown_table(self.columns, self._shown())

    def _shown(self) -> list[list[str]]:
        return [["-" if cell is None else str(cell) for cell in row] for row in self.rows]


def worded(value: float, unit: Unit = "number") -> str:
    """A number as people read it; "never" where it is infinite."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never"
    if unit == "share":
        return f"{100 * value:.1f}%"
    if unit == "points":
        return f"{100 * value:+.1f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def mean_of(values: Iterable[Any], unit: Unit = "share", *, least: float = 0.0) -> Cell:
    """The mean of one number per problem and its interval; shares and points are from `least` to 1, numbers any."""
    low, high = (-math.inf, math.inf) if unit == "number" else (least, 1.0)
    mean, *ends = mean_and_interval([float(value) for value in values], least=low, most=high)
    return Cell(mean, unit, *ends)


def estimated(value: ArrayLike, interval: Interval, unit: Unit = "number") -> Cell:
    """One number of a law."""
    return Cell(float(np.asarray(value)), unit, float(interval.low), float(interval.high))


def estimates(values: ArrayLike, interval: Interval, unit: Unit = "number") -> list[Cell]:
    """Several numbers (m,) of a law, whose interval has bounds (m,)."""
    rows = zip(*(np.asarray(numbers, float).tolist() for numbers in (values, interval.low, interval.high)), strict=True)
    return [Cell(value, unit, low, high) for value, low, high in rows]


def by_quantity(columns: Mapping[str, Mapping[str, str | Cell | None]]) -> dict[str, Any]:
    """`columns` and `rows` of a table with a column for each law that was fitted and a row for each quantity."""
    quantities = list(dict.fromkeys(quantity for column in columns.values() for quantity in column))
    return {
        "columns": ("quantity", *columns),
        "rows": tuple((quantity, *(column.get(quantity) for column in columns.values())) for quantity in quantities),
    }


def short_names(files: Sequence[Path]) -> list[tuple[str, Path]]:
    """Each file with the shortest end of its path that no other one has."""
    parts = [path.parts for path in files]
    depth = 1
    while len({pieces[-depth:] for pieces in parts}) < len(set(parts)):
        depth += 1
    return [("/".join(pieces[-depth:]), path) for pieces, path in zip(parts, files, strict=True)]


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 ... and the most."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


def grid(least: float, most: float) -> NDArray[np.float64]:
    """Where a curve is drawn, evenly on a logarithmic axis."""
    return np.geomspace(least, max(most, least * 1.01), 60)


def curve(name: str, x: ArrayLike, cells: Sequence[Cell]) -> Series:
    """A curve with its band."""
    y, low, high = zip(*((cell.value, cell.low, cell.high) for cell in cells), strict=True)
    return Series(name=name, x=np.asarray(x, float).tolist(), y=y, low=low, high=high)


def bars(name: str, x: ArrayLike, cells: Sequence[Cell]) -> Series:
    """Measured points with their error bars."""
    return dataclasses.replace(curve(name, x, cells), mark="points")


def misfit(name: str, ks: Sequence[int], measured: Sequence[Cell], law: ArrayLike) -> list[str]:
    """Says at which k the law is outside of the interval of what was measured, where it is."""
    told = np.asarray(law, float).tolist()
    missed = [
        k
        for k, cell, value in zip(ks, measured, told, strict=True)
        if cell.low is not None and cell.high is not None and not cell.low <= value <= cell.high
    ]
    if not missed:
        return []
    worst = max(abs(cell.value - value) for cell, value in zip(measured, told, strict=True))
    return [
        f"{name}: the law does not have the shape of these data. At {', '.join(map(str, missed))} it is outside of the "
        f"interval of what was measured, by up to {100 * worst:.1f} points, and its own intervals do not know that."
    ]


def predicted(k: float, most: float) -> str:
    """What a prediction at k is called in a table; beyond the `most` that was recorded it says what it hangs on."""
    return f"law at {k:g}" + (", if it is right" if k > most else "")


def misled(name: str, most: int, drift: float) -> str:
    """Says that half of the samples would have misled by more than chance."""
    return (
        f"{name}: fitted to half of the range, the law is {100 * abs(drift):.1f} points too "
        f"{'high' if drift > 0 else 'low'} at {most}, more than chance makes it; so it is not the law of these data, "
        "and its intervals beyond them are wider by as much at each doubling."
    )


def too_far(name: str, k: float, most: int) -> str:
    """Says that a prediction is one too far."""
    return f"{name}: {k:g} is more than ten times the {most} samples that were recorded; nothing supports it there."


def _plain(value: Any) -> Any:
    if isinstance(value, Cell):
        value = value.value if value.low is None else {"value": value.value, "low": value.low, "high": value.high}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | np.number):
        return float(value) if math.isfinite(value) else None
    return value
