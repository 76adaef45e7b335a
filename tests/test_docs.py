"""The pages say what is so: their commands parse, their Python runs, their links lead somewhere, and they are short.

- Every `outthink` command of a ```sh or ```console block, and of the scripts beside the tables of results, is parsed by
  the real parser, hyperparameters included. What costs nothing (help, lists) is run, and so is every console example
  whose output is an error: it must be that error.
- Every ```python block stands alone and is run in an empty folder, with a scripted engine in place of every model.
  After `<!-- runs: real model -->` it also runs on SmolLM2-135M, answers cut short, as a test marked `real`; after
  `<!-- not run: REASON -->` it is skipped with that reason.
- What is generated is what the command prints. Files and modules that pages name exist. The house is drawn as it is.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import outthink
from outthink.cli.given import given_kind, given_prices, given_shard, given_strategy
from outthink.cli.program import tree
from outthink.driver import as_budget
from outthink.learn.cascade import fit
from outthink.models import catalog
from outthink.models.engine import Completion, Engine, Price, Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.planner.make import make_plan
from outthink.planner.recordings import read
from outthink.strategies import STRATEGIES
from outthink.strategies.listing import describe, markdown
from tests.cli.test_cli import main, write_pool
from tests.planner.test_plan import calibrated
from tests.test_house import FLOORS
from tests.tools import simulated
from tests.tools.local import genai_or_skip

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
RESULTS = ROOT / "docs" / "results"
SCRIPTS = sorted(RESULTS.glob("*.sh"))
TABLES = sorted(RESULTS.glob("*.csv"))
MOST_WORDS = {"README.md": 900, "CONTRIBUTING.md": 900, "chat-app.md": 500, "compare.md": 500, "run-a-server.md": 500}
MOST_WORDS_IN_ALL = 30_000
SMALL_MODEL = "smollm2-135m-instruct"
CHEAP: tuple[list[str], ...] = (["strategies"], ["models", "list"], ["models"], ["--help"], ["--version"], [])


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    runs: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    block: Block
    words: tuple[str, ...]
    output: str = ""

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").split("\n")
    start: int | None = None
    language = remark = ""
    for number, line in enumerate(lines, 1):
        if line.startswith("```") and start is None:
            start, language = number, line.removeprefix("```").strip()
        elif line.startswith("```"):
            assert start is not None
            yield Block(page, start, language, "\n".join(lines[start : number - 1]) + "\n", remark)
            start, remark = None, ""
        elif start is None and line.strip():
            remark = line.strip().removeprefix("<!--").removesuffix("-->").strip() if line.startswith("<!--") else ""
    assert start is None, f"{page}:{start}: a block is not closed"


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def commands(block: Block) -> Iterator[Command]:
    """The commands that call outthink, with what a console shows below them; pipes and redirections are cut off."""
    shown: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").split("\n"):
        if block.language == "console" and not line.startswith("$ "):
            if shown:
                shown[-1][1].append(line)
        elif line.strip():
            shown.append((line.removeprefix("$ "), []))
    for line, output in shown:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        end = next((place for place, word in enumerate(words) if set(word) <= set("();<>|&")), len(words))
        if words and words[0].rpartition("/")[2] == "outthink":
            yield Command(block, tuple(words[1:end]), "\n".join(output).strip())


SHELL = [block for block in BLOCKS if block.language in ("sh", "console")]
SHELL += [Block(script, 1, "sh", script.read_text(encoding="utf-8"), "") for script in SCRIPTS]
COMMANDS = [command for block in SHELL for command in commands(block)]
FREE = [c for c in COMMANDS if "--help" in c.words or [w for w in c.words if w != "--json"] in CHEAP]
ERRORS = [command for command in COMMANDS if command.output.startswith("outthink: ")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that commands on the pages make and others on them read."""
    folder = tmp_path_factory.mktemp("made")
    drafts = simulated.pool(folder / "pool.jsonl", 24, 4, model="smollm2-135m-instruct")
    plan, _ = make_plan(read([drafts], orders=4), folds=2, budgets=[80, 160])
    (folder / "plan.json").write_text(plan.to_json())
    (folder / "cascade.json").write_text(fit(drafts, signal="agreement", n=4).calibration.text())
    calibrated(folder / "calibration.json", "qwen2.5-coder-0.5b-instruct")
    return folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("plan.json", "cascade.json", "calibration.json"):
        shutil.copy(made / file, tmp_path)
    shutil.copy(made / "plan.json", tmp_path / "plan-gym.json")
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.delenv("OUTTHINK_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)  # nothing is fetched


def test_there_is_something_to_test() -> None:
    assert len(COMMANDS) > 10
    assert len(PYTHON) > 5
    assert FREE
    assert ERRORS


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_commands_parse(command: Command) -> None:
    group = tree()
    words, context = list(command.words), None
    while hasattr(group, "commands"):
        if not words or words[0].startswith("-"):
            group.make_context("outthink", words, parent=context, resilient_parsing=True)
            return
        assert words[0] in group.commands, f"there is no command {words[0]}"
        context = group.make_context("outthink", words[:], parent=context)
        group = group.commands[words.pop(0)]
    if "--help" in words:
        return
    with group.make_context(group.name, words, parent=context) as own:
        given = own.params
        if "strategy" in given:
            given_strategy(given["strategy"], own)
        else:
            assert not own.args
        as_budget(given.get("budget"))
        given_prices(given.get("price"))
        given_kind(given.get("answer"))
        given_shard(given.get("shard"))
        if (given.get("model") or "").endswith(("instruct", "base")):
            assert given["model"] in catalog.entries()


@pytest.mark.parametrize("command", FREE, ids=str)
def test_what_costs_nothing_runs(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = main(command.words, capsys, monkeypatch)
    assert (result.code, result.err) == (0, "")
    assert result.out


@pytest.mark.parametrize("command", ERRORS, ids=str)
def test_errors_are_worded_as_shown(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pool(Path("pool.jsonl"))
    result = main(command.words, capsys, monkeypatch)
    assert result.code != 0
    assert result.err.strip() == command.output


def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
    """Solves "2+2" and all else in three steps; a judge is rather sure."""
    if request.labels:
        return Completion(text=request.labels[0], tokens=len(request.labels), labels=(-0.1, -2.4))
    steps = ["Two and two.\n\n", "That is 4.\n\n", f"#### {4 if rng.random() < 0.8 else 5}"]
    return "".join(steps[request.prefix_text.count("\n\n") :])


def scripted(name: str, *, price: Price | None = None) -> Engine:
    assert name in catalog.entries()
    return ScriptedEngine(reply, name=name, price=price)


def run_block(block: Block, opener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"open_engine", "solve"} <= {name for name in outthink.__all__ if getattr(outthink, name)}  # all loaded
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "outthink" and "open_engine" in vars(module):
            monkeypatch.setattr(module, "open_engine", opener)
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
    module = ModuleType("block")
    monkeypatch.setitem(sys.modules, "block", module)  # where dataclasses look for their annotations
    exec(code, vars(module))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, _, reason = block.runs.partition(":")
    if kind == "not run":
        assert reason.strip(), f"{block}: say why it is not run"
        pytest.skip(f"{block}: {reason.strip()}")
    if block.runs:
        assert block.runs == "runs: real model", f"{block}: cannot read the comment {block.runs!r}"
    run_block(block, scripted, monkeypatch)  # also those for a real model: it costs nothing


@pytest.mark.real
@pytest.mark.parametrize("block", [block for block in PYTHON if block.runs == "runs: real model"], ids=str)
def test_python_runs_on_a_real_model(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    genai_or_skip()
    from outthink.models.openvino.engine import OpenVINOEngine

    class Brief(OpenVINOEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            await super().generate(replace(request, max_tokens=min(request.max_tokens, 32)), progress)

    path = catalog.pull(SMALL_MODEL, announce=print)
    opened: list[Engine] = []

    def small(name: str, *, price: Price | None = None) -> Engine:
        assert name in catalog.entries()
        opened.append(Brief(path, name=SMALL_MODEL, price=price))
        return opened[-1]

    try:
        run_block(block, small, monkeypatch)
        assert opened
    finally:
        for engine in opened:
            asyncio.run(engine.close())


def test_the_way_to_a_figure_and_a_table_leads_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own files and commands, at most six, with a scripted model in place of the real one."""
    page = ROOT / "docs" / "paper.md"
    files = dict(zip(("json", "toml"), re.findall(r"`([\w.]+)`", page.read_text("utf-8")), strict=False))
    here = {block.language: block for block in blocks(page)}
    for language, file in files.items():
        Path(file).write_text(here[language].text, encoding="utf-8")
    monkeypatch.setattr("outthink.models.open_engine", scripted)
    monkeypatch.setattr("outthink.models.check_model", lambda name: None)  # the machine need not have it
    given = list(commands(here["sh"]))
    assert len(given) <= 6
    for command in given:
        words = [
            name for word in command.words for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        result = main(words, capsys, monkeypatch)
        assert result.code == 0, f"{command}: {result.err}"
        assert result.out, command
    for figure in ("curves.pdf", "study.pdf"):
        assert Path(figure).read_bytes().startswith(b"%PDF")
    table = Path("study.tex").read_text(encoding="utf-8")
    assert table.count(r"x 3 seeds") == 5
    assert [table.count(word) for word in (r"\toprule", r"\bottomrule", "difference")] == [1, 1, 1]
    pytest.importorskip("polars")
    exec(here["python"].text, {})
    assert "self_consistency" in capsys.readouterr().out


def test_strategies_page_holds_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = main(("strategies", "--markdown"), capsys, monkeypatch)
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- made by: outthink strategies --markdown -->\n\n")
    held, end, _ = rest.partition("\n<!-- end -->\n")
    assert end
    assert printed.out == markdown()
    assert held.splitlines() == printed.out.splitlines(), "paste what `outthink strategies --markdown` prints"


def test_tables_list_every_strategy_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\|$", markdown(), re.MULTILINE)
    assert sorted(rows) == sorted(STRATEGIES)


@pytest.mark.parametrize("entry", describe(), ids=lambda entry: entry["name"])
def test_every_strategy_says_when_it_pays(entry: dict[str, Any]) -> None:
    assert 5 <= len(entry["pays"].split()) <= 60, f"{entry['name']}: a line `Pays:` in the docstring of its module"
    assert entry["pays"].endswith(".")
    assert "Pays:" not in entry["source"] + entry["summary"]
    for page in re.findall(r"docs/[\w/]+\.md", entry["pays"]):
        assert entry["name"] in (ROOT / page).read_text(encoding="utf-8"), f"{page} says nothing of it"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_takes_from_the_tests(path: Path) -> None:
    """They are started as `python benchmarks/NAME.py`, which does not look into the folder above."""
    text = path.read_text(encoding="utf-8")
    taken = text.find("from tests.")
    assert taken < 0 or 0 <= text.find("sys.path.insert(0, str(Path(__file__).parents[1]))") < taken


def test_pages_are_short() -> None:
    # what a command prints is a reference, and grows with every method
    printed = re.compile(r"<!-- made by: .*?<!-- end -->", re.DOTALL)
    pages = [*PAGES, *(ROOT / "src").rglob("*.md")]
    words = {page: len(printed.sub("", page.read_text(encoding="utf-8")).split()) for page in pages}
    too_long = {page.name: n for page, n in words.items() if n > MOST_WORDS.get(page.name, MOST_WORDS_IN_ALL)}
    assert not too_long
    assert sum(words.values()) <= MOST_WORDS_IN_ALL


@pytest.mark.parametrize(
    "page", [page for page in PAGES if MOST_WORDS.get(page.name) == 500], ids=lambda page: page.name
)
def test_pages_for_a_person_begin_with_a_command(page: Path) -> None:
    first = next(blocks(page))
    assert next(commands(first)).words
    assert len(page.read_text(encoding="utf-8").split("```")[0].split()) < 30


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_of_results_are_whole_and_have_their_commands(table: Path) -> None:
    with table.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert rows
    assert {len(row) for row in rows} == {len(head)}
    assert any(table.stem.startswith(script.stem) for script in SCRIPTS)
    pages = [page for page in PAGES if page.parent in (RESULTS, RESULTS.parent)]
    assert any(re.search(rf"\((results/)?{table.name}\)", page.read_text("utf-8")) for page in pages), (
        "no page names it"
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_of_results_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("page", [ROOT / "docs" / "results.md", *RESULTS.glob("*.md")], ids=lambda page: page.name)
def test_shares_on_pages_of_results_stand_in_the_tables(page: Path) -> None:
    """Those with one decimal, as measured; what is rounded is not looked for."""
    values = {value.lstrip("-") for table in TABLES for value in re.findall(r"-?\d+\.\d+", table.read_text("utf-8"))}
    text = re.sub(r"\d+% (?:of|intervals)", "", page.read_text(encoding="utf-8"))
    shares = re.findall(r"(?<![\d.,])(\d+\.\d)%", text)
    assert not [share for share in shares if share not in values]


def named_files(text: str) -> Iterator[str]:
    """Python files and folders of the source that a page names; those with a placeholder in capitals not."""
    ours = ("src/", "outthink/", "tests/", "examples/", "benchmarks/", "scripts/")
    for path in re.findall(r"(?<![\w./-])((?:[\w.-]+/)+(?:[\w.-]+\.py)?)(?![\w/])", text):
        if (path.startswith(ours) or path.endswith(".py")) and not re.search(r"[A-Z]{3}", path):
            yield path


def there_is(dotted: str) -> bool:
    """Whether `outthink.x.y` is a module, or a name in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            target: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(target, part):
                return False
            target = getattr(target, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_pages_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    roots = (ROOT, ROOT / "src", ROOT / "src" / "outthink")
    files = [path for path in named_files(text) if not any((root / path).exists() for root in roots)]
    files += [name for name in re.findall(r"`(\w+\.py)`", text) if not [*(ROOT / "src").rglob(name)]]
    dotted = set(re.findall(r"(?<![\w./-])outthink(?:\.[A-Za-z_]\w*)+", text)) - {"outthink.toml"}  # a user's own file
    modules = [name for name in dotted if not there_is(name)]
    assert (files, modules) == ([], [])


def test_the_house_is_as_it_is_drawn() -> None:
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    floors = re.findall(r"^floor (\d+) +(.*)$", page, re.MULTILINE)
    drawn = {int(number): tuple(names.split()) for number, names in floors}
    assert [*drawn] == [*range(len(FLOORS), 0, -1)]  # the ground floor is at the bottom
    assert drawn == dict(enumerate(FLOORS, 1))


def test_the_file_tree_of_the_readme_has_every_room() -> None:
    block = next(block for block in blocks(ROOT / "README.md") if block.text.startswith("src/outthink/"))
    names = [re.split(" {2,}", line.strip())[0].split() for line in block.text.splitlines()[1:]]
    rooms = {room for floor in FLOORS for room in floor}
    assert {name.strip("/") for line in names for name in line} == rooms - {"__main__"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_place_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|Users|tmp)/", text)
