"""TrimR: when a thought ends, what the judge is asked, and what is put in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Completion, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.sequential.trimr import _FORCED, _MILD, MARKERS, TrimR, loops, shown
from outthink.strategies.thinking import FORCE
from outthink.types import Message, Problem, Sampling, Trace
from tests.strategies.sequential.test_budget_forcing import Able
from tests.tools.virtual import run

TALK = Problem(id="p", messages=(Message(content="TASK"),), question="QUESTION")


class Thinker:
    """Thinks in parts that state an answer or none (a dot), ends with the last, and answers; the judge reads rightly.

    Args:
        parts: one letter each; the letter is the answer of the part.
        yes: the odds that the judge gives; None: as they are.
    """

    def __init__(self, parts: str, *, judges: bool = True, tail: str = "</think>", length: int = 0) -> None:
        self.parts, self.judges, self.tail, self.length = parts, judges, tail, length
        self.asked: list[Request] = []

    def written(self, place: int) -> str:
        said = self.parts[place]
        return ("Looking." if said == "." else f"So it is <{said}>.") + "x" * self.length

    def __call__(self, request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        self.asked.append(request)
        if request.address[0] == "judge":
            return self.judge(request)
        done = request.prefix_text
        if _MILD in done or FORCE in done or "</think>" in done:
            return "#### 42"
        whole = "\n\nWait, no. ".join(map(self.written, range(len(self.parts)))) + self.tail
        return whole.removeprefix(done)

    def judge(self, request: Request) -> Completion | str:
        text = request.messages[-1].text
        said = [part.split(">")[0] for part in text.split("Question: QUESTION")[1].split("<")[1:]]
        yes = (
            self.judges
            and bool(said)
            and len(set(said)) == 1
            and ("Second:" not in text.split("QUESTION")[1] or len(said) == 2)
        )
        if request.labels:
            return Completion(text="", tokens=1, labels=(-0.1, -3.0) if yes else (-3.0, -0.1))
        return f"Verdict: {'Yes' if yes else 'No'}"

    def trace(self, strategy: TrimR, most: int = 2000, **options: Any) -> Trace:
        engine = options.pop("engine", ScriptedEngine)(self)
        return run(solve_async(TALK, strategy, model=engine, sampling=Sampling(max_tokens=most), **options))

    def judged(self) -> tuple[int, int]:
        """How often the judge was asked whether there is an answer, and whether two are the same."""
        texts = [one.messages[-1].text for one in self.asked if one.address[0] == "judge"]
        same = sum("First:" in text for text in texts)
        return len(texts) - same, same


# ---------------------------------------------------------------- the card's numbers


def test_the_trace_of_the_card_ends_after_its_sixth_part() -> None:
    """None, A, A, B, B, B with M 2: the counter is 1, 0, 1, 2; 6 questions about existence and 4 about equality."""
    thinker = Thinker(".AABBBBBB")
    trace = thinker.trace(TrimR(m=2))
    assert thinker.judged() == (6, 4)
    assert sum(call.n for call in trace.calls if call.role == "judge") == 10
    assert trace.text is not None
    thought, guided, rest = trace.text.partition(_MILD)
    assert (thought.count("So it is"), guided, rest) == (5, _MILD, "#### 42")
    assert not thought.endswith("Wait")
    assert trace.notes[-1].endswith("in 6 parts; ends: 1 settled")


def test_with_m_1_it_ends_at_the_first_conclusion_that_is_said_twice() -> None:
    thinker = Thinker("A.BBCC")
    thinker.trace(TrimR(m=1))
    assert thinker.judged() == (4, 2)


def test_one_noisy_disagreement_starts_the_count_anew() -> None:
    assert Thinker("AABAA.").trace(TrimR(m=2)).notes[-1].endswith("1 natural")


def test_nothing_to_end_it_is_the_plain_run() -> None:
    thinker, plain = Thinker(".AABBBBB"), Thinker(".AABBBBB", tail="</think>#### 42")
    trace = thinker.trace(TrimR(m=0, r_thres=1.0, repeats=0))
    engine = ScriptedEngine(plain)
    alone = run(solve_async(TALK, SelfConsistency(n=1), model=engine, sampling=Sampling(max_tokens=2000)))
    assert trace.text == alone.text
    assert thinker.judged() == (0, 0)
    assert trace.usage.completion == alone.usage.completion


def test_a_judge_that_sees_no_conclusion_is_never_asked_whether_two_are_the_same() -> None:
    thinker = Thinker("AAAAAA", judges=False)
    trace = thinker.trace(TrimR(m=1, n_thres=3, r_thres=0.0))
    assert thinker.judged() == (3, 0)
    assert trace.notes[-1].endswith("1 overrun")


@pytest.mark.parametrize("share", [0.25, 0.5, 0.55])
def test_without_conclusions_it_is_a_hard_limit_at_the_end_of_a_part(share: float) -> None:
    """A part of 95 characters and further ones of 100, of 1,200: rounded up to the next end of a part."""
    thinker = Thinker("." * 30, length=100 - len(", no. Looking.\n\nWait"))
    trace = thinker.trace(TrimR(m=0, n_thres=0, r_thres=share, repeats=0, max_think=1200))
    thought = (trace.text or "").partition(_FORCED)[0]
    assert thought.count("Looking") == 1 + math.ceil((share * 1200 - 95) / 100)
    assert (trace.text or "").endswith(f"</think>\n{FORCE}#### 42")


def test_any_of_the_two_limits_may_do() -> None:
    for mode, parts in (("any", 3), ("all", 12)):
        trace = Thinker("." * 12).trace(TrimR(m=0, n_thres=3, r_thres=1.0, mode=mode, repeats=0))  # type: ignore[arg-type]
        assert (trace.text or "").count("Looking") == parts


# ---------------------------------------------------------------- loops


@given(st.integers(32, 256), st.integers(2, 4), st.integers(0, 31), st.integers(0, 300))
def test_a_block_that_repeats_is_seen_wherever_the_text_is_cut(block: int, times: int, more: int, before: int) -> None:
    unit = list(range(block))
    text = [-1 - k for k in range(before)] + unit * times + unit[:more]
    assert loops(text, times)
    assert not loops(text[: before + block * (times - 1) + block // 2], times)


def test_what_does_not_repeat_is_no_loop() -> None:
    assert not loops(list(range(5000)), 3)
    assert not loops([1, 2] * 40, 3)  # too short for three blocks of 32
    assert not loops([1] * 1000, 0)


def test_a_thought_that_loops_is_ended_although_it_has_no_parts() -> None:
    unit = "".join(chr(65 + place) for place in range(50))

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 42" if FORCE in request.prefix_text else (unit * 100)[len(request.prefix_text) % 50 :]

    trace = run(solve_async(TALK, TrimR(), model=ScriptedEngine(reply), sampling=Sampling(max_tokens=4000)))
    assert trace.notes[-1].endswith("1 looping")
    assert trace.usage.completion == 512 + len("#### 42")


def test_an_engine_may_write_on_to_the_end_of_a_token_behind_a_stop_string() -> None:
    """As the embedded one does: the marks are seen and cut all the same."""
    parts = [("So it is <A>.\n\nWait, ", "stop"), ("it is <A> again.\n\nWait, ", "stop"), ("yes</think>\n\n", "stop")]

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        seen.append(request.prefix_text)
        if request.labels:
            return Completion(text="", tokens=1, labels=(-0.1, -3.0))
        if _MILD in request.prefix_text or "</think>" in request.prefix_text:
            return Completion(text="#### 42", tokens=7)
        text, finish = parts[request.prefix_text.count("Wait")]
        return Completion(text=text, tokens=len(text), token_ids=tuple(map(ord, text)), finish=finish)  # type: ignore[arg-type]

    seen: list[str] = []
    for m, last in ((1, f"So it is <A>.\n\nWait, it is <A> again.{_MILD}"), (0, "yes</think>\n\n")):
        trace = run(solve_async(TALK, TrimR(m=m), model=ScriptedEngine(reply), sampling=Sampling(max_tokens=900)))
        assert seen[-1].endswith(last)
        assert trace.answer == "42"


def test_where_no_thoughts_are_marked_the_answer_comes_in_a_line_of_its_own() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion | str:
        if request.labels:
            return Completion(text="", tokens=1, labels=(-0.1, -3.0))
        return " 7" if _MILD in request.prefix_text else "#### 5\n\nWait, it is\n#### 5\n\nWait, no"

    engine = ScriptedEngine(reply)
    strategy = TrimR(m=1, think_close="")
    trace = run(solve_async(TALK, strategy, model=engine, sampling=Sampling(max_tokens=900)))
    assert (trace.answer, trace.notes[-1].rpartition(" ")[2]) == ("7", "settled")


# ---------------------------------------------------------------- what is sent


def test_the_judge_is_sent_question_and_end_of_the_part_and_the_model_its_own_thought() -> None:
    thinker = Thinker("AAA", length=0)
    thinker.trace(TrimR(m=1))
    exists, also, same = (one.messages[-1].text for one in thinker.asked if one.address[0] == "judge")
    assert all("Question: QUESTION" in text and "Yes or No only" in text for text in (exists, also, same))
    assert "So it is <A>." in exists
    assert "First: So it is <A>.\nSecond: , no. So it is <A>." in same
    policy = [one for one in thinker.asked if one.address[0] == "model"]
    assert policy[0].stop == (*MARKERS, "</think>")
    assert all(one.messages == TALK.messages for one in policy)
    assert policy[-1].prefix_text.endswith(_MILD)


def test_only_the_last_sentences_are_shown() -> None:
    assert shown("One. Two! Three? Four. Five. Six.") == "Two! Three? Four. Five. Six."
    assert len(shown("word " * 5000)) <= 1600


def test_a_judge_that_only_writes_is_asked_for_a_verdict() -> None:
    thinker = Thinker(".AAB")
    trace = thinker.trace(TrimR(m=1), engine=lambda reply: Able(reply, without=("labels",)))
    assert thinker.judged() == (3, 1)
    assert trace.notes[-1].endswith("1 settled")
    assert all(
        "Verdict: Yes or Verdict: No" in one.messages[-1].text for one in thinker.asked if one.address[0] == "judge"
    )


def test_a_judge_that_fails_ends_no_thought() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Any:
        return EngineError("down") if request.address[0] == "judge" else thinker(request, child, rng)

    thinker = Thinker("AAAAAA")
    trace = run(solve_async(TALK, TrimR(), model=ScriptedEngine(reply), sampling=Sampling(max_tokens=2000)))
    assert (trace.answer, trace.notes[-1].rpartition(" ")[2]) == ("42", "natural")


def test_the_judge_never_spends_what_the_answers_need() -> None:
    for limit in range(330, 6000, 170):
        thinker = Thinker("A" * 20)
        trace = thinker.trace(TrimR(n=2, m=4, answer_max=20), most=300, budget=f"{limit}-tokens")
        assert trace.cost["tokens"] <= limit
        assert trace.answer == "42", limit


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"m": -1}, "m must be a number of at least 0"),
        ({"r_thres": 2}, "r_thres must be in"),
        ({"repeats": 1}, "repeats must be at least 2"),
        ({"markers": ()}, "markers must have at least one text"),
        ({"mode": "one"}, "mode"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_strategy("trimr", wrong)
