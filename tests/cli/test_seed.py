"""Any whole number is a seed, in every command that takes one, and generators are made of seeds in one place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cli.program import tree
from outthink.rng import generator, library_seed
from tests.cli.test_cli import QUESTION, bench, solve
from tests.cli.test_scoring import recorded
from tests.cli.test_searching import MODELS, SIZES, asked
from tests.planner.test_learning import traffic
from tests.test_house import MODULES
from tests.tools import simulated

Words = tuple[str, ...]
JUDGE = ("--verifier", "soundness?flaw=gap")
SEARCH = (*MODELS, "--evaluations", "4")


def many(*words: str) -> Callable[[], Words]:
    """A command on 24 recorded problems."""

    def given() -> Words:
        simulated.pool(Path("many.jsonl"), 24, 4)
        return words

    return given


def learned() -> Words:
    return ("plan", "learn", str(traffic(Path("live"), 40, share=0.5)))


COMMANDS: dict[str, Callable[[], Words]] = {
    "solve": lambda: solve("--n", "2"),
    "quote": lambda: ("quote", QUESTION),
    "bench": lambda: bench("--n", "2"),
    "pool": lambda: ("pool", "own.jsonl", "--model", "pool.jsonl", "--n", "2", "--out", "copy.jsonl"),
    "score": lambda: ("score", "samples.jsonl", *JUDGE, "--model", "toy", "--out", "scored.jsonl"),
    "replay": lambda: ("replay", "pool.jsonl", "--n", "2"),
    "law": many("law", "coverage", "many.jsonl"),
    "plan fit": many("plan", "fit", "many.jsonl", "--folds", "2"),
    "plan check": many("plan", "check", "plan.json", "many.jsonl"),
    "plan learn": learned,
    "prm train": many("prm", "train", "many.jsonl", "--folds", "2"),
    "cascade fit": many("cascade", "fit", "many.jsonl"),
    "search archon": lambda: ("search", "archon", *SEARCH, "--calls", "4", "--by", "tpe"),
    "search stages": lambda: ("search", "stages", *SEARCH, *SIZES, "--passes", "1"),
    "search graph": lambda: ("search", "graph", *SEARCH, *SIZES, "--batch", "2", "--nodes", "3"),
}
"""By their names, the words of each command that takes a seed, once the files they need are there."""

NEEDS = {"score": "recorded", "search archon": "asked", "search stages": "asked", "search graph": "asked"}
"""Fixtures with files and models."""

__all__ = ["asked", "recorded"]


def seeded(command: Any, path: Words = ()) -> Iterator[str]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from seeded(inner, (*path, name))
    if any(option.name == "seed" for option in command.params):
        yield " ".join(path)


def test_every_command_with_a_seed_is_here() -> None:
    assert {*seeded(tree())} == {*COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_seed_may_be_below_0(name: str, outthink: Any, request: pytest.FixtureRequest) -> None:
    if "tpe" in (words := COMMANDS[name]()):
        pytest.importorskip("optuna")
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    if name == "plan check":
        assert outthink("plan", "fit", "many.jsonl", "--folds", "2").code == 0
    result = outthink(*words, "--seed", "-1")
    assert result.code == 0, result.err


def test_numbers_of_0_and_above_are_numpys_own_seeds() -> None:
    """So that what was recorded and told before is drawn again."""
    for key in ((0,), (7,), (2**31, 5), (2**40, 0, 3), (2**64 - 1,), (2**70, 1)):
        assert generator(*key).random(4).tolist() == np.random.default_rng(list(key)).random(4).tolist()
        assert generator(key[0]).random() == np.random.default_rng(key[0]).random()
    drawn = {tuple(generator(*key).random(2)) for key in ((1,), (-1,), (-2,), (-1, 3), (-1, -3))}
    assert len(drawn) == 5
    assert [library_seed(seed) for seed in (0, 5, 2**32 - 1)] == [0, 5, 2**32 - 1]
    beyond = [library_seed(seed) for seed in (-1, -2, 2**32, 2**40)]
    assert len({*beyond}) == 4
    assert all(0 <= seed < 2**32 for seed in beyond)


def test_no_generator_is_made_of_a_seed_elsewhere() -> None:
    """Others are of numbers written down there, which are the same for every seed."""
    calls = {
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("default_rng", "RandomState", "SeedSequence")
        and not all(isinstance(given, ast.Constant) for given in node.args)
    }
    assert {call.partition(":")[0] for call in calls} == {"outthink.rng"}
