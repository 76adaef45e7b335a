"""Path summaries and spawn and join: total and sequential tokens, who is sent what, and what stands when it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, PromptTooLong, UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.path_summary import PathSummary, summary_prompt
from outthink.strategies.collective.spawn_join import SpawnJoin, child_prompt, joined, read_result, read_tasks
from outthink.strategies.collective.threads import Thread
from outthink.strategies.making import make_strategy
from outthink.strategies.thinking import MARK
from outthink.types import Message, Problem, Sampling, Trace
from tests.tools.virtual import run

TALK = Problem(id="p", messages=(Message(role="system", content="RULE"), Message(content="TASK")), question="QUESTION")


def solved(strategy: Any, reply: Any, most: int = 2000, context: int | None = None, **options: Any) -> Trace:
    engine = ScriptedEngine(reply, context=context)
    return run(solve_async(TALK, strategy, model=engine, sampling=Sampling(max_tokens=most), **options))


# ---------------------------------------------------------------- threads


def of_lengths(*lengths: int) -> tuple[Thread, ...]:
    return tuple(Thread(tokens=length) for length in lengths)


def test_a_parent_of_400_with_three_children_is_1200_in_all_and_900_in_sequence() -> None:
    thread = Thread(tokens=300 + 100, rounds=(of_lengths(200, 500, 100),))
    assert (thread.total, thread.sequential) == (1200, 900)
    assert thread.note() == "1200 tokens written in all, 900 of them one after the other"


trees = st.recursive(
    st.builds(Thread, tokens=st.integers(0, 50)),
    lambda inner: st.builds(
        Thread,
        tokens=st.integers(0, 50),
        rounds=st.lists(st.lists(inner, max_size=3).map(tuple), max_size=3).map(tuple),
    ),
    max_leaves=12,
)


@given(trees)
def test_sequence_is_at_most_the_whole_and_equal_where_no_two_write_at_once(thread: Thread) -> None:
    def alone(one: Thread) -> bool:
        busy = ([child for child in children if child.total] for children in one.rounds)
        return all(len(children) < 2 and all(map(alone, children)) for children in busy)

    assert thread.sequential <= thread.total
    assert (thread.sequential == thread.total) == alone(thread)


# ---------------------------------------------------------------- path summary


class Paths:
    """Path k has so many characters and says k; the summarizer says what it is told to."""

    def __init__(self, lengths: list[int], summary: Any = "#### 42") -> None:
        self.lengths, self.summary = lengths, summary
        self.asked: list[Request] = []

    def __call__(self, request: Request, child: int, rng: np.random.Generator) -> Any:
        self.asked.append(request)
        if request.address[0] == "summarizer":
            return self.summary
        path = int(request.address[2]) if request.address[1] == "path" else child
        whole = chr(97 + path) * (self.lengths[path] - 6) + f"#### {path}"
        return whole[len(request.prefix_text) :]

    @property
    def summaries(self) -> list[Request]:
        return [one for one in self.asked if one.address[0] == "summarizer"]


LENGTHS = [900, 1200, 700, 1500]


def test_first_finish_cuts_all_paths_at_the_length_of_the_shortest() -> None:
    """900, 1,200, 700, 1,500: 4 * 700 and 700 in sequence, against 4,300 and 1,500; the summary is written besides."""
    script = Paths(LENGTHS)
    trace = solved(PathSummary(n=4, finish=1, piece=100), script)
    assert trace.usage.completion == 2800 + len("#### 42")
    assert trace.notes == (Thread(tokens=7, rounds=(of_lengths(700, 700, 700, 700),)).note(),)
    text = script.summaries[0].messages[-1].text
    assert [mark in text for mark in ("Path 1 (incomplete)", "Path 3:", "Path 4 (incomplete)")] == [True] * 3
    assert trace.answer == "42"


def test_without_a_finish_all_go_on_to_their_end() -> None:
    script = Paths(LENGTHS)
    trace = solved(PathSummary(n=4), script)
    assert trace.usage.completion == 4300 + len("#### 42")
    assert trace.notes == ("4307 tokens written in all, 1507 of them one after the other",)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(7, 60), min_size=2, max_size=5), st.integers(1, 5), st.integers(1, 30))
def test_a_race_never_writes_more_than_going_on_to_the_end(lengths: list[int], finish: int, piece: int) -> None:
    n = len(lengths)
    raced = solved(PathSummary(n=n, finish=min(finish, n), piece=piece), Paths(lengths), most=80)
    whole = solved(PathSummary(n=n), Paths(lengths), most=80)
    assert raced.usage.completion <= whole.usage.completion
    limit = sorted(lengths)[min(finish, n) - 1]
    cut = -(-limit // piece) * piece
    assert raced.usage.completion == sum(min(length, cut) for length in lengths) + len("#### 42")


def test_the_summary_is_sent_task_and_all_paths_in_order_and_is_greedy() -> None:
    script = Paths([20, 30, 40])
    solved(PathSummary(n=3), script)
    (asked,) = script.summaries
    assert asked.messages[0].text == "RULE"
    text = asked.messages[-1].text
    parts = ["Path 1:", "#### 0", "Path 2:", "#### 1", "Path 3:", "#### 2", "settle where they disagree", "TASK"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert asked.temperature == 0


def test_paths_that_agree_or_are_alone_are_not_summarised() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return "#### 7"

    assert solved(PathSummary(n=3), reply).answer == "7"
    assert solved(PathSummary(n=1, finish=1), reply).answer == "7"
    assert {one.address[0] for one in asked} == {"model"}


@pytest.mark.parametrize("summary", ["I cannot say", EngineError("down")])
def test_where_no_summary_comes_the_vote_of_the_paths_stands(summary: Any) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Any:
        return summary if request.address[0] == "summarizer" else f"#### {min(child, 1)}"

    trace = solved(PathSummary(n=3), reply)
    assert (trace.answer, trace.stopped) == ("1", "finished")


def test_where_paths_do_not_fit_the_last_part_of_each_is_kept_equally() -> None:
    class Small(ScriptedEngine):
        async def bound(self, request: Request) -> Any:
            usage = await super().bound(request)
            if usage.tokens > 1700:
                raise PromptTooLong("too long")
            return usage

    script = Paths([900, 1000, 950])
    trace = run(solve_async(TALK, PathSummary(n=3), model=Small(script), sampling=Sampling(max_tokens=1000)))
    (asked,) = script.summaries
    kept = [asked.messages[-1].text.count(letter * 8) for letter in "abc"]
    assert min(kept) > 0
    text = asked.messages[-1].text
    assert len(text) < 700
    assert all(f"#### {path}" in text for path in range(3))
    assert trace.answer == "42"


def test_a_prompt_shows_which_paths_are_incomplete() -> None:
    (_, asked) = summary_prompt(TALK, ["abc", "def"], [True, False], 2)
    assert "Path 1:\nbc\n\nPath 2 (incomplete):\nef" in asked.text


# ---------------------------------------------------------------- spawn and join

SPAWN = (
    "I split it.\n<spawn>\n<task>Add 1 and 2.</task>\n<task>Add 3 and 4.</task>\n<task>Add 5 and 6.</task>\n</spawn>"
)


class Parent:
    """Spawns so often, and then answers; children add."""

    def __init__(self, *, blocks: int = 1, block: str = SPAWN, child: Any = None) -> None:
        self.blocks, self.block, self.child = blocks, block, child
        self.asked: list[Request] = []

    def __call__(self, request: Request, child: int, rng: np.random.Generator) -> Any:
        self.asked.append(request)
        if request.address[0] == "child":
            one, other = [
                int(word.strip(".")) for word in request.messages[0].text.split() if word.strip(".").isdigit()
            ]
            return self.child or f"<think>hm</think>{'x' * one} is it.\nResult: {one + other}"
        told = "<spawn>" in request.messages[-1].text
        if told and request.prefix_text.count("</spawn>") < self.blocks and MARK not in request.prefix_text:
            return self.block + " and more"
        return "So #### 21"

    def of_role(self, role: str) -> list[Request]:
        return [one for one in self.asked if one.address[0] == role]


def test_children_know_only_their_task_and_the_parent_gets_results_in_order() -> None:
    script = Parent()
    trace = solved(SpawnJoin(), script)
    assert [one.messages for one in script.of_role("child")] == [
        child_prompt(f"Add {k} and {k + 1}.") for k in (1, 3, 5)
    ]
    told = [one.messages[0].text for one in script.of_role("child")]
    assert not any("TASK" in text or "RULE" in text for text in told)
    first, second = script.of_role("model")
    assert first.messages[0].text == "RULE"
    for part in ("TASK", "<spawn>", "<task>", "</spawn>", "at most 2 such blocks with at most 4 tasks"):
        assert part in first.messages[-1].text
    assert second.messages == first.messages
    assert second.prefix_text == SPAWN + joined(["3", "7", "11"])
    assert trace.answer == "21"
    lengths = [len(f"<think>hm</think>{'x' * k} is it.\nResult: {2 * k + 1}") for k in (1, 3, 5)]
    parent = len(SPAWN) + len("So #### 21")
    assert trace.notes == (f"3 threads spawned; {Thread(tokens=parent, rounds=(of_lengths(*lengths),)).note()}",)
    assert trace.usage.completion == parent + sum(lengths)


def test_without_a_block_it_is_one_chain_of_thought() -> None:
    script = Parent(blocks=0)
    trace = solved(SpawnJoin(), script)
    assert len(script.asked) == len(trace.candidates) == 1
    assert trace.notes[0].startswith("0 threads spawned;")


def test_threads_are_bounded_in_number() -> None:
    script = Parent(blocks=99)
    trace = solved(SpawnJoin(children=2, rounds=3), script, most=4000)
    assert len(script.of_role("child")) == 6
    assert script.of_role("model")[3].stop == ()
    assert trace.notes[0].startswith("6 threads spawned;")


def test_a_block_that_cannot_be_read_is_text() -> None:
    script = Parent(block="<spawn>\nAdd 1 and 2.\n</spawn>")
    trace = solved(SpawnJoin(), script)
    assert script.of_role("child") == []
    assert script.of_role("model")[1].prefix_text == "<spawn>\nAdd 1 and 2.\n</spawn>"
    assert trace.answer == "21"


@pytest.mark.parametrize("child", [EngineError("down"), "  "])
def test_children_that_fail_have_no_solution(child: Any) -> None:
    script = Parent(child=child)
    trace = solved(SpawnJoin(), script)
    assert script.of_role("model")[1].prefix_text == SPAWN + joined(["no solution"] * 3)
    assert (trace.answer, trace.stopped) == ("21", "finished")


def test_whatever_the_budget_there_is_room_for_the_answer() -> None:
    for limit in range(408, 4000, 131):
        trace = solved(SpawnJoin(answer_max=30), Parent(blocks=2), most=400, budget=f"{limit}-tokens")
        assert trace.cost["tokens"] <= limit
        assert trace.answer == "21", limit


def test_blocks_and_results_are_read_as_models_write_them() -> None:
    assert read_tasks("no", 4) == read_tasks("<spawn><task>a</task>", 4) == []
    twice = "<spawn><task>old</task></spawn> <spawn>\n<task> a\nb </task><task></task></spawn>"
    assert read_tasks(twice, 4) == ["a\nb"]
    assert read_tasks(SPAWN, 2) == ["Add 1 and 2.", "Add 3 and 4."]
    assert read_result("**Result:** 7 apples") == "7 apples"
    assert read_result("Result: 1\nResult: 2\nbye") == "2"
    assert read_result("so it is\n12") == "12"
    assert read_result("") == "no solution"
    assert len(read_result("x" * 5000)) == 300
    assert read_result("Result: \\boxed{12} #### 3") == "12  3"


@pytest.mark.parametrize(("result", "told"), [("Result: \\boxed{12}", "12"), ("Result: 1" + "2" * 300, "no solution")])
def test_what_a_child_marks_is_not_the_answer_and_what_is_cut_off_is_no_result(result: str, told: str) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if "Work it out" in request.messages[-1].text:
            return result
        return "so\n#### 42" if "<results>" in request.prefix_text else "<spawn><task>Add 5 and 7.</task></spawn>"

    trace = solved(SpawnJoin(), reply)
    assert f"<result>{told}</result>" in str(trace.text)
    assert trace.answer == "42"


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("path_summary", {"n": 0}, "n must be at least 1"),
        ("path_summary", {"n": 2, "finish": 3}, "finish must be at most n"),
        ("path_summary", {"piece": 0}, "piece must be at least 1"),
        ("path_summary", {"max_path": 0}, "max_path must be at least 1"),
        ("spawn_join", {"children": 0}, "children must be at least 1"),
        ("spawn_join", {"rounds": -1}, "rounds must be a number of at least 0"),
        ("spawn_join", {"answer_max": 0}, "answer_max must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_strategy(name, wrong)
