"""Generated tasks of reasoning-gym: any number of questions, offline, with exact grading.

Source: github.com/open-thought/reasoning-gym (Apache-2.0). How this differs: only tasks whose answer fits on one line,
and none whose scoring function would run the answer as Python code, which is not safe for what a model wrote.
The same seed gives the same questions, except that isomorphic_strings, knight_swap, ransom_note and word_ladder also
depend on the environment variable PYTHONHASHSEED (as of reasoning-gym 0.1.25).
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from importlib.metadata import version
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from outthink.errors import UnknownName, UsageError
from outthink.tasks.example import Example
from outthink.types import AnswerKind, Message, Problem

TEMPLATE = "{question}\nThink step by step briefly. End with a line: #### <answer>"
SIZE = 300
EVALUATES = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Tasks that call `eval`, or sympy's parser, which does, on the answer."""


def load(
    task: str, split: str, limit: int | None, template: str | None, answer: AnswerKind | None, seed: int
) -> list[Example]:
    """Questions of "gym:<name>?size=300&key=value", in order of their index.

    Ids are "gym:<name>?<options>:<seed>:<index>", with the split before the seed unless it is "test". Where the gold
    answer is an ordinary number, answers are read as math, else as text.
    """
    name, _, query = task.removeprefix("gym:").partition("?")
    options = {key: _value(text) for key, text in parse_qsl(query, keep_blank_values=True)}
    size = options.pop("size", SIZE)
    if not isinstance(size, int) or size < 1:
        raise UsageError(f"{task}: size must be a whole number of at least 1")
    gym = _import()
    if name not in gym.factory.DATASETS:
        raise UnknownName("gym task", name, gym.factory.DATASETS)
    if name in EVALUATES:
        raise UsageError(f"gym:{name} cannot be used: its scoring runs the model's answer as Python code")
    stem = f"gym:{name}" + ("?" + "&".join(f"{key}={options[key]}" for key in sorted(options)) if options else "")
    stem += f":{seed}" if split == "test" else f":{split}:{seed}"
    # reasoning-gym draws question i from seed + i, so that seeds 0 and 1 would share nearly all their questions.
    spread = int.from_bytes(hashlib.sha256(f"{name}:{split}:{seed}".encode()).digest()[:4]) >> 1
    examples = []
    try:
        with warnings.catch_warnings(action="ignore"):
            data = gym.create_dataset(name, size=size, seed=spread, **options)
            entries = [data[index] for index in range(min(size, limit or size))]
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"{task}: reasoning-gym refuses these options: {error or type(error).__name__}") from error
    for index, entry in enumerate(entries):
        gold = entry["answer"]
        if gold is not None and "\n" in gold.strip():
            raise UsageError(f"gym:{name} cannot be used: its answers do not fit on one line")
        number = gold is not None and re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", gold.strip())
        problem = Problem(
            id=f"{stem}:{index}",
            messages=(Message(content=(template or TEMPLATE).replace("{question}", entry["question"].strip())),),
            answer=answer or ("math" if number else "text"),
            question=entry["question"].strip(),
        )
        source = f"reasoning-gym {version('reasoning-gym')}"
        examples.append(
            Example(problem, () if gold is None else (gold,), meta={"source": source, "gym": name, "entry": entry})
        )
    return examples


def score(example: Example, answer: str) -> float:
    """1.0 where the task's own scoring gives the answer the full score, else 0.0; never raises.

    The answer is tried as it stands and without a final full stop, which may or may not belong to it.
    """
    rate = _import().get_score_answer_fn(example.meta["gym"])
    try:
        return float(any(rate(form, example.meta["entry"]) >= 1 for form in {answer, answer.removesuffix(".")}))
    except Exception:  # what it makes of a model's text is not known, and what it cannot read is not right
        return 0.0


def _value(text: str) -> Any:
    """An option as JSON (number, true, list ...), else as it stands."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _import() -> ModuleType:
    try:
        with warnings.catch_warnings(action="ignore"):
            import reasoning_gym
    except ImportError as error:
        raise UsageError("gym tasks need the package reasoning-gym: pip install 'outthink[gym]'") from error
    module: ModuleType = reasoning_gym
    return module
