"""Figures of curves and measured points, written as .svg, .png, .pdf or .html without a network.

Source: Vega-Lite, drawn by altair and vl-convert (the extra `figures`); the colours are those of Okabe and Ito 2008,
"Color Universal Design", which colour-blind people can tell apart. Differs: every name also has a dash and a shape of
its own, so that a figure can be read in grey; an .html holds its scripts.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from outthink.errors import UsageError

SUFFIXES = (".svg", ".png", ".pdf", ".html")
"""What `save` can write."""

# The numbers of colours, dashes and shapes have no common divisor with each other, so that pairs repeat late.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [12, 4], [5, 2, 2, 2, 2, 2])
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis.

    Args:
        title: with the unit, such as "tokens per problem".
        log: logarithmic; what is not above 0 is then left out.
        percent: values are shares and are shown as percentages.
    """

    title: str
    log: bool = False
    percent: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One curve, or one set of points.

    Series of the same name share colour, dash, shape and their entry in the legend.

    Args:
        x, y: of the points, in the order in which they are joined; what is not finite is left out.
        low, high: ends of the interval of each y: a band around a curve, a bar through a point.
        mark: "steps" hold each y until the next x, as a frontier does; "vertical" draws a line at each x, and `y` is
            not looked at.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float] = ()
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    mark: Literal["line", "points", "steps", "vertical"] = "line"

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.name!r} has one end of its intervals and not the other")
        for values in (self.low, self.high, None if self.mark == "vertical" else self.y):
            if values is not None and len(values) != len(self.x):
                raise ValueError(f"{self.name!r} has {len(self.x)} x and {len(values)} other values")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Series over common axes."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]


