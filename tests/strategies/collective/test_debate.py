"""Debate: what agents are sent, who is left out before it is paid for, what it costs, and who wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Completion, Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.debate import debate_vote
from outthink.strategies.making import make_strategy
from outthink.types import Trace, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run


class Agents(ScriptedEngine):
    """Agent i of round r answers `table[r - 1][i]`; None cannot be read. Keeps what it was sent."""

    def __init__(self, table: list[list[int | None]], fails: set[tuple[int, int]] | None = None) -> None:
        super().__init__(self.answer)
        self.table, self.fails, self.sent = table, fails or set(), list[Request]()

    async def generate(self, request: Request, progress: Progress) -> None:
        self.sent.append(request)
        await super().generate(request, progress)

    def answer(self, request: Request, child: int, rng: np.random.Generator) -> str | Completion | EngineError:
        number = int(request.address[2]) if "round" in request.address else 1
        agent = child if request.n > 1 else int(request.address[-1])  # else it has a request of its own
        if (number, agent) in self.fails:
            return EngineError("lost")
        said = self.table[number - 1][agent]
        return f"agent {agent} in round {number} says #### {said}" if said is not None else "no idea"

    @property
    def texts(self) -> list[str]:
        return [request.messages[-1].text for request in self.sent]


def debated(engine: ScriptedEngine, models: dict[str, ScriptedEngine] | None = None, **settings: Any) -> Trace:
    return run(solve_async(problem(), make_strategy("debate", settings), model=engine, models=models))


def test_every_agent_reads_all_answers_of_the_last_round_and_no_older_ones() -> None:
    engine = Agents([[1, 2, 3], [1, 2, 2], [4, 5, 4]])
    trace = debated(engine, n=3, rounds=3)
    first, second, third = engine.texts
    assert first == problem().question
    assert second.startswith(problem().question), "what stays comes first, for the prefix cache"
    assert [f"<agent {number}>\nagent {number - 1} in round 1" in second for number in (1, 2, 3)] == [True] * 3
    assert [f"agent {number} in round 2" in third for number in range(3)] == [True] * 3
    assert "round 1" not in third
    assert "write one complete updated answer of your own" in second
    assert [request.n for request in engine.sent] == [3, 3, 3], "one prompt a round, whose children are the agents"
    assert trace.answer == "4"
    assert [one.generation for one in trace.rounds] == [1, 2, 3]


def test_one_round_is_self_consistency() -> None:
    engine = Agents([[1, 2, 2]])
    trace = debated(engine, n=3, rounds=1)
    plain = run(solve_async(problem(), make_strategy("self_consistency", {"n": 3}), model=Agents([[1, 2, 2]])))
    assert trace.candidates == plain.candidates
    assert trace.answer == plain.answer == "2"


def test_it_stops_when_all_agree_and_a_single_agent_does_not_review_itself() -> None:
    engine = Agents([[7, None, 7, 7]])
    assert debated(engine, n=4, rounds=5).answer == "7"
    assert len(engine.sent) == 1
    alone = Agents([[7]])
    debated(alone, n=1, rounds=5)
    assert len(alone.sent) == 1
    chain = Agents([[7], [8], [9]])
    assert debated(chain, n=1, rounds=3, stop=False).answer == "9", "then it is a chain of revisions"
    assert "in round 2" in chain.texts[2]


def test_without_its_own_answer_an_agent_is_not_sent_it() -> None:
    engine = Agents([[1, 2, None], [1, 2, 3]])
    debated(engine, n=3, rounds=2, read_own=False)
    _, *revised = engine.texts
    assert len(revised) == 3
    for agent, text in enumerate(revised):
        shown = {number for number in range(3) if f"agent {number} in round 1" in text}
        assert shown == {0, 1} - {agent}
    only = Agents([[1, None], [1, 2]])
    debated(only, n=2, rounds=2, read_own=False, stop=False)
    assert [request.n for request in only.sent] == [2, 1], "who has nothing of others to read is not asked"


def test_personas_answers_alone_and_own_marks_are_in_what_is_sent() -> None:
    engine = Agents([[1, 2], [1, 2]])
    debated(engine, n=2, rounds=2, personas=("Be strict.", "Be bold."), share="answer", mark_own=True)
    assert [text.endswith(persona) for text, persona in zip(engine.texts, ["Be strict.", "Be bold."] * 2, strict=True)]
    assert [text.rpartition("\n\n")[2].startswith(f"You are agent {n}.") for n, text in enumerate(engine.texts[2:], 1)]
    assert "<agent 1>\n1\n</agent 1>\n\n<agent 2>\n2\n</agent 2>" in engine.texts[2]
    assert "says" not in engine.texts[2]


def test_agents_of_other_models_read_and_are_read_and_are_billed_apart() -> None:
    other = ScriptedEngine(lambda request, child, rng: "the other says #### 5", name="other")
    engine = Agents([[1, 2], [5, 2]])
    trace = debated(engine, {"agent2": other}, n=3, rounds=2)
    assert "<agent 2>\nthe other says #### 5\n</agent 2>" in engine.texts[1]
    assert {line.role: line.children for line in trace.ledger()} == {"model": 4, "agent2": 2}
    assert trace.answer == "5", "two of three in the last round"


def test_who_fails_keeps_its_answer_and_its_place() -> None:
    engine = Agents([[1, 2, 3], [4, 4, 4]], fails={(2, 0), (2, 1)})
    trace = debated(engine, n=3, rounds=2)
    answers = {one.id: one.answer for one in trace.candidates}
    assert [answers[name] for name in trace.rounds[-1].candidates] == ["1", "2", "4"]


class Counting(Agents):
    """Counts q and a as tokens, and nothing else, and shares no prompts."""

    async def bound(self, request: Request) -> Usage:
        return Usage(prompt=self.read(request), completion=request.max_tokens)

    def read(self, request: Request) -> int:
        return request.messages[-1].text.count("§")

    async def generate(self, request: Request, progress: Progress) -> None:
        await super().generate(request, progress)
        progress.prompt, progress.cached = request.n * self.read(request), 0

    def answer(self, request: Request, child: int, rng: np.random.Generator) -> Completion:
        return Completion(text="§" * 500 + f"#### {child}", tokens=500)


def test_four_agents_and_four_rounds_read_27200_tokens_and_write_8000() -> None:
    asked = problem(text="§" * 200)
    engine = Counting([])
    trace = run(solve_async(asked, make_strategy("debate", {"n": 4, "rounds": 4}), model=engine))
    assert sum(call.n for call in trace.calls) == 16
    assert trace.usage == Usage(prompt=27_200, completion=8_000)
    used = [one.usage.prompt for one in trace.rounds if one.usage is not None]
    assert [after - before for before, after in zip([0, *used], used, strict=False)] == [800, 8_800, 8_800, 8_800]


def test_siblings_find_the_prompt_of_their_round_in_the_cache() -> None:
    trace = debated(Agents([[1, 2, 3, 4], [1, 2, 3, 4]]), n=4, rounds=2)
    for call in trace.calls:
        assert call.charged.cached == 3 / 4 * call.charged.prompt


def test_a_tie_goes_to_the_answer_with_more_votes_over_all_rounds_then_to_the_first_agent() -> None:
    earlier = [["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "a", "b", "b"]]
    assert debate_vote([*earlier, ["a", "b", "a", "b"]]) == (3, 0), "9 to 7"
    assert debate_vote([["b", "b", "b", "a"], ["a", "b", "a", "b"]]) == (1, 1)
    assert debate_vote([["b", "a"], ["a", "b"]]) == (1, 0)
    assert debate_vote([["b", "a", "a"], [None, None, None]]) == (0, 1), "what cannot be read does not vote"
    assert debate_vote([[None]]) is None


def test_too_much_to_read_is_refused() -> None:
    with pytest.raises(UsageError, match="show a model 12,288 answers again, more than 8,192"):
        make_strategy("debate", {"n": 64, "rounds": 4})
