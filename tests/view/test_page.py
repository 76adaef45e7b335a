"""The page in a real browser: what people see, what they click, and that what models wrote stays text."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.models.engine import Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, Store
from outthink.server.keys import Keys, make_key
from outthink.strategies import STRATEGIES
from outthink.strategies.making import make_strategy, strategy_data
from outthink.types import Problem, Sampling, Trace
from outthink.types import path as segments
from outthink.view.live import LiveProblem, LiveRun
from outthink.view.mailed import mailed
from outthink.view.pages import POLICY, Viewer, viewing
from outthink.view.recordings import Shelf
from tests.tools.browser import browser, in_thread, needs_browser, page_on, served
from tests.tools.every import given, small, stepper
from tests.tools.recorded import examples, trace_of, tree_of, write_lines, write_results, write_run
from tests.tools.toys import problem
from tests.tools.virtual import run

HOSTILE = [
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<!--<script>window.pwned=1",
    '<img src="https://evil.example/x" onerror="window.pwned=1">',
    '<svg onload="window.pwned=1"><animate onbegin="window.pwned=1" attributeName="x"/></svg>',
    '<svg><use href="data:image/svg+xml,<svg id=x onload=window.pwned=1>#x"/></svg>',
    '<math><mtext><table><mglyph><style><img src=x onerror="window.pwned=1">',
    '<iframe srcdoc="<script>parent.pwned=1</script>"></iframe><object data="javascript:window.pwned=1"></object>',
    '<a href="javascript:window.pwned=1">click</a> <a href="data:text/html,<script>1</script>">me</a>',
    "[click](javascript:window.pwned=1) <https://evil.example> https://evil.example file:///etc/passwd",
    '<style>body{display:none}</style><link rel="stylesheet" href="https://evil.example/x.css">',
    '<base href="https://evil.example/"><meta http-equiv="refresh" content="0;url=https://evil.example/">',
    '<form action="https://evil.example"><input autofocus onfocus="window.pwned=1"></form>',
    r"$\href{javascript:window.pwned=1}{x}$ and $\url{javascript:window.pwned=1}$",
    r"$\includegraphics[height=1em]{https://evil.example/x.png}$",
    r"\[\htmlStyle{position:fixed;inset:0}{x} \htmlData{on=1}{y} \htmlClass{skip}{z} \htmlId{app}{w}\]",
    r"$\text{<img src=x onerror=window.pwned=1>}$ and $\unicode{x3c}script\unicode{x3e}$",
    r"$\def\a{\a\a}\a$ $\rule{99999em}{99999em}$ $" + r"\frac{1}{" * 200 + "$",
    "```html\n<img src=x onerror=window.pwned=1><script>window.pwned=1</script>\n```",
    '```"><img src=x onerror=window.pwned=1>\ncode\n```',
    "```python\nprint('<b onclick=\"window.pwned=1\">')  # </code></pre><script>window.pwned=1</script>\n```",
    "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1}",
    "\x00\x1b]0;title\x07\u202e\u2028\ud7ff",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that differ, a search, a pool, and files that are damaged or not ours."""
    folder = tmp_path_factory.mktemp("recorded")
    write_run(folder / "one", "self_consistency?n=3", right=0.4)
    write_run(folder / "two", "best_of_n?n=2", right=0.3, verifier="confidence")
    write_results(folder / "search", [Result(problem="tree", credit=1.0, trace=replace(tree_of(500), problem="tree"))])
    write_lines(
        folder / "pool.jsonl",
        [
            {
                "id": "q1",
                "question": r"What is $\frac{4}{2}$?",
                "answer": "2",
                "samples": [
                    {"text": "It is 2.", "answer": "2", "key": "2", "correct": True, "tokens": 4, "ends": [2, 5, 7, 8],
                     "logprobs": [-0.01, -0.2, -2.5, -0.1]},
                    {"text": "It is 3.", "answer": "3", "key": "3", "correct": False, "tokens": 4, "logprobs": [-1.0]},
                ],
            }
        ],
    )  # fmt: skip
    hostile = trace_of(
        HOSTILE[0],
        HOSTILE,
        answer=HOSTILE[3],
        notes=HOSTILE[:2],
        question="\n\n".join(HOSTILE),
    )
    write_results(
        folder / "hostile",
        [Result(problem=HOSTILE[0], credit=0.0, error=HOSTILE[1], trace=hostile)],
        models={"model": HOSTILE[3]},
        task=HOSTILE[4],
    )
    (folder / "foreign.jsonl").write_text('{"name": "no record"}\n', encoding="utf-8")
    write_results(
        folder / "broken", [Result(problem=f"p{n}", credit=1.0, trace=trace_of(f"p{n}", ["1"])) for n in "abc"]
    )
    results = folder / "broken" / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(lines[0] + b'{"problem": "pb", "cre\n' + lines[2] + b'{"problem": "unfin')
    return folder


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but for what is damaged, as one file."""
    path = tmp_path_factory.mktemp("mailed") / "report.html"
    shelf = Shelf([folder / name for name in ("one", "two", "search", "hostile", "pool.jsonl")])
    path.write_text(mailed(shelf.recordings, made=f"Made today. {HOSTILE[1]}"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(folder: Path, report: Path, trees: Any) -> Iterator[Any]:
    needs_browser()
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(folder: Path, opened: Any) -> Iterator[str]:
    with served([folder]) as at:
        yield at


def number(page: Any, address: str, name: str) -> int:
    """Of a recording, by the end of its name."""
    sources = page.request.get(f"{address}api/sources").json()["sources"]
    return next(place for place, source in enumerate(sources) if source["name"].endswith(name))


def test_a_run_is_opened_filtered_and_a_problem_is_read(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        page.goto(address)
        page.get_by_role("link", name=re.compile(r"\bone$")).click()
        page.get_by_text("8 of 8 problems").wait_for()
        page.get_by_label("Result").select_option("wrong")
        page.get_by_text(re.compile("^[1-7] of 8 problems")).wait_for()
        assert page.locator("tbody .verdict.right").count() == 0
        assert page.locator("tbody .verdict.wrong").count() > 0
        page.locator("tbody a").first.click()
        page.get_by_role("heading", name="Rounds").wait_for()
        assert "wrong" in page.locator(".facts").first.inner_text()
        assert page.locator(".bars tbody tr").count() >= 1
        node = page.locator(".node").last
        assert "by rule" in node.inner_text()
        assert re.search(r"its call, ×3\s+\d+ tokens", node.inner_text())
        assert "mark" in node.inner_text()
        assert page.locator(".node .katex").count() == 1  # its formula
        page.get_by_role("tab", name="What was sent").click()
        assert re.search(r"What is \d \+ 1\?", page.get_by_role("tabpanel").inner_text())
        wrong = page.get_by_text(re.compile(r"^1 of \d$"))
        wrong.wait_for()
        page.keyboard.press("j")  # the next of those that were asked for
        page.get_by_text(re.compile(r"^2 of \d$")).wait_for()
        page.get_by_text("wrong").first.wait_for()
        page.get_by_role("link", name="previous").click()
        wrong.wait_for()
        page.keyboard.press("u")
        page.get_by_text(re.compile("^[1-7] of 8 problems")).wait_for()


def test_filters_are_those_of_the_records(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        page.goto(address)
        one, two = number(page, address, "one"), number(page, address, "two")
        asked = page.request.get(f"{address}api/rows?source={one}&differs={two}").json()
        both = [
            {row["problem"]: row["credit"] for row in page.request.get(f"{address}api/rows?source={n}").json()["rows"]}
            for n in (one, two)
        ]
        assert {row["problem"] for row in asked["rows"]} == {name for name in both[0] if both[0][name] != both[1][name]}
        assert all(row["other"]["credit"] != row["credit"] for row in asked["rows"])
        page.goto(f"{address}#/r/{one}?differs={two}&order=tokens&down=1")
        page.get_by_text(f"{asked['total']} of 8 problems").wait_for()
        costs = [int(text) for text in page.locator("tbody td[data-label=tokens]").all_inner_texts()]
        assert len(costs) == asked["total"] > 0
        assert costs == sorted(costs, reverse=True)


def test_a_search_is_drawn_walked_through_and_replayed(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        page.goto(address)
        page.get_by_role("link", name=re.compile(r"\bsearch$")).click()
        page.get_by_role("link", name="tree").click()
        page.get_by_text("500 candidates").wait_for()
        shown = page.locator(".tree .node")
        page.get_by_role("button", name="Fit").click()
        page.locator(".tree.small").wait_for()  # too small for labels
        assert shown.count() < 500  # what was not taken further is folded
        page.get_by_role("button", name="Unfold").click()
        page.get_by_role("button", name="Fit").click()
        page.locator(".tree.small").wait_for()
        page.wait_for_function("document.querySelectorAll('.tree .node').length === 501")  # with the question
        assert page.locator(".tree .edge.chosen").get_attribute("d").count("M") > 2
        page.evaluate("document.getElementById('n:model/0/0').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
        for _ in range(12):
            page.get_by_role("button", name="Zoom in").click()
        page.locator(".tree:not(.small)").wait_for()
        assert 1 < shown.count() < 300  # what is in sight
        page.get_by_role("heading", name="model/0/0").wait_for()
        page.locator(".tree").focus()
        page.keyboard.press("ArrowRight")  # its first child
        page.get_by_role("heading", name="model/1/0").wait_for()
        assert "score 0.37 (prm)" in page.locator("section.node dl").inner_text().replace("\n", " ")
        page.keyboard.press("Space")
        assert page.locator("[id='n:model/1/0']").get_attribute("aria-expanded") == "false"
        last = page.get_by_text("round 6 of 6")
        last.wait_for()
        kept = page.locator(".tree .node:not(.dimmed)").count()
        page.get_by_label("Round", exact=True).fill("0")
        page.get_by_text("round 1 of 6").wait_for()
        assert page.locator(".tree .node:not(.dimmed)").count() < kept
        page.get_by_label("Colour by").select_option("rounds")
        page.locator(".legend", has_text="score 0").wait_for()


def test_runs_are_compared(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        page.goto(address)
        one, two = number(page, address, "one"), number(page, address, "two")
        page.goto(f"{address}#/compare?s={one},{two}&a={two}&b={one}")
        told = page.request.get(f"{address}api/compare?sources={one},{two}").json()
        (pair,) = told["pairs"]
        page.get_by_text(f"{pair['difference'][0] * -100:+.1f} points").wait_for()
        page.get_by_text(f"p = {pair['p']:.3f}").wait_for()
        for unit in ("tokens", "seconds", "usd"):
            page.locator("label.inline select").select_option(unit)
            page.locator(".chart .frontier").wait_for(state="attached")
        assert page.locator(".chart .point").count() == 2
        page.locator(".problems a").first.click()
        page.get_by_role("heading", name="Candidates").wait_for()


def test_tokens_are_shaded_where_their_ends_are_known(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        page.goto(f"{address}#/r/{number(page, address, 'pool')}/p/0")
        page.locator(".question, .message .katex").first.wait_for()
        page.locator("[id='n:sample/0']").click()
        page.get_by_text("right", exact=False).first.wait_for()
        page.get_by_role("tab", name="Tokens").click()
        spans = page.locator(".shaded span")
        assert spans.all_inner_texts() == ["It", " is", " 2", "."]
        assert spans.nth(2).get_attribute("class") == "lp0"
        assert "probability 0.990" in (spans.nth(0).get_attribute("title") or "")


def test_files_that_are_damaged_or_foreign_say_so_and_all_else_works(opened: Any, address: str) -> None:
    with page_on(opened, width=390, allowed="404 (Not Found)") as page:
        page.goto(address)
        page.get_by_text("holds neither results, nor traces, nor a pool").wait_for()
        page.get_by_text("The last line is unfinished").wait_for()
        page.get_by_text("Lines that cannot be read: 1, the first one is line 2").wait_for()
        assert page.locator("tr", has_text="broken").locator(".state").inner_text() == "damaged"
        page.get_by_role("status").get_by_text("up to date").wait_for()
        page.get_by_role("link", name=re.compile(r"\bbroken$")).click()
        page.get_by_text("This line is damaged").wait_for()
        page.get_by_role("link", name="pc").click()
        page.get_by_role("heading", name="Candidates").wait_for()
        page.goto(f"{address}#/r/{number(page, address, 'broken')}/p/1")
        page.get_by_text("This line is damaged").wait_for()


def visited(page: Any, start: str) -> None:
    """All that the page shows of the hostile run, looked at in every way."""
    page.goto(start)
    page.get_by_role("link", name=re.compile(r"\bhostile$")).click()
    page.get_by_text("Summary and method").click()
    page.get_by_text("How answers were read").wait_for()
    page.get_by_text("Settings").click()
    page.locator("tbody a").first.click()
    page.get_by_role("heading", name="Candidates").wait_for()
    for fold in page.get_by_role("button", name=re.compile("^Show all")).all():
        fold.click()
    for place in range(len(HOSTILE)):
        page.evaluate(
            "id => document.getElementById(id).dispatchEvent(new MouseEvent('click', {bubbles: true}))",
            f"n:model/0/{place}",
        )
        page.get_by_role("heading", name=f"model/0/{place}", exact=False).first.wait_for()
        assert page.locator(".node .text").count() > 0
    page.get_by_role("tab", name="As written").click()
    assert page.locator("section.node .text").last.inner_text().strip()
    page.get_by_role("tab", name="What was sent").click()
    page.locator(".call summary").first.click()
    page.locator(".call .message").first.wait_for()


def harmless(page: Any) -> None:
    assert page.evaluate("window.pwned") is None
    assert "\u202e" not in page.content(), "nothing reverses what stands around it"
    links = page.evaluate("[...document.querySelectorAll('a:not(.skip)')].map(a => a.getAttribute('href'))")
    assert all(href.startswith("#/") for href in links)
    forbidden = (
        "#app :is(script, iframe, object, embed, img, image, style, link, base, meta, use, video, audio, animate)"
    )
    assert page.evaluate(f"document.querySelectorAll('{forbidden}').length") == 0
    handlers = (
        "[...document.querySelectorAll('#app *')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    )
    assert page.evaluate(handlers) == []
    fixed = "[...document.querySelectorAll('main *')].filter(e => getComputedStyle(e).position === 'fixed').length"
    assert page.evaluate(fixed) == 0


def test_what_models_wrote_stays_text(opened: Any, address: str) -> None:
    with page_on(opened) as page:
        visited(page, address)
        harmless(page)
        assert "<script>window.pwned=1</script>" in page.locator("h1").inner_text()


def test_what_models_wrote_stays_text_in_the_mailed_file(opened: Any, report: Path) -> None:
    with page_on(opened) as page:
        visited(page, report.as_uri())
        harmless(page)


ATTEMPTS = {
    "markup": "document.body.innerHTML = '<img src=x onerror=window.pwned=1>'",
    "handler": "document.createElement('img').setAttribute('onerror', 'window.pwned=1')",
    "text as code": "setTimeout('window.pwned=1')",
    "script": "const s = document.createElement('script'); s.append('window.pwned=1'); document.body.append(s)",
    "connection": "await fetch('https://evil.example/')",
    "image": "const i = new Image(); i.src = 'https://evil.example/x.png'; await i.decode()",
    "style": "const s = document.createElement('style'); s.append('body{color:rgb(1,2,3)}'); document.head.append(s);"
    " if (getComputedStyle(document.body).color !== 'rgb(1, 2, 3)') throw 1",
    "frame": "const f = document.createElement('iframe'); f.src = location.href; document.body.append(f);"
    " await new Promise((yes, no) => { document.addEventListener('securitypolicyviolation', no); f.onload = () => {"
    " try { f.contentDocument.title ? yes() : no() } catch { no() } } })",
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
@pytest.mark.parametrize("mailed_file", [False, True])
def test_the_policy_forbids_the_rest(opened: Any, address: str, report: Path, attempt: str, mailed_file: bool) -> None:
    """Even if something of it became markup or code."""
    page = opened.new_page()
    page.goto(report.as_uri() if mailed_file else address)
    page.locator("main h1").wait_for()
    told = page.evaluate(f"(async () => {{ try {{ {attempt}; return 'done' }} catch {{ return 'refused' }} }})()")
    assert told == "refused" or "script" in attempt
    assert page.evaluate("new Promise(done => setTimeout(() => done(window.pwned ?? null), 50))") is None
    page.close()


def test_every_reply_carries_the_policy(address: str) -> None:
    for path in (
        "",
        "static/app.js",
        "static/../pages.py",
        "static/none.js",
        "api/sources",
        "api/problem?source=99&line=0",
    ):
        try:
            reply = urllib.request.urlopen(address + path)
        except urllib.error.HTTPError as refused:
            reply = refused
        with reply:
            assert reply.headers["Content-Security-Policy"] == POLICY
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            assert "pages.py" not in path or reply.status == 404


def test_another_name_is_refused(address: str) -> None:
    """So that a page from elsewhere cannot read it under a name of its own."""
    asked = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="421") as refused:
        urllib.request.urlopen(asked)
    refused.value.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_cut_off_and_everything_has_contrast_and_a_name(
    opened: Any, address: str, width: int, scheme: str
) -> None:
    with page_on(opened, width=width, scheme=scheme) as page:
        page.goto(address)
        search, one = number(page, address, "search"), number(page, address, "one")
        for part in ("", f"#/r/{one}", f"#/r/{one}/p/0", f"#/r/{search}/p/0", f"#/compare?s={one},{search}"):
            page.goto(address + part)
            page.locator("main h1").wait_for()
            page.wait_for_function("!document.querySelector('.wait')")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate(PALE) == []


NAMELESS = """[...document.querySelectorAll('button, a, input, select, svg[role], [role=tree]')]
  .filter(e => !(e.getAttribute('aria-label') || e.closest('label')?.textContent.trim() || e.textContent.trim()))
  .map(e => e.outerHTML)"""

PALE = """(() => {
  const parsed = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, place) => sum + v * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parsed(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const pale = [];
  const shown = 'main :is(p, td, th, a, h1, h2, h3, button, dt, dd, label, summary)';
  for (const element of document.querySelectorAll(shown)) {
    if (!element.textContent.trim() || element.closest('svg, .faint, .hidden')) continue;
    const style = getComputedStyle(element);
    if (!style.color.startsWith('rgb')) continue;
    const [a, b] = [light(parsed(style.color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) pale.push(element.outerHTML.slice(0, 100));
  }
  return pale;
})()"""


def test_a_run_that_is_being_written_is_followed(opened: Any, tmp_path: Path) -> None:
    settings = {"task": "own", "strategy": {"name": "greedy"}, "seed": 0, "shard": None, "problems": ["a", "b", "c"]}
    with Store(tmp_path / "run", settings) as store:
        store.record(Result(problem="a", credit=1.0, trace=trace_of("a", ["1"])))
        with served([tmp_path]) as address, page_on(opened) as page:
            page.goto(address)
            page.get_by_text("1 of 3").wait_for()
            page.get_by_role("status").get_by_text("being written").wait_for()
            page.goto(f"{address}#/r/0")
            page.get_by_text("1 of 1 problems").wait_for()
            store.record(Result(problem="b", credit=0.0, trace=trace_of("b", ["2"])))
            page.get_by_text("2 of 2 problems").wait_for()
            store.record(Result(problem="c", credit=0.0, trace=trace_of("c", ["2"])))
            page.get_by_text("3 of 3 problems").wait_for()
            page.get_by_text("up to date").wait_for()
            assert page.locator("tbody .verdict.wrong").count() == 2


BUILDING = [name for name, home in STRATEGIES.items() if not home.startswith("outthink.strategies.parallel")]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Trace]]:
    """A run with the tree of every strategy that builds answers on others; its traces by strategy."""
    traces = {}
    for name in BUILDING:
        engine = ScriptedEngine(stepper)
        parts: dict[str, Any] = {"verifier": "confidence", "prm": "confidence", **given()}
        sampling = Sampling(max_tokens=200)
        traces[name] = run(
            solve_async(problem(name), make_strategy(name, small(name)), model=engine, sampling=sampling, **parts)
        )
    results = [Result(problem=name, credit=1.0, trace=replace(trace, problem=name)) for name, trace in traces.items()]
    return write_results(tmp_path_factory.mktemp("trees") / "trees", results), traces


def test_the_tree_of_every_strategy_is_drawn_as_it_was(opened: Any, trees: tuple[Path, dict[str, Trace]]) -> None:
    """Each candidate once, every edge to a first and to a further parent, the chosen path, and what was given up."""
    folder, traces = trees
    assert len(BUILDING) > 15
    several = 0
    with served([folder]) as address, page_on(opened) as page:
        for line, (name, trace) in enumerate(traces.items()):
            page.goto(f"{address}#/r/0/p/{line}")
            page.get_by_role("heading", name=name, exact=True).wait_for()
            page.get_by_text(f"{len(trace.candidates)} candidate").wait_for()
            page.get_by_role("button", name="Unfold").click()
            while page.locator(".tree [aria-expanded=false]").count():  # gathered leaves
                page.locator(".tree [aria-expanded=false]").first.dispatch_event("click")
            drawn = page.evaluate("[...document.querySelectorAll('.tree .node')].map(node => node.id.slice(2))")
            there = {one.id: one for one in trace.candidates}
            assert sorted(one for one in drawn if one in there) == sorted(there), name
            edges = page.evaluate(
                "kind => [...document.querySelectorAll(`.tree .edge${kind}`)]"
                ".reduce((sum, path) => sum + path.getAttribute('d').split('M').length - 1, 0)",
                ":not(.further)",
            )
            assert edges == len(drawn) - 1, name  # a tree
            known = [[parent for parent in one.parents if parent in there] for one in there.values()]
            further = sum(max(len(parents) - 1, 0) for parents in known)
            several += further
            further_drawn = page.evaluate(
                "[...document.querySelectorAll('.tree .edge.further')]"
                ".reduce((sum, path) => sum + path.getAttribute('d').split('M').length - 1, 0)"
            )
            assert further_drawn == further, name
            chosen = trace.rounds[-1].chosen
            way = [] if chosen is None else [one.id for one in segments(there[chosen], there)]
            marked = page.evaluate("[...document.querySelectorAll('.tree .node.chosen')].map(node => node.id.slice(2))")
            assert sorted(marked) == sorted(way), name
            kept = {*trace.rounds[-1].candidates, *way}
            waiting = list(kept)
            while waiting:
                for parent in there[waiting.pop()].parents:
                    if parent in there and parent not in kept:
                        kept.add(parent)
                        waiting.append(parent)
            dimmed = page.locator(".tree .node.dimmed").count()
            assert dimmed == len(there.keys() - kept), name
    assert several > 0


class Gated(ScriptedEngine):
    """Writes the first sample at once, and further ones when it is let."""

    def __init__(self) -> None:
        super().__init__(lambda request, child, rng: "So it is\n#### 2")
        self.gate = threading.Event()

    async def generate(self, request: Request, progress: Progress) -> None:
        if request.child:
            await asyncio.to_thread(self.gate.wait, 30)
        await super().generate(request, progress)


def test_a_problem_is_followed_while_it_is_solved(opened: Any) -> None:
    engine, strategy = Gated(), make_strategy("adaptive_consistency")
    asked: Problem = problem("live", "What is 1 + 1?")
    live = LiveProblem(asked, strategy_data(strategy), Sampling(), 0, {"model": "scripted"})

    def solved() -> None:
        live.finish(asyncio.run(solve_async(asked, strategy, model=engine, watch=live.start)))

    solver = threading.Thread(target=solved)
    with (
        in_thread(lambda: viewing(Viewer(Shelf([], [live]), every=0.05), "127.0.0.1", 0)) as address,
        page_on(opened) as page,
    ):
        solver.start()
        try:
            page.goto(f"{address}#/r/0/p/0")
            page.get_by_text("What is 1 + 1?").first.wait_for()
            page.get_by_text("samples that are being written").wait_for()
            page.get_by_text(re.compile("^being solved$")).first.wait_for()
        finally:
            engine.gate.set()
            solver.join()
        page.get_by_text("ended: finished").wait_for()
        assert "answer: 2" in page.locator(".facts").first.inner_text()
        page.get_by_text("up to date").wait_for()


class Stepwise(ScriptedEngine):
    """Writes three steps and an answer; each step, and every second sample of it, when it is let."""

    def __init__(self) -> None:
        super().__init__(lambda request, child, rng: ["One.\n", "Two.\n", "#### 2"][request.prefix_text.count("\n")])
        self.gate = threading.Semaphore(0)

    async def generate(self, request: Request, progress: Progress) -> None:
        if request.prefix_text:
            await asyncio.to_thread(self.gate.acquire, timeout=30)
        await super().generate(request, progress)


def test_the_tree_of_a_problem_grows_while_its_run_goes_on(opened: Any, tmp_path: Path) -> None:
    engine, strategy = Stepwise(), make_strategy("beam", {"width": 2, "children": 2, "delimiter": "\n"})
    live = LiveRun(strategy_data(strategy), Sampling(), 0, {"model": "scripted"})
    asked = examples(2)

    def work() -> None:
        asyncio.run(
            bench(asked, strategy, store=tmp_path / "run", model=engine, prm="random", watching=live.watching,
                  concurrency=1)
        )  # fmt: skip

    worker = threading.Thread(target=work)
    viewer = in_thread(lambda: viewing(Viewer(Shelf([tmp_path], solving=live), every=0.05), "127.0.0.1", 0))
    worker.start()
    try:
        with viewer as address, page_on(opened) as page:
            page.goto(f"{address}#/r/0")
            page.get_by_role("link", name="p0").click()
            nodes = page.locator(".tree .node")
            page.get_by_text("2 candidates").wait_for()
            assert nodes.count() == 3  # with the question
            engine.gate.release()
            page.get_by_text("being solved").first.wait_for()
            page.get_by_text("4 candidates").wait_for()
            assert nodes.count() > 3
            for _ in range(20):
                engine.gate.release()
            page.get_by_text("ended: finished").wait_for()
    finally:
        for _ in range(20):
            engine.gate.release()
        worker.join()


def test_only_those_with_a_key_see_anything(opened: Any, folder: Path, tmp_path: Path) -> None:
    _, key = make_key(tmp_path / "keys")
    keys = Keys.open(tmp_path / "keys")

    def admit(request: Any) -> bool:
        return keys.bearer(request.headers.getall("Authorization", [])) is not None

    with served([folder / "one"], admit=admit) as address:
        for path in (
            "sources",
            "rows?source=0",
            "problem?source=0&line=0",
            "compare?sources=0",
            "overview?source=0",
            "events",
        ):
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                urllib.request.urlopen(f"{address}api/{path}")
            refused.value.close()
        page = opened.new_page()
        page.goto(address)
        page.get_by_label("Key of this server").fill("ot-wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_label("Key of this server").wait_for()
        page.get_by_label("Key of this server").fill(key)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("link", name=re.compile("one$")).wait_for()
        page.get_by_text("up to date").wait_for()
        page.close()


def test_the_mailed_file_shows_the_same(opened: Any, folder: Path, report: Path) -> None:
    with served([folder / "one", folder / "two"]) as address, page_on(opened, width=390) as page:
        page.goto(report.as_uri())
        page.get_by_text("Made today.").wait_for()
        for query in (
            {"differs": 1}, {"verdict": "wrong", "order": "tokens", "down": 1}, {"least": 60}, {"text": "p3"},
            {"verdict": "right", "order": "credit"}, {"stopped": "finished", "down": 1}, {"verdict": "none"},
        ):  # fmt: skip
            search = "&".join(f"{name}={value}" for name, value in query.items())
            there = page.request.get(f"{address}api/rows?source=0&{search}").json()
            page.goto(f"{report.as_uri()}#/r/0?{search}")
            page.get_by_text(f"{there['total']} of 8 problems").wait_for()
            shown = page.locator("tbody th a").all_inner_texts()
            assert shown == [row["problem"] for row in there["rows"]], query
        rows = page.request.get(f"{address}api/rows?source=0&order=tokens").json()["rows"]
        third = rows[2]["line"]
        page.goto(f"{report.as_uri()}#/r/0/p/{third}?order=tokens")
        page.get_by_text("3 of 8").wait_for()
        beside = [page.get_by_role("link", name=name).get_attribute("href") for name in ("previous", "next")]
        assert beside == [f"#/r/0/p/{rows[n]['line']}?order=tokens" for n in (1, 3)]
        page.goto(f"{report.as_uri()}#/r/0/p/0")
        page.get_by_role("heading", name="Candidates").wait_for()
        page.goto(f"{report.as_uri()}#/compare?s=0,1")
        page.get_by_text("exact sign test").wait_for()
        page.goto(f"{report.as_uri()}#/r/4")
        page.get_by_text("Summary and method").click()
        page.get_by_text("Coverage: some sample of k is right").wait_for()


@contextlib.contextmanager
def command(folder: Path, *words: str) -> Iterator[tuple[str, Any, list[str]]]:
    """A command with --view in a process of its own: where its page is, and what it goes on to tell.

    At the end it hears Ctrl-C, and what it printed is in the list.
    """
    path = os.pathsep.join([str(folder), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-m", "outthink", *words, "--view"], cwd=folder, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        printed: list[str] = []
        try:
            told = next(place for line in process.stderr if (place := re.search(r"http://\S+?/", line)))
            yield told[0], process.stderr, printed
            process.send_signal(signal.SIGINT)
            printed.append(process.stdout.read())
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_solve_can_be_seen_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text(
        "from outthink.models.scripted import ScriptedEngine\n"
        "def Engine(options=None):\n    return ScriptedEngine(lambda request, child, rng: '#### 4')\n",
        encoding="utf-8",
    )
    words = ("solve", "What is 2+2?", "--model", "engine:Engine", "--n", "2", "--json")
    with command(tmp_path, *words) as (address, told, printed):
        assert "It can still be seen" in next(told)
        with urllib.request.urlopen(f"{address}api/problem?source=0&line=0") as reply:
            assert json.load(reply)["answer"] == "4"
    assert json.loads(printed[0])["answer"] == "4"


@pytest.mark.real
def test_a_run_of_a_real_model_is_followed_and_its_search_looked_at(opened: Any, tmp_path: Path) -> None:
    write_lines(tmp_path / "own.jsonl", [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in (2, 5)])
    search = "--strategy beam --width 3 --children 3 --max-step-tokens 6 --prm random"
    words = f"bench own.jsonl --model smollm2-135m-instruct --max-tokens 16 {search}".split()
    with command(tmp_path, *words) as (address, _, _), page_on(opened) as page:
        page.set_default_timeout(60_000)
        page.goto(address)
        page.get_by_role("link", name=re.compile("own-beam")).click()
        page.get_by_text("2 of 2 problems").wait_for()
        page.get_by_text("up to date").wait_for()
        page.locator("tbody th a").first.click()
        page.get_by_role("heading", name="Candidates").wait_for()
        assert page.locator(".tree .node").count() > 4
        page.locator(".tree .node").nth(2).click()
        page.get_by_role("tab", name="What was sent").click()
        assert re.search(r"What is \d \+ 1\?", page.get_by_role("tabpanel").inner_text())
