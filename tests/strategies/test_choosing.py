"""When a majority is fixed, by trying everything that can come; and what the driver makes of a fixed answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from outthink.driver import solve_async
from outthink.model import Model
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies import Report
from outthink.strategies.choosing import EarlyVote, Majority, by_majority
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import Candidate, Problem, Trace
from tests.tools.virtual import run


def sample(place: int, key: str | None, tokens: int = 1) -> Candidate:
    return Candidate(address=("model", 0, place), text=str(key), tokens=tokens, answer=key, key=key)


N = 4


@pytest.mark.parametrize("order", list(itertools.permutations(range(N))), ids=lambda order: "".join(map(str, order)))
def test_what_is_fixed_is_what_all_of_them_choose_in_whatever_order_they_come(order: Sequence[int]) -> None:
    said = 0
    for keys in itertools.product(["a", "b", None], repeat=N):
        for lengths in ((1, 2, 3, 4), (4, 3, 2, 1)):
            samples = [
                sample(place, key, tokens) for place, (key, tokens) in enumerate(zip(keys, lengths, strict=True))
            ]
            majority, reports = Majority(), []

            def report(
                candidates: Sequence[Candidate], *, chosen: Candidate | None, early: bool = False, **more: Any
            ) -> None:
                assert early
                assert list(candidates) == sorted(candidates, key=lambda one: one.address)
                reports.append(chosen)  # noqa: B023 - called within the round

            vote = EarlyVote(report, N)
            for count, place in enumerate(order, start=1):
                majority.add(samples[place], place)
                vote(samples[place], place)
                if majority.fixed(N - count):
                    assert majority.chosen[0] == by_majority(samples)[0]
                    assert reports == [majority.chosen[0]] or count == N
                else:
                    assert not reports
            said += len(reports)
    assert bool(said) == (order[-1] != 0), "the first one may always say the same as those after it"


def test_those_that_may_fail_count_as_if_they_came() -> None:
    majority = Majority()
    majority.add(sample(0, "a"), 0)
    majority.add(sample(2, "a"), 2)
    assert majority.fixed(1)
    assert not majority.fixed(2)
    late = Majority()
    late.add(sample(1, "a"), 1)
    late.add(sample(2, "a"), 2)
    assert not late.fixed(1), "the first one may say the same"
    assert late.fixed(0), "or has come to nothing"


# --------------------------------------------------------------------------------------------------- in the driver


@dataclass(frozen=True, kw_only=True)
class Contradicts:
    """Says that its first sample is fixed, and then chooses the second one."""

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        first, second = await model.sample(problem, 2)
        report([first], chosen=first, fixed=True)
        report([first, second], chosen=first, fixed=True)
        report([first, second], chosen=second)


def said(request: Request, child: int, rng: object) -> str:
    return "The answer is 4." if child < 3 else "The answer is 5, as I have found out after a while."


def solved(strategy: Any, **more: Any) -> tuple[Trace, list[str]]:
    fixed: list[str] = []

    async def go() -> Trace:
        engine = ScriptedEngine(said, latency=lambda request, child: 1.0 if child < 3 else 20.0)
        return await solve_async(
            "What is 2+2?",
            strategy,
            model=engine,
            on_fixed=lambda segments: fixed.append("".join(one.text for one in segments)),
            **more,
        )

    return run(go()), fixed


def test_what_was_fixed_stands_whatever_is_said_afterwards() -> None:
    trace, fixed = solved(Contradicts())
    assert fixed == ["The answer is 4."], "it is told once"
    assert (trace.stopped, trace.answer, trace.rounds[-1].chosen) == ("error", "4", "model/0/0")
    assert "model/0/0 was reported as fixed, and now model/0/1 is chosen" in str(trace.error)


def test_what_is_fixed_before_its_calls_are_settled_is_no_round_of_its_own() -> None:
    trace, fixed = solved(SelfConsistency(n=5))
    assert fixed == ["The answer is 4."]
    (only,) = trace.rounds
    assert (only.at, len(only.candidates)) == (20.0, 5)
    assert only.cost["tokens"] == trace.cost["tokens"]


def test_a_deadline_after_that_is_answered_with_it() -> None:
    trace, fixed = solved(SelfConsistency(n=5), budget="10s")
    assert (fixed, trace.stopped, trace.answer) == (["The answer is 4."], "deadline", "4")
    assert trace.rounds[-1].chosen == "model/0/0"
    assert trace.usage.completion < 5 * len("The answer is 5, as I have found out after a while.")
