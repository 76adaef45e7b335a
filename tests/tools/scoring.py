"""Scores candidates with a scorer that is bound as the driver binds it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from outthink.answers.reader import Reader
from outthink.meter import Meter
from outthink.model import Attempt, Models
from outthink.models.scripted import ScriptedEngine
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.resources.table import bind
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.sandbox.host import Execution, Limits
from outthink.types import Budget, Candidate, Problem, Sampling
from tests.tools.toys import problem
from tests.tools.virtual import run

Found = tuple[float | None, ...]


def samples(*texts: str) -> list[list[Candidate]]:
    """Whole answers, each a path of its own."""
    return [
        [Candidate(address=("model", 0, child), text=text, tokens=len(text), token_ids=tuple(map(ord, text)))]
        for child, text in enumerate(texts)
    ]


def chain(*steps: str, lane: str = "a", done: bool = False) -> list[Candidate]:
    """The nodes of a path, the same for the same steps; the last one has ended if `done`."""
    nodes: list[Candidate] = []
    for depth, text in enumerate(steps):
        last = done and depth == len(steps) - 1
        nodes.append(
            Candidate(
                address=("model", lane, zlib.crc32("".join(steps[: depth + 1]).encode()), 0),
                parents=(nodes[-1].id,) if nodes else (),
                continues=bool(nodes),
                text=text,
                tokens=len(text),
                token_ids=tuple(map(ord, text)),
                finish="eos" if last else "stop",
                complete=last,
            )
        )
    return nodes


class Box:
    """Stands in for a sandbox: says what a function makes of the source."""

    def __init__(self, ran: Any) -> None:
        self.limits = Limits()
        self.sources: list[str] = []
        self._ran = ran

    async def run(self, source: str, *, stdin: str = "") -> Execution:
        self.sources.append(source)
        said = self._ran(source)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Execution):
            return said
        return Execution(outcome="ok", stdout=str(said), stderr="", seconds=0.5, error=None)

    async def test(self, answer: str, tests: Sequence[str], **_: Any) -> Execution:
        return await self.run(answer)


def scored(
    scorer: Any,
    engine: ScriptedEngine,
    paths: Sequence[Sequence[Candidate]],
    *,
    budget: str = "",
    max_tokens: int = 200,
    seed: int = 0,
    models: Mapping[str, ScriptedEngine] | None = None,
    box: Box | None = None,
    question: Problem | None = None,
    before: Sequence[Sequence[Sequence[Candidate]]] = (),
) -> tuple[Found, Meter]:
    """The scores of `paths`, and the meter; what is in `before` was scored before them, call by call."""

    async def go() -> tuple[Found, Meter]:
        asked = question or problem()
        meter = Meter(Budget.parse(budget) if budget else Budget())
        turns = [*before, paths]
        meter.candidates.update({node.id: node for turn in turns for nodes in turn for node in nodes})
        reader = Reader()
        shared = Attempt(
            problem=asked, meter=meter, seed=seed, sampling=Sampling(max_tokens=max_tokens), read_answer=reader.read
        )
        available: dict[str, Any] = {
            "models": Models({**(models or {}), "model": engine}, shared),
            "meter": meter,
            "rng": Rng(seed, asked.id),
        }
        if box is not None:
            available["sandbox"] = MeteredSandbox(box, meter)  # type: ignore[arg-type]  # it has all that is used of a sandbox
        scores = Scores(scorer, bind(scorer.score, available, "The scorer"), meter)
        try:
            for turn in turns:
                scores_of_turn = await scores.score(asked, [nodes[-1] for nodes in turn])
        finally:
            await reader.close()
        return scores_of_turn, meter

    return run(go())
