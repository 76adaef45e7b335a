"""What theory says of single strategies, on scripted models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.fusion import fusion_prompt
from outthink.strategies.making import make_strategy
from outthink.strategies.sequential.revision import revision_prompt
from outthink.types import Problem, Trace
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

PROBLEMS = 1500


def accuracy(name: str, parameters: dict[str, object], p: float, **options: object) -> float:
    async def go() -> float:
        right = 0
        for number in range(PROBLEMS):
            trace = await solve_async(problem(f"p{number}"), make_strategy(name, parameters), model=coin(p), **options)  # type: ignore[arg-type]  # passed on
            right += trace.answer == "42"
        return right / PROBLEMS

    return run(go())


def near(expected: float) -> object:
    """Within 4 standard errors: a false alarm in 1 of 16,000, and the seed is fixed."""
    return pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / PROBLEMS))


@pytest.mark.parametrize(("p", "n"), [(0.2, 4), (0.05, 8)])
def test_best_of_n_with_an_exact_verifier_is_coverage(p: float, n: int) -> None:
    async def exact(question: str, text: str) -> float:
        return float("42" in text)

    assert accuracy("best_of_n", {"n": n}, p, verifier=exact) == near(1 - (1 - p) ** n)


@pytest.mark.parametrize(("p", "n"), [(0.6, 5), (0.4, 5)])
def test_majority_of_two_answers_is_the_binomial_tail(p: float, n: int) -> None:
    tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))
    assert accuracy("self_consistency", {"n": n}, p) == near(tail)


def test_a_constant_verifier_is_one_sample_for_best_of_n_and_the_majority_for_the_weighted_form() -> None:
    async def constant(question: str, text: str) -> float:
        return 0.5

    assert accuracy("best_of_n", {"n": 5}, 0.4, verifier=constant) == near(0.4)
    for seed in range(20):
        weighted = run(
            solve_async(problem(), make_strategy("weighted_best_of_n", {"n": 5}), model=coin(0.4, wrong=3), seed=seed,
                        verifier=constant)
        )  # fmt: skip
        plain = run(
            solve_async(problem(), make_strategy("self_consistency", {"n": 5}), model=coin(0.4, wrong=3), seed=seed)
        )
        assert weighted.answer == plain.answer


def revise(model: ScriptedEngine, **parameters: object) -> Trace:
    return run(solve_async(problem(), make_strategy("revision", parameters), model=model))


def test_revision_shows_the_most_recent_attempts_oldest_first() -> None:
    shown: dict[tuple[str | int, ...], list[str]] = {}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        text = request.messages[-1].text
        shown[request.address] = [line for line in text.splitlines() if line.startswith("#### ")]
        return f"#### {request.address[-1]}{request.address[-2]}"

    trace = revise(ScriptedEngine(reply), n=16, ratio=1, context=2)
    assert len(trace.candidates) == 16
    for chain in range(4):
        windows = [shown["model", "chain", chain, turn] for turn in range(4)]
        assert [len(window) for window in windows] == [0, 1, 2, 2]
        assert windows[3] == [f"#### 1{chain}", f"#### 2{chain}"]
    assert [len(candidate.parents) for candidate in trace.candidates[:4]] == [0, 1, 2, 2]


def test_revision_of_length_one_is_parallel_sampling_with_a_vote() -> None:
    trace = revise(coin(0.5, wrong=3), n=5, ratio=0.2)
    assert len(trace.rounds) == 1
    counts = [candidate.key for candidate in trace.candidates]
    assert counts.count(trace.key) == max(counts.count(key) for key in counts)


def test_revision_chains_follow_the_markov_model() -> None:
    """Right stays right with 1 - 0.38, wrong becomes right with 0.20; from 0.30 the fourth attempt is at 0.34151.

    One of the four is right with 1 - 0.7 * 0.8^3, which is what choosing among them could win.
    """

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        attempts = [line for line in request.messages[-1].text.splitlines() if line.startswith("#### ")]
        p = 0.3 if not attempts else 0.62 if attempts[-1] == "#### 42" else 0.2
        return f"#### {42 if rng.random() < p else 7}"

    async def go() -> tuple[list[float], list[float]]:
        right, ever = np.zeros(4), np.zeros(4)
        for number in range(PROBLEMS):
            trace = await solve_async(
                problem(f"p{number}"),
                make_strategy("revision", {"n": 4, "ratio": 4, "selector": "last"}),
                model=ScriptedEngine(reply),
            )
            hits = np.array([answered.answer == "42" for answered in trace.rounds])
            right += hits
            ever += np.maximum.accumulate(hits)
        return list(right / PROBLEMS), list(ever / PROBLEMS)

    right, ever = run(go())
    for measured, expected in zip(right, [0.30, 0.3260, 0.33692, 0.34151], strict=True):
        assert measured == near(expected)
    for measured, expected in zip(ever, [0.30, 0.44, 0.552, 0.6416], strict=True):
        assert measured == near(expected)


@pytest.mark.parametrize("hierarchical", [False, True])
@pytest.mark.parametrize("selector", ["majority", "weighted_vote", "best", "last", ""])
def test_every_selector_of_revision(selector: str, hierarchical: bool) -> None:
    strategy = make_strategy("revision", {"selector": selector, "hierarchical": hierarchical, "n": 12, "ratio": 4 / 3})
    trace = run(solve_async(problem(), strategy, model=coin(0.5), verifier="confidence"))
    assert trace.answer is not None
    if selector == "last":
        assert trace.rounds[-1].chosen == "model/chain/0/3/0"


def test_a_chain_that_fails_ends_and_the_others_go_on() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address == ("model", "chain", 1, 1):
            raise RuntimeError("lost")
        return "#### 42"

    trace = revise(ScriptedEngine(reply), n=6, ratio=1.5)
    assert len(trace.candidates) == 4
    assert trace.answer == "42"


def fusing(answer: str, *texts: str) -> ScriptedEngine:
    """Writes texts[k] as sample k, and `answer` as fusor."""
    return ScriptedEngine(lambda request, child, rng: answer if request.address[0] == "fusor" else texts[child])


def fuse(model: ScriptedEngine, **parameters: object) -> Trace:
    return run(solve_async(problem(), make_strategy("fusion", {"n": 3, **parameters}), model=model))


def test_fusion_takes_the_fusors_answer_and_knows_its_parents() -> None:
    trace = fuse(fusing("so #### 2", "a #### 1", "b #### 1", "c #### 2"))
    assert trace.answer == "2"
    assert trace.rounds[0].answer == "1"
    fused = next(candidate for candidate in trace.candidates if candidate.address[0] == "fusor")
    assert len(fused.parents) == 3
    assert {call.role for call in trace.calls} == {"model", "fusor"}


@pytest.mark.parametrize("fused", ["", "I cannot say", "#### 9"])
def test_fusion_falls_back_to_the_majority(fused: str) -> None:
    assert fuse(fusing(fused, "a #### 1", "b #### 1", "c #### 2")).answer == "1"


def test_fusion_may_write_a_new_answer_where_that_is_allowed() -> None:
    assert fuse(fusing("#### 9", "a #### 1", "b #### 1", "c #### 2"), new_answers=True).answer == "9"


def test_equal_candidates_are_not_fused_and_duplicates_are_shown_once() -> None:
    assert all(call.role == "model" for call in fuse(fusing("#### 9", *["#### 1"] * 3)).calls)
    assert fusion_prompt(problem(), ["x", "y"])[-1].text.count("Candidate ") == 2
    (fused,) = (call for call in fuse(fusing("#### 1", "#### 1", "#### 1", "#### 2")).calls if call.role == "fusor")
    assert fused.seen.prompt == len(fusion_prompt(problem(), ["#### 1", "#### 2"])[-1].text)


def test_prompts_keep_the_conversation() -> None:
    asked = problem(text="What?")
    assert revision_prompt(asked, []) == asked.messages
    assert revision_prompt(asked, ["one", "two"])[-1].text.index("one") < revision_prompt(asked, ["one", "two"])[
        -1
    ].text.index("two")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("best_of_n", {"n": 0}, "n must be at least 1"),
        ("best_of_n", {"n": "x"}, "valid integer"),
        ("best_of_n", {"aggregate": "median"}, "aggregate"),
        ("revision", {"ratio": -1}, "ratio must be at least 0"),
        ("fusion", {"temperature": -1}, "temperature must be at least 0"),
        ("rebase", {"balance": 0}, "balance"),
        ("a_star", {"k": 0}, "k must be"),
        ("best_of_n", {"m": 3}, "did you mean 'n'|known"),
        ("outthink.nothing:X", {}, "Cannot load"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy(name, parameters)


def test_truncated_samples_do_not_vote() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 7" + " and so on" * 100 if child else "#### 42"

    trace = run(solve_async(problem(), make_strategy("self_consistency", {"n": 4}), model=ScriptedEngine(reply)))
    assert trace.answer == "42"
    assert [candidate.finish for candidate in trace.candidates] == ["eos", "length", "length", "length"]
    assert [candidate.key is None for candidate in trace.candidates] == [False, True, True, True]


def test_no_valid_answer_is_no_answer() -> None:
    trace = run(solve_async(Problem(id="p", messages=problem().messages), "self_consistency",
                            model=ScriptedEngine(lambda request, child, rng: "I do not know.")))  # fmt: skip
    assert (trace.answer, trace.stopped, trace.confidence) == (None, "finished", 0.0)
