"""The house: what may import what, how large a file may be, and that each word names one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.tools.callers import without_caller

SOURCE = Path(__file__).parents[1] / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "outthink").rglob("*.py"))
}

FLOORS: tuple[tuple[str, ...], ...] = (
    ("types", "together"),
    ("errors", "rng"),
    ("names", "jsonl", "maths"),
    ("answers", "sandbox", "laws"),
    ("models", "tasks"),
    ("cost", "meter", "records"),
    ("model", "resources"),
    ("rewards",),
    ("strategies",),
    ("driver", "reports"),
    ("planner", "learn", "view"),
    ("bench", "server"),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground up: each may import what stands on lower floors, and its own modules."""

LINES = 700
EMPTY = {"of", "found"}
"""Names that say nothing of what they hold."""

TOP = 9  # modules beside the packages, __init__ and __main__ left out


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in MODULES else node.module)
    return {name for name in names if name in MODULES and name != "outthink"}


IMPORTS = {module: imported(path) for module, path in MODULES.items() if module != "outthink"}


def room(module: str) -> str:
    """The package or module under `outthink` that it is in."""
    return module.split(".")[1]


def test_every_room_has_a_floor() -> None:
    placed = [name for floor in FLOORS for name in floor]
    assert len(placed) == len(set(placed))
    assert set(placed) == {room(module) for module in IMPORTS}


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_no_import_runs_up_or_across(module: str) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = {
        name for name in IMPORTS[module] if room(name) != room(module) and floor[room(name)] >= floor[room(module)]
    }
    assert not wrong


def test_no_circle() -> None:
    """Among the modules of one room either."""
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for name in sorted(IMPORTS[module]):
                visit(name, (*above, module))
            done.add(module)

    for module in IMPORTS:
        visit(module, ())


def test_no_file_is_too_long() -> None:
    assert not {
        str(path.relative_to(SOURCE)): lines
        for path in MODULES.values()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES
    }


HEADING = re.compile(r"# -{4,}(?:[^-]|$)")


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples"])
def test_every_heading_has_something_below_it(folder: str) -> None:
    empty = []
    for path in sorted((SOURCE.parent / folder).rglob("*.py")):
        written = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        pairs = zip(written, [*written[1:], "# ---- end"], strict=False)
        empty += [f"{path.name}: {line}" for line, below in pairs if HEADING.match(line) and HEADING.match(below)]
    assert not empty


def test_few_modules_stand_beside_the_packages() -> None:
    beside = {path.stem for path in (SOURCE / "outthink").glob("*.py")} - {"__init__", "__main__"}
    assert len(beside) <= TOP, beside


def bound(path: Path) -> set[str]:
    """Names that a file gives to variables, parameters, functions and methods."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def test_names_say_what_they_hold() -> None:
    assert not {module: names for module, path in MODULES.items() if (names := EMPTY & bound(path))}


def test_one_word_is_one_class() -> None:
    """Public classes have a name of their own; so do the modules of each word that once meant several things."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


PAGES = [SOURCE.parent / "README.md", *sorted((SOURCE.parent / "docs").rglob("*.md"))]
FROM_OUTSIDE = {"serve", "format_options", "parse_args", "resolve_command"}
"""What other processes start by a module's name, and what the parser of the command line calls."""


def test_nothing_is_there_that_only_tests_call() -> None:
    """A public name is mentioned by source that is itself reached, or the pages show it to who uses the library."""
    assert not without_caller(MODULES, PAGES, FROM_OUTSIDE)
