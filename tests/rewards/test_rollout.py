"""Monte Carlo values: what is continued, what counts, and that completions are no answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, MissingResource, NothingCameBack, PromptTooLong, UsageError
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards.making import close_scorer, make_scorer
from outthink.rewards.rollout import Rollout
from outthink.strategies.making import make_strategy
from outthink.types import Candidate, Code, Message, Problem, Sampling, Trace, Usage
from tests.strategies.search.test_search import steps
from tests.tools.scoring import Box, chain, samples, scored
from tests.tools.toys import problem
from tests.tools.virtual import run


def ends_in(number: str) -> Callable[[str, str], float]:
    return lambda question, solution: float(solution.endswith(f"#### {number}"))


def saying(*texts: str | EngineError) -> ScriptedEngine:
    """Child k of every request says texts[k]."""
    return ScriptedEngine(lambda request, child, rng: texts[child])


def test_the_value_is_the_mean_score_of_the_completions() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return ["two\n\n#### 42", "#### 41", "#### 42", "#### 40"][child]

    path = chain("one\n\n")
    scores, meter = scored(Rollout(m=4, verifier=ends_in("42")), ScriptedEngine(reply), [path])
    assert scores == (0.5,)
    assert {request.prefix_text for request in asked} == {"one\n\n"}
    assert {request.prefix_ids for request in asked} == {path[0].token_ids}
    assert [(call.kind, call.role, call.n) for call in meter.calls if call.kind == "sample"] == [
        ("sample", "rollout", 4)
    ]
    written = [candidate for candidate in meter.candidates.values() if candidate.address[0] == "rollout"]
    assert [(one.complete, one.key, one.parents, one.continues) for one in written] == [
        (False, None, (path[0].id,), True)
    ] * 4


def test_many_completions_are_the_chance_of_success() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"#### {42 if rng.random() < 0.3 else 41}"

    scores, _ = scored(Rollout(m=1000, verifier=ends_in("42")), ScriptedEngine(reply), [chain("one\n\n")])
    # a mean of 1,000 has a deviation of 0.0145; five of them are passed once in 1.7 million seeds
    assert scores == pytest.approx((0.3,), abs=0.0725)


def test_a_path_that_has_ended_is_scored_as_it_is() -> None:
    ended = chain("one\n\n", "#### 42", done=True)
    aside = Candidate(address=("model", "x", 0, 0), text="#### 42", complete=False, finish="eos")
    scores, meter = scored(Rollout(verifier=ends_in("42")), saying(), [ended, [aside], chain("#### 41", done=True)])
    assert scores == (1.0, 1.0, 0.0)
    assert {call.kind for call in meter.calls} == {"verify"}

    class Complete:
        async def score(self, problem: Problem, paths: Any) -> list[float]:
            return [float(path[-1].complete) for path in paths]

    for path in (ended, [aside], chain("one\n\n")):  # a verifier is shown answers, also where they were written aside
        assert scored(Rollout(verifier=Complete()), saying(*["#### 42"] * 4), [path])[0] == (1.0,)


def test_completions_that_were_cut_off_are_no_successes_and_those_that_failed_do_not_count() -> None:
    texts = ("#### 42", EngineError("lost"), "x" * 500, "#### 42")
    scores, meter = scored(Rollout(verifier=lambda question, solution: 1.0), saying(*texts), [chain("one\n\n")])
    assert scores == pytest.approx((2 / 3,))
    assert sum(call.failed for call in meter.calls) == 1
    nothing, _ = scored(Rollout(verifier=lambda question, solution: None), saying(*texts[:1] * 4), [chain("one\n\n")])
    assert nothing == (None,)


def test_completions_have_the_room_that_an_answer_has() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return "#### 42"

    full = [Candidate(address=("model", "f", 0, 0), text="x" * 200, tokens=200, complete=False, finish="length")]
    paths = [chain("one\n\n", "two\n\n"), full]
    assert scored(Rollout(m=1, verifier=ends_in("42")), ScriptedEngine(reply), paths)[0] == (1.0, 0.0)
    assert [request.max_tokens for request in asked] == [200 - 10]


def test_equal_steps_are_completed_once() -> None:
    paths = [chain("one\n\n"), chain("one\n\n"), chain("two\n\n")]
    _, meter = scored(Rollout(m=2, verifier=ends_in("42")), saying("#### 42", "#### 41"), paths, before=[paths])
    assert [call.n for call in meter.calls if call.kind == "sample"] == [2, 2]
    # the ends are "one 42", "one 41", "two 42", "two 41"
    assert sum(call.kind == "verify" for call in meter.calls) == 4


# ------------------------------------------------------------------------------------------------ cut samples


def best(reply: Reply, prm: Any, n: int = 1, **options: Any) -> Trace:
    strategy = make_strategy("best_of_n", {"n": n, "aggregate": "mean"})
    return run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm=prm, **options))


def test_the_steps_of_a_sample_are_continued_as_text() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] != "rollout":
            return "one\n\n\n\ntwo\n\n#### 42"
        asked.append(request)
        return f"#### {42 if 'two' in request.prefix_text else 41 + child}"

    trace = best(reply, Rollout(m=2, verifier=ends_in("42")))
    assert trace.rounds[-1].scores == pytest.approx(((0.5 + 1 + 1) / 3,))  # after one, after two, at the end
    assert [(request.prefix_text, request.prefix_ids) for request in asked[::2]] == [
        ("one\n\n", ()),
        ("one\n\ntwo\n\n", ()),
    ]
    assert trace.answer == "42"
    (sample,) = (candidate for candidate in trace.candidates if candidate.complete)
    for candidate in trace.candidates:
        if candidate.continues:  # the whole texts of completions begin with the steps, not with the sample
            assert trace.whole_text(candidate.id).startswith("one\n\n")
            assert len(trace.whole_text(candidate.id)) < len(sample.text) + 2
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    assert all(0 < 512 - request.max_tokens <= sample.tokens for request in asked)


def test_a_sample_that_was_cut_off_has_no_value_at_its_end() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 42" if request.address[0] == "rollout" else "one\n\n" + "x" * 100

    trace = best(reply, Rollout(m=1, verifier=ends_in("42")), sampling=Sampling(max_tokens=60))
    assert trace.rounds[-1].scores == (0.5,)


# ------------------------------------------------------------------------------------------------ another model


def test_another_model_continues_the_text_and_not_the_tokens() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request)
        return "#### 42"

    other = ScriptedEngine(reply, name="other")
    scorer = Rollout(m=1, verifier=ends_in("42"))
    scores, meter = scored(scorer, saying(), [chain("one\n\n", "two\n\n")], models={"rollout": other})
    assert scores == (1.0,)
    assert (asked[0].prefix_text, asked[0].prefix_ids) == ("one\n\ntwo\n\n", ())
    assert {call.role for call in meter.calls} == {"rollout", "verifier"}


def test_a_model_that_cannot_continue_is_refused() -> None:
    class Mute(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return EngineSpec(name="mute")

    mute = Mute(lambda request, child, rng: "#### 42")
    with pytest.raises(MissingResource, match="mute cannot do that"):
        scored(Rollout(verifier=ends_in("42")), saying(), [chain("one\n\n")], models={"rollout": mute})


def test_a_path_too_long_for_the_other_model_does_not_cost_the_others() -> None:
    class Narrow(ScriptedEngine):
        async def bound(self, request: Request) -> Usage:
            if len(request.prefix_text) > 20:
                raise PromptTooLong("too long")
            return await super().bound(request)

    narrow = Narrow(lambda request, child, rng: "#### 42", name="narrow")
    paths = [chain("one\n\n"), chain("x" * 50), chain("two\n\n")]
    scorer = Rollout(m=1, verifier=ends_in("42"))
    assert scored(scorer, saying(), paths, models={"rollout": narrow})[0] == (1.0, None, 1.0)


# ------------------------------------------------------------------------------------------------ inner verifiers


def test_a_judge_inside_is_bound_and_metered() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.labels:
            p = 0.9 if "#### 42" in request.messages[-1].text else 0.2
            return Completion(text="Yes", tokens=2, labels=(math.log(p), math.log(1 - p)))
        return ["#### 42", "#### 41"][child]

    scores, meter = scored(
        make_scorer("rollout?m=2&verifier=judge", process=True), ScriptedEngine(reply), [chain("a\n\n")]
    )
    assert scores == pytest.approx((0.55,))
    assert sorted((call.kind, call.role) for call in meter.calls) == [
        ("judge", "judge"),
        ("judge", "judge"),
        ("sample", "rollout"),
    ]


def test_tests_inside_run_in_the_sandbox() -> None:
    question = Problem(
        id="p",
        messages=(Message(content="Write two()."),),
        answer="code",
        code=Code(entry_point="two", tests=("assert two() == 2",)),
    )
    engine = saying("return 2\n```", "return 2 + 0\n```")
    box = Box(lambda source: "")
    scores, meter = scored(
        make_scorer("rollout?m=2&verifier=tests", process=True),
        engine,
        [chain("```python\ndef two():\n    ")],
        box=box,
        question=question,
    )
    assert scores == (1.0,)
    assert [source.strip().splitlines()[:2] for source in sorted(box.sources)] == [
        ["def two():", "    return 2"],
        ["def two():", "    return 2 + 0"],
    ]
    assert {call.kind for call in meter.calls} == {"sample", "execute"}


def test_a_verifier_that_compares_compares_all_completions() -> None:
    scorer = make_scorer("rollout?m=2&verifier=pairwise", process=True)
    assert scorer.relative  # type: ignore[attr-defined]  # of this one

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if not request.labels:
            return f"#### {child}"
        return Completion(text="A", tokens=2, labels=(-0.5, -0.5))

    paths = [chain("one\n\n"), chain("two\n\n")]
    scores, meter = scored(scorer, ScriptedEngine(reply), paths, before=[paths])
    assert scores == pytest.approx((0.5, 0.5))
    assert sum(call.kind == "judge" for call in meter.calls) == 2 * 4 * 3


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(EngineError, match=r"must give scores in \[0, 1\], and one is 3"):
        scored(Rollout(verifier=lambda question, solution: 3.0), saying(*["#### 42"] * 4), [chain("one\n\n")])


def test_confidence_inside_is_that_of_the_whole_path() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        if not request.prefix_text:
            return Completion(text="one\n\n", tokens=2, token_ids=(1, 2), logprobs=(-1.0, -1.0), finish="stop")
        return Completion(text="#### 42", tokens=2, token_ids=(3, 4), logprobs=(-3.0, -3.0))

    strategy = make_strategy("rebase", {"width": 1})
    trace = run(solve_async(problem(), strategy, model=ScriptedEngine(reply), prm="rollout?m=2"))
    first = next(candidate for candidate in trace.candidates if candidate.address[0] == "model")
    assert first.text == "one\n\n"
    assert trace.rounds[-1].scores == pytest.approx((math.exp(-2.0),))


class Closing:
    def __init__(self) -> None:
        self.closed = 0

    async def score(self, problem: Problem, paths: Any) -> list[float]:
        return [1.0] * len(paths)

    async def close(self) -> None:
        self.closed += 1


def test_what_was_opened_here_is_closed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Closing()
    run(close_scorer(Rollout(verifier=mine)))
    assert mine.closed == 0
    made = make_scorer("rollout?verifier=http://host:1/score%23model", process=True)
    closed: list[object] = []

    async def close(scorer: object) -> None:
        closed.append(scorer)

    monkeypatch.setattr("outthink.rewards.inner.close_scorer", close)
    run(close_scorer(made))
    assert [type(scorer).__name__ for scorer in closed] == ["RemoteScorer"]
    assert made.spec.name == "model"  # type: ignore[attr-defined]  # of this one


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_dead_model_says_so_where_nothing_else_is_known() -> None:
    dead = saying(*[EngineError("the endpoint is gone")] * 4)
    with pytest.raises(NothingCameBack, match="the endpoint is gone"):
        scored(Rollout(verifier=ends_in("42")), dead, [chain("one\n\n")])
    ended = chain("#### 42", done=True)
    assert scored(Rollout(verifier=ends_in("42")), dead, [chain("one\n\n"), ended])[0] == (None, 1.0)


def test_a_verifier_that_raises_leaves_the_value_missing() -> None:
    def broken(question: str, solution: str) -> float:
        raise RuntimeError("out of memory")

    assert scored(Rollout(verifier=broken), saying(*["#### 42"] * 4), [chain("one\n\n")])[0] == (None,)


@pytest.mark.parametrize("limit", [20, 60, 100, 200, 1000, 5000])
def test_it_stays_within_the_budget(limit: int) -> None:
    paths = [chain(f"{number}\n\n") for number in range(3)]
    scorer = Rollout(m=3, verifier=ends_in("42"))
    try:
        scores, meter = scored(scorer, saying(*["#### 42"] * 3), paths, budget=f"{limit}-tokens", max_tokens=50)
    except BudgetExhausted:
        assert limit < 100
        return
    assert meter.cost()["tokens"] <= limit
    assert set(scores) <= {1.0, None}
    assert scores[0] == 1.0
    assert limit < 5000 or scores == (1.0,) * 3


@pytest.mark.parametrize("name", ["rebase", "a_star"])
def test_a_search_does_not_depend_on_what_finishes_first(name: str) -> None:
    def solved(latency: Callable[[Request, int], float] | None) -> Trace:
        engine = ScriptedEngine(steps, latency=latency)
        strategy = make_strategy(name, {"width": 4} if name == "rebase" else {"k": 3, "max_calls": 30})
        prm = Rollout(m=3, verifier=lambda question, solution: (hash_of(solution) % 97) / 96)
        return run(solve_async(problem(), strategy, model=engine, prm=prm, seed=5))

    delays = random.Random(1)
    first, second = solved(None), solved(lambda request, child: delays.random())
    assert first.candidates == second.candidates
    assert [answered.scores for answered in first.rounds] == [answered.scores for answered in second.rounds]
    assert [call.address for call in first.calls] == [call.address for call in second.calls]
    assert first.usage.completion == sum(candidate.tokens for candidate in first.candidates)
    assert all(candidate.address[0] == "model" for candidate in first.candidates if candidate.key is not None)
    chosen = [candidate for candidate in first.candidates if candidate.id == first.rounds[-1].chosen]
    assert [candidate.address[0] for candidate in chosen] == ["model"]
    assert any(line.role == "rollout" for line in first.ledger())


def hash_of(text: str) -> int:
    return sum(ord(character) * (place + 1) for place, character in enumerate(text))


@pytest.mark.parametrize("limit", [300, 700, 2000])
def test_a_search_stays_within_the_budget_and_still_answers(limit: int) -> None:
    trace = run(
        solve_async(
            problem(),
            make_strategy("rebase", {"width": 3}),
            model=ScriptedEngine(steps),
            prm="rollout?m=2",
            budget=f"{limit}-tokens",
            sampling=Sampling(max_tokens=60),
        )
    )
    assert trace.cost["tokens"] <= limit
    assert (trace.stopped == "budget") == (limit < 2000)


def test_options() -> None:
    assert make_scorer("rollout", process=True) == Rollout()
    assert make_scorer("rollout?m=8&verifier=judge%3Fvotes=3", process=True) == Rollout(m=8, verifier="judge?votes=3")
    assert make_scorer("rollout?m=8&verifier=judge?votes=3", process=True) == Rollout(m=8, verifier="judge?votes=3")


@pytest.mark.parametrize(
    ("name", "process", "said"),
    [
        ("rollout", False, "rollout: it scores steps and not whole answers"),
        ("rollout?m=0", True, "rollout: m must be at least 1, not 0"),
        ("rollout?verifier=jugde", True, "did you mean 'judge'"),
        ("rollout?verifier=judge?votes=-1", True, "judge: votes must be at least 0, not -1"),
        ("rollout?n=3", True, "no option of rollout 'n'"),
    ],
)
def test_options_that_cannot_be(name: str, process: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_scorer(name, process=process)


def test_samples_are_not_confused_with_their_steps() -> None:
    whole = samples("one\n\n#### 42")
    scores, meter = scored(Rollout(verifier=ends_in("42")), saying(), whole)
    assert scores == (1.0,)
    assert len(meter.calls) == 1