def check(path: Path) -> None:
    """Raises UsageError where no figure can be written there: another suffix, no such folder, no extra `figures`."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"Cannot draw {path}: name a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
    if not os.path.isdir(path.parent):
        raise UsageError(f"Cannot write {path}: name a file in a folder that exists.")
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        raise UsageError("Figures need more packages: pip install 'outthink[figures]'.") from None


def save(figure: Figure, path: Path) -> None:
    """Write the figure; the same figure gives the same bytes, but for a .pdf, whose parts come in any order.

    Raises UsageError as `check`, and where the file cannot be written.
    """
    check(path)
    options: Any = {"inline": True} if path.suffix == ".html" else {"scale_factor": 2}
    try:
        if path.suffix == ".pdf":  # by way of .svg: the packages do not agree on how large a .pdf is
            import vl_convert

            with io.StringIO() as drawn:
                chart(figure).save(drawn, format="svg")
                path.write_bytes(vl_convert.svg_to_pdf(drawn.getvalue()))
        else:
            chart(figure).save(str(path), **options)
    except OSError as cause:
        raise UsageError(f"Cannot write {path}: {cause.strerror}.") from None


def chart(figure: Figure) -> Any:
    """The figure as an altair chart; needs the extra `figures`."""
    import altair  # here, because it is an extra and slow to import

    alt: Any = altair  # parts of it have no types
    names = list(dict.fromkeys(series.name for series in figure.series))
    curves = _named(figure, "line", "steps", "vertical")
    others = [name for name in _named(figure, "points") if name not in curves]

    def of_names(channel: Any, choices: Sequence[Any], told: list[str] | None = None) -> Any:
        """Gives each name its choice; `told` are the names in the legend."""
        chosen = [choices[place % len(choices)] for place in range(len(names))]
        legend: Any = None
        if told and len(names) > 1:
            size = 600 if told is curves else 90  # of a curve the square of the length that is shown
            legend = alt.Legend(title=None, values=told, labelLimit=480, symbolOpacity=1, symbolSize=size)
        return channel("name:N", scale=alt.Scale(domain=names, range=chosen), legend=legend)

    def axis(channel: Any, field: str, spec: Axis) -> Any:
        shown = ".0%" if spec.percent else "~s" if spec.log else alt.Undefined
        ticks = alt.Axis(format=shown, tickCount=6, labelOverlap=True, gridOpacity=0.4)
        scale = alt.Scale(type="log" if spec.log else "linear", zero=False, nice=not spec.log)
        return channel(f"{field}:Q", title=spec.title, scale=scale, axis=ticks)

    def data(*marks: str, between: bool = False) -> Any:
        rows = [row for one in figure.series if one.mark in marks for row in _rows(one, figure, between)]
        return alt.Chart(alt.Data(values=rows)) if rows else None

    x, y = axis(alt.X, "x", figure.x), axis(alt.Y, "y", figure.y)
    ends = {"y": axis(alt.Y, "low", figure.y), "y2": "high:Q"}
    line_style = [of_names(alt.Color, _COLOURS, curves), of_names(alt.StrokeDash, _DASHES, curves)]
    point_style = [of_names(alt.Color, _COLOURS, others), of_names(alt.Shape, _SHAPES, others)]
    tips = [alt.Tooltip("name:N", title="series"), *(_tip(alt, "x", figure.x), _tip(alt, "y", figure.y))]

    lines: list[Any] = []
    for mark in ("line", "steps"):
        how: Any = "linear" if mark == "line" else "step-after"
        if (layer := data(mark, between=True)) is not None:
            band = layer.mark_area(opacity=0.15, interpolate=how)
            lines.append(band.encode(x, of_names(alt.Fill, _COLOURS), detail="name:N", **ends))
        if (layer := data(mark)) is not None:
            drawn = layer.mark_line(strokeWidth=2, interpolate=how)
            lines.append(drawn.encode(x, y, *line_style, tooltip=tips, order="order:Q"))
    if (layer := data("vertical")) is not None:
        lines.append(layer.mark_rule(strokeWidth=1.5).encode(x, *line_style, tooltip=tips[:2]))
    points: list[Any] = []
    if (layer := data("points", between=True)) is not None:
        points.append(layer.mark_rule(strokeWidth=1.2).encode(x, of_names(alt.Stroke, _COLOURS), **ends))
    if (layer := data("points")) is not None:
        drawn = layer.mark_point(size=45, filled=True, opacity=1)
        points.append(drawn.encode(x, y, *point_style, tooltip=tips))
    if not lines and not points:
        raise ValueError("a figure needs at least one point that can be drawn")
    # curves and points have legends of their own, so that each shows what is drawn: a dash or a shape
    groups = [alt.layer(*group) for group in (lines, points) if group]
    whole = alt.layer(*groups).resolve_scale(color="independent", strokeDash="independent", shape="independent")
    return whole.properties(title=figure.title, width=560, height=340, background="white")


def _named(figure: Figure, *marks: str) -> list[str]:
    """Names of the series of these marks, in order."""
    return list(dict.fromkeys(series.name for series in figure.series if series.mark in marks))


def _tip(alt: Any, field: str, spec: Axis) -> Any:
    return alt.Tooltip(f"{field}:Q", title=spec.title, format=".1%" if spec.percent else ",.4~g")


def _rows(series: Series, figure: Figure, between: bool) -> list[dict[str, Any]]:
    """One row for each point that can be drawn, or with `between` for each interval that can be."""
    if between and (series.low is None or series.mark == "vertical"):
        return []
    rows = []
    for place, x in enumerate(series.x):
        row: dict[str, Any] = {"name": series.name, "order": place, "x": float(x)}
        if between:
            assert series.low is not None
            assert series.high is not None
            row |= {"low": float(series.low[place]), "high": float(series.high[place])}
        elif series.mark != "vertical":
            row["y"] = float(series.y[place])
        numbers = [value for key, value in row.items() if key not in ("name", "order")]
        drawable = all(map(math.isfinite, numbers)) and (not figure.x.log or row["x"] > 0)
        if drawable and (not figure.y.log or all(row.get(key, 1) > 0 for key in ("y", "low", "high"))):
            rows.append(row)
    return rows
