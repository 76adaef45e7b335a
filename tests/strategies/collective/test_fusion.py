"""Fusion: the tree where not all candidates fit, and what keeps a fused answer from standing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError, PromptTooLong
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.sandbox.host import Execution
from outthink.strategies.collective.fusion import fusion_prompt, objection, refuses, script
from outthink.strategies.making import make_strategy
from outthink.types import AnswerKind, Candidate, Code, Message, Problem, Sampling, Trace, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run

Fuse = Callable[[list[str]], str | EngineError]


class Narrow(ScriptedEngine):
    """Takes prompts of at most `longest` characters."""

    longest = 10**9

    async def bound(self, request: Request) -> Usage:
        if sum(len(message.text) for message in request.messages) > self.longest:
            raise PromptTooLong("The prompt is too long.")
        return await super().bound(request)


def listed(prompt: str) -> list[str]:
    return [part.split(":\n")[1].split("\n\n")[0].strip() for part in prompt.split("\nCandidate ")[1:]]


def fusing(texts: list[str], fuse: Fuse, asked: list[list[str]] | None = None, fits: int = 100) -> Narrow:
    """Writes texts[k] as sample k, and as fusor what `fuse` makes of the candidates, of which `fits` fit."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[0] != "fusor":
            return texts[child]
        shown = listed(request.messages[-1].text)
        if asked is not None:
            asked.append(shown)
        return fuse(shown)

    engine = Narrow(reply)
    engine.longest = len(fusion_prompt(problem(), [max(texts, key=len)] * fits)[-1].text)
    return engine


def fused(engine: ScriptedEngine, n: int, *, kind: AnswerKind = "math", seed: int = 0, new: bool = False) -> Trace:
    asked = replace(problem(), answer=kind)
    strategy = make_strategy("fusion", {"n": n, "new_answers": new})
    return run(solve_async(asked, strategy, model=engine, seed=seed, sampling=Sampling(max_tokens=900)))


def sample(text: str, key: str | None = "1", number: int = 0) -> Candidate:
    return Candidate(address=("model", 0, number), text=text, key=key)


GERMAN = "Die Hauptstadt von Frankreich ist natürlich Paris."
CHINESE = "法国的首都当然是巴黎,这是一座位于塞纳河畔的美丽城市。"


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("fine #### 1", "1", ""),
        ("", None, "empty"),
        ("I'm sorry, but I cannot help with that. 1", "1", "refusal"),
        ("<think>easy</think>As an AI I have no number 1", "1", "refusal"),
        (CHINESE, "1", "language"),
        ("fine #### 9", "9", "new answer"),
    ],
)
def test_objections(text: str, key: str | None, why: str) -> None:
    candidates = [sample(GERMAN, "1"), sample(GERMAN + "!", "2", 1), sample("cut", None, 2)]
    assert objection(sample(text, key), candidates, new_answers=False) == why
    assert objection(sample(text, key), candidates, new_answers=True) == ("" if why == "new answer" else why)


def test_what_all_candidates_do_is_no_objection() -> None:
    refusal = "I cannot help with that."
    assert objection(sample(refusal), [sample(refusal + "!")], new_answers=False) == ""
    assert objection(sample(CHINESE), [sample(CHINESE + "!")], new_answers=False) == ""
    assert objection(sample("x", "9"), [sample("y", None)], new_answers=False) == ""  # no candidate has any answer


def test_refusals_and_scripts() -> None:
    assert all(
        refuses(text) for text in ("Sorry, no.", "**I can't** do it", "I am unable to", "Unfortunately, I do not")
    )
    assert not any(refuses(text) for text in ("I canter home", "The man said: I cannot", "", "Asking an AI"))
    assert script(GERMAN) == "LATIN"
    assert script(CHINESE) == "CJK"
    assert script("これはペンです。それもペンです。あれはなんですか。") == "CJK"
    assert script("Москва — столица России, большой город") == "CYRILLIC"
    assert script("x = 1") is None


@pytest.mark.parametrize("said", ["", "I'm sorry, but no. #### 2", "#### 9"])
def test_a_trace_shows_that_a_fused_answer_did_not_stand(said: str) -> None:
    trace = fused(fusing(["a #### 1", "b #### 1", "c #### 2"], lambda shown: said), 3)
    assert trace.answer == "1"
    last = trace.rounds[-1]
    fusor = next(candidate for candidate in trace.candidates if candidate.address[0] == "fusor")
    assert fusor.id in last.candidates
    assert last.chosen != fusor.id
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    candidates = [by_id[name] for name in last.candidates if name != fusor.id]
    assert objection(fusor, candidates, new_answers=False)


def test_an_open_answer_in_another_script_does_not_stand() -> None:
    texts = [CHINESE, CHINESE + "对。", CHINESE + "是的。"]
    assert fused(fusing(texts, lambda shown: GERMAN), 3, kind="text").text in texts
    assert fused(fusing(texts, lambda shown: shown[0] + "好。"), 3, kind="text").text not in texts


@pytest.mark.parametrize("place", range(4))
def test_a_fusor_that_copies_a_candidate_is_a_selector(place: int) -> None:
    texts = ["a #### 1", "b #### 1", "c #### 2", "d #### 3"]
    for seed in range(3):
        trace = fused(fusing(texts, lambda shown: texts[place]), 4, seed=seed)
        assert trace.text == texts[place]


