"""What --json prints: numbers are numbers, in every command that has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import QUESTION, bench, solve
from tests.tools import simulated

NUMBER = re.compile(r"[-+]?[0-9][0-9,]*(\.[0-9]+)?([eE][-+]?[0-9]+)?\s*(%|s|tokens|points|USD|usd|\$|M|k|MB|FLOPs)?")
TEXTS = {
    "answer", "key", "text", "said", "problem", "id", "command", "name", "default", "hyperparameters", "read", "reads",
    "size", "digest",
}  # fmt: skip
"""Whose values are what a model wrote, or what somebody called something."""


def numbers_as_text(value: Any, where: str = "") -> Iterator[str]:
    """Places at which a text is nothing but a number."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name not in TEXTS:
                yield from numbers_as_text(one, f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from numbers_as_text(one, f"{where}[]")
    elif isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        yield f"{where}: {value!r}"


def test_numbers_are_numbers_in_the_json_of_every_command(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated.pool(Path("many.jsonl"), 40, 8)
    Path("sweep.toml").write_text('task = "own.jsonl"\nmodel = "pool.jsonl"\nstrategy = ["greedy"]\n', encoding="utf-8")
    commands: list[tuple[str, ...]] = [
        solve("--n", "4"),
        bench("--n", "2", "--out", "a"),
        bench("--strategy", "best_of_n", "--verifier", "confidence", "--n", "4", "--out", "b"),
        ("report", "a", "b"),
        ("report", "pool.jsonl"),
        ("replay", "pool.jsonl", "--strategies", "self_consistency,borda"),
        ("law", "coverage", "many.jsonl"),
        ("law",),
        ("show", "b"),
        ("show", "b", QUESTION),
        ("show", "b", QUESTION, "model/0/0"),
        ("answers", "b"),
        ("strategies",),
        ("strategies", "beam"),
        ("models", "list"),
        ("sweep", "sweep.toml", "--dry-run"),
        ("plan", "fit", "many.jsonl", "--folds", "2"),
        ("quote", QUESTION, "--plan", "plan.json", "--budget", "400-tokens"),
        ("quote", QUESTION),
    ]
    for words in commands:
        result = outthink(*words, "--json")
        assert result.code == 0, (words, result.err)
        told = json.loads(result.out)
        assert not list(numbers_as_text(told)), words


def test_a_number_as_text_is_noticed() -> None:
    told = {"a": ["12.3%", "1,024 tokens", "3 of 4", "v1"], "answer": "4", "b": {"c": "1e-3"}}
    assert list(numbers_as_text(told)) == [".a[]: '12.3%'", ".a[]: '1,024 tokens'", ".b.c: '1e-3'"]
