"""Figures: what is drawn is what was given, readable without colour, the same every time, and without a network."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from outthink.errors import UsageError
from outthink.reports.figures import SUFFIXES, Axis, Figure, Series, chart, check, save


def figure(*series: Series, log: bool = False) -> Figure:
    return Figure(
        title="Coverage of a pool",
        x=Axis(title="samples per problem", log=log),
        y=Axis(title="coverage (% of problems)", percent=True),
        series=series,
    )


EVERYTHING = figure(
    Series(name="law", x=[1, 2, 4], y=[0.2, 0.3, 0.4], low=[0.1, 0.2, 0.3], high=[0.3, 0.4, 0.5]),
    Series(name="pool.jsonl", x=[1, 2], y=[0.25, 0.35], low=[0.2, 0.3], high=[0.3, 0.4], mark="points"),
    Series(name="frontier", x=[1, 3], y=[0.1, 0.5], mark="steps"),
    Series(name="saturates", x=[3.5], mark="vertical"),
)


def drawn(shown: Figure) -> list[dict[str, Any]]:
    """Every row of data in the chart, with the mark that draws it."""
    rows: list[dict[str, Any]] = []

    def visit(part: dict[str, Any], data: dict[str, Any]) -> None:
        data = part.get("data", data)
        for one in part.get("layer", ()):
            visit(one, data)
        if "mark" in part:
            rows.extend({**row, "mark": part["mark"]["type"]} for row in data["values"])

    visit(json.loads(chart(shown).to_json()), {})
    return rows


def scales(shown: Figure) -> dict[str, dict[str, Any]]:
    """What each channel gives to each name; every layer must say the same."""
    channels: dict[str, dict[str, Any]] = {}

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            for channel, how in part.items():
                if isinstance(how, dict) and how.get("field") == "name" and "scale" in how:
                    given = dict(zip(how["scale"]["domain"], map(str, how["scale"]["range"]), strict=True))
                    assert channels.setdefault(channel, given) == given
                visit(how)
        elif isinstance(part, list):
            for one in part:
                visit(one)

    visit(json.loads(chart(shown).to_json()))
    return channels


def test_svg_says_what_is_drawn(tmp_path: Path) -> None:
    save(EVERYTHING, tmp_path / "a.svg")
    said = " ".join(
        "".join(element.itertext())
        for element in ElementTree.parse(tmp_path / "a.svg").iter()
        if element.tag.endswith("text")
    )
    for words in ("Coverage of a pool", "samples per problem", "coverage (% of problems)", "30%"):
        assert words in said
    for name in ("law", "pool.jsonl", "frontier", "saturates"):
        assert re.search(rf"\b{re.escape(name)}\b", said), f"{name} is not in the legend"


def test_png_is_one(tmp_path: Path) -> None:
    save(EVERYTHING, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_pdf_is_one_with_its_fonts(tmp_path: Path) -> None:
    save(EVERYTHING, tmp_path / "a.pdf")
    written = (tmp_path / "a.pdf").read_bytes()
    assert written.startswith(b"%PDF-")
    assert b"/FontFile" in written or b"/ObjStm" in written


def test_html_holds_its_scripts(tmp_path: Path) -> None:
    save(EVERYTHING, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "pool.jsonl" in page
    assert len(page) > 200_000, "the scripts that draw it are not there"
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    assert "script" in [tag for tag, _ in tags]
    for tag, attributes in tags:
        assert not {"src", "href"} & set(attributes), f"{tag} needs a network"


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".pdf"])
def test_the_same_figure_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(EVERYTHING, tmp_path / (name + suffix))
    assert (tmp_path / ("a" + suffix)).read_bytes() == (tmp_path / ("b" + suffix)).read_bytes()


def test_every_point_and_interval_is_drawn_once() -> None:
    rows = drawn(EVERYTHING)
    kinds = [(row["mark"], row["name"]) for row in rows]
    assert kinds.count(("line", "law")) == kinds.count(("area", "law")) == 3
    assert kinds.count(("point", "pool.jsonl")) == kinds.count(("rule", "pool.jsonl")) == 2
    assert kinds.count(("line", "frontier")) == 2
    assert kinds.count(("rule", "saturates")) == 1
    assert len(kinds) == 3 + 3 + 2 + 2 + 2 + 1
    assert [row["y"] for row in rows if row["mark"] == "point"] == [0.25, 0.35]


def test_what_cannot_be_drawn_is_left_out() -> None:
    broken = Series(name="a", x=[0, 1, 2, 3], y=[0.5, math.nan, math.inf, 0.25], mark="points")
    assert [row["x"] for row in drawn(figure(broken))] == [0, 3]
    assert [row["x"] for row in drawn(figure(broken, log=True))] == [3]
    half = Series(name="a", x=[1, 2], y=[0.5, 0.5], low=[math.nan, 0.4], high=[0.6, 0.6], mark="points")
    assert [(row["mark"], row["x"]) for row in drawn(figure(half))] == [("rule", 2), ("point", 1), ("point", 2)]
    with pytest.raises(ValueError, match="at least one point"):
        chart(figure(Series(name="a", x=[0], y=[1]), log=True))


def test_names_differ_by_more_than_colour() -> None:
    names = [str(place) for place in range(12)]
    lines = scales(figure(*(Series(name=name, x=[1, 2], y=[0, 1]) for name in names)))
    points = scales(figure(*(Series(name=name, x=[1], y=[0], mark="points") for name in names)))
    for channels, channel in ((lines, "strokeDash"), (points, "shape")):
        assert len(set(channels["color"].values())) == 7
        assert len(set(channels[channel].values())) == 6
        assert len({(channels["color"][name], channels[channel][name]) for name in names}) == len(names)


def test_a_name_looks_the_same_as_curve_and_as_points() -> None:
    both = scales(figure(Series(name="a", x=[1], y=[1]), Series(name="b", x=[1], y=[1], mark="points")))
    assert set(both) == {"color", "strokeDash", "shape"}


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x and 1 other"):
        Series(name="a", x=[1, 2], y=[1])
    with pytest.raises(ValueError, match="one end"):
        Series(name="a", x=[1], y=[1], low=[0])
    with pytest.raises(ValueError, match="1 x and 2 other"):
        Series(name="a", x=[1], y=[1], low=[0, 0], high=[1, 1])


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.eps", r"ends in \.svg, \.png, \.pdf or \.html"), ("a", "ends in"), ("none/a.svg", "a folder that exists")],
)
def test_where_no_figure_can_be_written(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        check(tmp_path / name)


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_a_missing_extra_is_one_sentence(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"^Figures need more packages: pip install 'outthink\[figures\]'\.$"):
        save(EVERYTHING, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_describing_a_figure_needs_no_extra() -> None:
    code = "import sys, outthink.reports.figures, outthink.laws.frontier; print('altair' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
