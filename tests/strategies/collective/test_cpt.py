"""Collaborative parallel thinking: what one finds the others hear once, and only while there is something new."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.cpt import CPT, Findings, alike, listed, listing_prompt
from outthink.types import Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run


def test_a_list_of_findings_is_read_whatever_stands_around_it() -> None:
    assert listed("Findings:\n- x is even\n  - y = 3. \n-no\n- \n- none\n* z") == ["x is even", "y = 3."]
    assert listed("- " + "a" * 301) == []
    assert alike("X is  Even.") == alike("x is even")
    assert listed("<think>\n- perhaps\n</think>\n- it is \\boxed{\\frac{1}{2}}\n- ####") == ["it is \\frac{1}{2}"]


def test_each_hears_of_the_others_once_and_never_of_itself() -> None:
    board = Findings()
    assert board.add(0, ["a", "b"]) == 2
    assert board.add(1, ["A."]) == 0
    assert board.news(0, 9) == []
    assert board.news(1, 9) == ["b"]
    assert board.news(1, 9) == []
    assert board.add(1, ["c", "d", "e"]) == 3
    assert board.news(0, 2) == ["d", "e"], "the newest"


class World:
    """Thoughts of a known length; the k-th listing of thought i says `finds(i, k)`."""

    def __init__(self, finds: Any, length: int = 100) -> None:
        self.finds, self.length = finds, length
        self.requests: list[Request] = []
        self.listings: dict[int, int] = {}

    def reply(self, request: Request, child: int, rng: np.random.Generator) -> str:
        self.requests.append(request)
        if request.address[1] == "findings":
            number = int(request.address[2])
            self.listings[number] = self.listings.get(number, 0) + 1
            return str(self.finds(number, self.listings[number]))
        done = request.prefix_text.count("x")
        return "x" * (self.length - done) + "#### 7"

    def solve(self, **settings: Any) -> Trace:
        how = CPT(**{"n": 3, "every": 20, "alone": 2, **settings})
        return run(solve_async(problem(), how, model=ScriptedEngine(self.reply), sampling=Sampling(max_tokens=400)))


def test_what_one_marks_is_no_answer_of_another_and_a_finding_that_is_cut_off_is_none() -> None:
    trace = World(lambda number, time: f"- {number} has \\boxed{{1}}\n- y = 12{'3' * 300}").solve()
    told = [one.text for one in trace.candidates if "found:" in one.text]
    assert told
    assert not any("boxed" in text or "y =" in text for text in told)
    assert {one.answer for one in trace.candidates if one.complete} == {"7"}


def test_findings_reach_the_other_thoughts_and_the_listing_sees_question_and_piece() -> None:
    world = World(lambda number, time: f"- fact {number} of {time}")
    trace = world.solve()
    assert trace.answer == "7"
    asked = [one for one in world.requests if one.address[1] == "findings"]
    assert all("What is 1+1?" in one.messages[-1].text and "x" * 20 in one.messages[-1].text for one in asked)
    going_on = [one for one in world.requests if one.address[1] == "chain"]
    last = {int(one.address[2]): one.prefix_text for one in going_on}
    for number in range(3):
        told = [other for other in range(3) if f"- fact {other} of 1" in last[number]]
        assert told == [other for other in range(3) if other != number]
        assert last[number].count("- fact") == len(set(last[number].split("- fact")[1:])), "each is told once"
    first = [one for one in going_on if "fact" not in one.prefix_text]
    assert {one.prefix_text.count("x") for one in first} == {20}, "the first two pieces are written alone"


def test_sharing_ends_where_nothing_is_new() -> None:
    world = World(lambda number, time: "- the same")
    world.solve()
    assert set(world.listings.values()) == {2}, "the first listing brought something, the second did not"
    silent = World(lambda number, time: "none")
    silent.solve()
    assert set(silent.listings.values()) == {1}


def test_one_thought_has_nobody_to_share_with() -> None:
    world = World(lambda number, time: "- a")
    world.solve(n=1)
    assert not world.listings


def test_a_text_that_holds_a_mark_stays_as_it_is() -> None:
    (message,) = listing_prompt(problem(text="{piece} and"), "{question} \\1", "{question}|{piece}")
    assert message.text == "{piece} and|{question} \\1"


def test_a_prompt_that_lacks_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="listing must contain"):
        CPT(listing="nothing")
    with pytest.raises(ValueError, match="shared must contain"):
        CPT(shared="nothing")