def test_candidates_come_in_an_order_of_the_seed_and_the_answer_need_not_follow_it() -> None:
    texts = [f"{letter} #### {number}" for number, letter in enumerate("abcde")]
    orders = set()
    for seed in range(6):
        asked: list[list[str]] = []
        assert fused(fusing(texts, max, asked), 5, seed=seed).answer == "4"
        again: list[list[str]] = []
        fused(fusing(texts, max, again), 5, seed=seed)
        assert asked == again
        assert sorted(asked[0]) == texts
        orders.add(tuple(asked[0]))
    assert len(orders) > 1  # all six equal: once in 120^5


def test_tokens_of_the_example() -> None:
    """Prompt 100, five candidates of 400, answer of 450: 2,450 written, and the fusor reads 2,100 and its prompt."""
    texts = [letter * 393 + " #### 1" for letter in "abcde"]
    asked = Problem(id="p", messages=(Message(content="?" * 100),))
    engine = fusing(texts, lambda shown: "z" * 443 + " #### 1")
    trace = run(solve_async(asked, make_strategy("fusion", {"n": 5}), model=engine, sampling=Sampling(max_tokens=900)))
    usage = {call.role: call.charged for call in trace.calls}
    template = len(fusion_prompt(asked, [""] * 5)[-1].text) - 100
    assert usage["model"].completion == 2000
    assert usage["fusor"] == Usage(prompt=2100 + template, cached=0, completion=450)
    assert trace.usage.completion == 2450


@pytest.mark.parametrize(
    ("n", "fits", "levels"),
    [
        (5, 5, [[5]]),
        (5, 4, [[4], [2]]),  # four, and one that is left over
        (6, 3, [[3, 3], [2]]),
        (7, 3, [[3, 3], [3]]),
        (5, 2, [[2, 2], [2], [2]]),
        (20, 8, [[5] * 4, [4]]),  # groups of five at most
    ],
)
def test_what_does_not_fit_is_fused_as_a_tree(n: int, fits: int, levels: list[list[int]]) -> None:
    texts = [f"{number:02d} #### {number}" for number in range(n)]
    asked: list[list[str]] = []
    trace = fused(fusing(texts, max, asked, fits=fits), n)
    assert trace.answer == str(n - 1)
    assert [len(shown) for shown in asked] == [size for level in levels for size in level]
    roots = [candidate for candidate in trace.candidates if candidate.id == trace.rounds[-1].chosen]
    assert len(roots[0].parents) == levels[-1][-1]


def test_in_a_tree_too_a_group_falls_back_to_its_majority() -> None:
    texts = ["a #### 1", "b #### 1", "c #### 1", "d #### 2"]
    asked: list[list[str]] = []

    def fuse(shown: list[str]) -> str | EngineError:
        if len(asked) == 1:
            return EngineError("lost")
        return "I'm sorry #### 1" if len(asked) == 2 else shown[0]

    trace = fused(fusing(texts, fuse, asked, fits=2), 4)
    assert [len(shown) for shown in asked] == [2, 2, 2]
    assert set(asked[2]) <= set(texts)
    assert trace.answer in ("1", "2")


def test_where_not_even_two_fit_the_majority_stands_and_the_trace_says_why() -> None:
    trace = fused(fusing(["a #### 1", "b #### 1", "c #### 2"], max, fits=1), 3)
    assert (trace.answer, trace.stopped, trace.error) == ("1", "error", "The prompt is too long.")


# ---- programs -------------------------------------------------------------------------------------------------------


class Runs:
    """A sandbox that says ok where the program has a word in it, and keeps what it ran."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.ran: list[str] = []

    async def test(self, code: Code, answer: str, tests: Sequence[str], *, lane: object = ()) -> Execution:
        source = "\n".join((answer, *tests))
        self.ran.append(source)
        outcome: Literal["ok", "failed"] = "ok" if self.word in source else "failed"
        return Execution(outcome=outcome, stdout="", stderr="", seconds=0.01, error=None)


def programs(said: str, word: str, *tests: str, new: bool = False) -> tuple[Trace, Runs]:
    texts = [f"```python\ndef f():\n    return {number}\n```" for number in (1, 1, 2)]
    asked = replace(problem(), answer="code", code=Code(entry_point="f", tests=tests))

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return said if request.address[0] == "fusor" else texts[child] + " " * child

    sandbox = Runs(word)
    strategy = make_strategy("fusion", {"n": 3, "new_answers": new})
    trace = run(
        solve_async(
            asked,
            strategy,
            model=ScriptedEngine(reply),
            sampling=Sampling(max_tokens=900),
            resources={"sandbox": sandbox},
        )
    )
    return trace, sandbox


MERGED = "```python\ndef f():\n    return 3\n```"


def test_a_merged_program_stands_where_it_passes_the_public_tests() -> None:
    trace, sandbox = programs(MERGED, "return 3", "assert f() == 3", "assert f() > 2")
    assert trace.text == MERGED
    (source,) = sandbox.ran
    assert source.index("return 3") < source.index("assert f() == 3") < source.index("assert f() > 2")
    trace, sandbox = programs(MERGED, "return 4", "assert f() == 4")
    assert trace.text is not None
    assert "return 1" in trace.text
    assert len(sandbox.ran) == 1


def test_nothing_is_asked_of_the_fusor_where_no_merged_program_could_stand() -> None:
    trace, sandbox = programs(MERGED, "return 3")
    assert {call.role for call in trace.calls} == {"model"}
    assert not sandbox.ran
    assert trace.notes == ("Nothing was fused: without public tests no merged program could stand.",)
    trace, _ = programs(MERGED, "return 3", new=True)
    assert trace.text == MERGED


def test_what_is_no_program_does_not_stand() -> None:
    trace, sandbox = programs("I'm sorry, I cannot.", "", "assert f() == 3")
    assert trace.text is not None
    assert "return 1" in trace.text
    assert not sandbox.ran
