"""Small engines and readers that several tests use."""

from __future__ import annotations

import numpy as np

from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.types import Message, Problem


def problem(name: str = "p", text: str = "What is 1+1?") -> Problem:
    return Problem(id=name, messages=(Message(content=text),))


def coin(p: float, *, wrong: int = 1, **options: object) -> ScriptedEngine:
    """Answers 42 with probability p, else one of `wrong` wrong numbers of the same length."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {42 if rng.random() < p else 10 + int(rng.integers(wrong))}"

    return ScriptedEngine(reply, **options)  # type: ignore[arg-type]  # passed through as they are
