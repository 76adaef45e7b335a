"""AB-MCTS: worked posteriors, the shapes that forced choices give, and what the tree may never lose."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import stats

from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, NothingCameBack, PromptTooLong
from outthink.models.engine import Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards import Path
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search import ab_mcts
from outthink.strategies.search.ab_mcts import ABMCTS, AnswerNode, AnswerTree, beta, gaussian, thompson
from outthink.strategies.sequential.revision import Revision, revision_prompt
from outthink.types import Candidate, Problem, Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run


@dataclass
class Judge:
    """A score by the text; remembers each text it was asked about, batch by batch."""

    value: Callable[[str], float | None]
    batches: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        self.batches.append([path[-1].text for path in paths])
        await asyncio.sleep(self.seconds)
        return [self.value(text) for text in self.batches[-1]]


def solved(strategy: Any, reply: Reply, value: Callable[[str], float | None], **options: Any) -> Trace:
    engine = ScriptedEngine(reply)
    return run(solve_async(problem(), strategy, model=engine, verifier=Judge(value), **options))


def digits(request: Request, child: int, rng: np.random.Generator) -> str:
    return f"#### {int(rng.integers(100, 1000))}"


def number(text: str) -> float:
    return int(text[-3:]) / 1000


def shown(request: Request) -> int:
    """The answer that a prompt shows; 0 where it shows none."""
    return int(request.messages[-1].text.partition("Attempt 1:\n#### ")[2][:3] or 0)


def depths(trace: Trace) -> dict[str, int]:
    """How many answers led to each, itself included."""
    depth: dict[str, int] = {}
    for candidate in sorted(trace.candidates, key=lambda one: [str(part).zfill(9) for part in one.address]):
        assert len(candidate.parents) <= 1
        depth[candidate.id] = 1 + (depth[candidate.parents[0]] if candidate.parents else 0)
    return depth


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> list[AnswerTree]:
    """The trees that were searched."""
    made: list[AnswerTree] = []

    class Kept(AnswerTree):
        def __init__(self, prior: ab_mcts.Prior) -> None:
            super().__init__(prior)
            made.append(self)

    monkeypatch.setattr(ab_mcts, "AnswerTree", Kept)
    return made


# ---- posteriors -----------------------------------------------------------------------------------------------------


def test_worked_posteriors() -> None:
    assert [float(part) for part in gaussian([0.5, 0.7])] == pytest.approx([0.4, 3, 3, 0.12])
    assert [float(part) for part in gaussian([])] == pytest.approx([0, 1, 1, 0.1])
    a, b = beta([0.5, 0.7])
    assert (float(a), float(b), float(a / (a + b))) == pytest.approx((1.7, 1.3, 0.5667), abs=1e-4)
    assert [float(part) for part in beta([])] == [0.5, 0.5]


def test_the_gaussian_posterior_is_that_of_one_score_after_the_other() -> None:
    scores = np.random.default_rng(0).random((5, 7))
    m, kappa, nu, t2 = np.zeros(5), np.ones(5), np.ones(5), np.full(5, 0.1)
    for y in scores.T:
        t2 = (nu * t2 + kappa / (kappa + 1) * (y - m) ** 2) / (nu + 1)
        m = (kappa * m + y) / (kappa + 1)
        kappa, nu = kappa + 1, nu + 1
    for value, expected in zip(gaussian(scores), (m, kappa, nu, t2), strict=True):
        assert value == pytest.approx(expected, rel=1e-12)


def test_posteriors_take_any_batch_and_missing_scores_count_nothing() -> None:
    rows = np.random.default_rng(1).random((2, 3, 4))
    rows[0, 1, 2:] = np.nan
    rows[1, 0] = np.nan
    for law in (gaussian, beta):
        whole = law(rows)
        for place in itertools.product(range(2), range(3)):
            row = rows[place]
            for part, alone in zip(whole, law(row[~np.isnan(row)]), strict=True):
                assert part.shape == (2, 3)
                assert part[place] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("scores", [[], [0.5, 0.7], [0.0, 1.0, 1.0, 0.2, 0.9]])
def test_draws_follow_the_posterior(scores: list[float]) -> None:
    # of 4000 draws each; a p-value below 1e-6 is a false alarm of so many runs, and the seed is fixed
    many = np.broadcast_to(np.array(scores), (4000, len(scores)))
    m, kappa, nu, t2 = gaussian(scores)
    drawn = thompson(many, "gaussian", np.random.default_rng(2))
    assert stats.kstest(drawn, stats.t(df=nu, loc=m, scale=math.sqrt(t2 / kappa)).cdf).pvalue > 1e-6
    drawn = thompson(many, "beta", np.random.default_rng(3))
    assert stats.kstest(drawn, stats.beta(*map(float, beta(scores))).cdf).pvalue > 1e-6


# ---- the tree -------------------------------------------------------------------------------------------------------


def answer(name: int) -> Candidate:
    return Candidate(address=("model", name))


def grown(scores: Sequence[float], seed: int, prior: ab_mcts.Prior = "gaussian") -> AnswerTree:
    tree = AnswerTree(prior)
    for name, score in enumerate(scores):
        tree.tell(tree.ask(np.random.default_rng((seed, name))), answer(name), score)
    return tree


def size(node: AnswerNode) -> int:
    return 1 + sum(size(child) for child in node.children)


@pytest.mark.parametrize("prior", ["gaussian", "beta", "mixed"])
def test_every_score_is_where_it_belongs(prior: ab_mcts.Prior) -> None:
    for seed in range(5):
        scores = np.random.default_rng(seed).random(60).tolist()
        tree = grown(scores, seed, prior)
        assert [node.score for node in tree.nodes[1:]] == scores
        for node in tree.nodes:
            assert sorted(node.wider) == sorted(child.score for child in node.children)
            assert len(node.deeper) == size(node) - 1 - len(node.children)
            below = [grandchild.below for child in node.children for grandchild in child.children]
            assert sorted(node.deeper) == sorted(score for part in below for score in part)
            assert node.parent is None or node in node.parent.children


def test_the_order_of_the_tells_of_a_batch_changes_nothing() -> None:
    for seed in range(5):
        first, second = (grown(np.random.default_rng(seed).random(20).tolist(), seed) for _ in range(2))
        batch = [(number, name, 0.1 * name) for name, number in enumerate([0, 3, 3, 7, 11])]
        shuffled = batch[:]
        random.Random(seed).shuffle(shuffled)
        for tree, tells in ((first, batch), (second, shuffled)):
            nodes = list(tree.nodes)
            for place, name, score in tells:
                tree.tell(nodes[place], answer(100 + name), score)
        for one, other in zip(first.nodes[:21], second.nodes[:21], strict=True):
            for law in (gaussian, beta):
                for scores in ("wider", "deeper", "below"):
                    before, after = law(getattr(one, scores)), law(getattr(other, scores))
                    assert [part.tobytes() for part in before] == [part.tobytes() for part in after]


def test_a_node_without_children_gets_one() -> None:
    tree = AnswerTree("gaussian")
    assert tree.ask(np.random.default_rng(0)) is tree.nodes[0]


def test_with_equal_scores_wider_and_deeper_are_equally_likely() -> None:
    tree = AnswerTree("gaussian")
    tree.tell(tree.nodes[0], answer(0), 0.0)
    tree.tell(tree.nodes[1], answer(1), 0.0)
    wider = sum(tree.goes_wider(tree.nodes[0], np.random.default_rng((9, turn))) for turn in range(2000))
    assert abs(wider / 2000 - 0.5) < 0.056  # five standard errors: 6e-7 of runs


def test_it_goes_where_scores_are_high() -> None:
    """A child whose refinements are good is gone down to; one whose refinements are bad is left."""
    for deep, low, high in ((0.95, 0.0, 0.1), (0.05, 0.8, 1.0)):
        tree = AnswerTree("beta")
        tree.tell(tree.nodes[0], answer(0), 0.5)
        for name in range(20):
            tree.tell(tree.nodes[1], answer(name), deep)
        for name in range(9):
            tree.tell(tree.nodes[0], answer(name), 0.5)
        wider = sum(tree.goes_wider(tree.nodes[0], np.random.default_rng((4, turn))) for turn in range(500)) / 500
        assert low <= wider <= high


# ---- forced choices -------------------------------------------------------------------------------------------------


def test_always_wider_it_is_best_of_n(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerTree, "goes_wider", lambda self, node, random: True)
    for seed, batch in ((0, 1), (1, 3), (2, 8)):
        trace = solved(ABMCTS(n=8, batch=batch), digits, number, seed=seed)
        plain = solved(BestOfN(n=8), digits, number, seed=seed)
        assert trace.candidates == plain.candidates
        assert (trace.answer, trace.rounds[-1].scores) == (plain.answer, plain.rounds[-1].scores)
        assert (trace.usage, trace.confidence) == (plain.usage, plain.confidence)


def test_a_single_batch_is_best_of_n() -> None:
    for seed in range(5):
        trace = solved(ABMCTS(n=5, batch=5), digits, number, seed=seed)
        plain = solved(BestOfN(n=5), digits, number, seed=seed)
        assert trace.candidates == plain.candidates
        assert trace.answer == plain.answer
        one = solved(ABMCTS(n=1), digits, number, seed=seed)
        assert one.candidates == solved(SelfConsistency(n=1), digits, number, seed=seed).candidates


def improving(request: Request, child: int, rng: np.random.Generator) -> str:
    """What it says follows from what it is shown."""
    return f"#### {(shown(request) * 7 + 13) % 900 + 100}"


def test_never_wider_it_is_a_chain_of_revisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerTree, "goes_wider", lambda self, node, random: False)
    trace = solved(ABMCTS(n=6, batch=1), improving, number)
    chain = solved(Revision(n=6, ratio=6, context=1, selector="best"), improving, number)
    told = {trace.id: trace for trace in trace.candidates}
    ours = [told[one].text for one in trace.rounds[-1].candidates]
    theirs = {one.id: one.text for one in chain.candidates}
    assert ours == [theirs[one] for one in chain.rounds[-1].candidates]
    assert sorted(depths(trace).values()) == [1, 2, 3, 4, 5, 6]
    assert (trace.answer, trace.usage) == (chain.answer, chain.usage)


def test_with_so_many_children_and_then_deeper_every_node_has_so_many(
    monkeypatch: pytest.MonkeyPatch, trees: list[AnswerTree]
) -> None:
    monkeypatch.setattr(AnswerTree, "goes_wider", lambda self, node, random: len(node.children) < 3)
    solved(ABMCTS(n=40, batch=1), digits, number)
    assert len(trees[0].nodes) == 41
    assert max(len(node.children) for node in trees[0].nodes) == 3
    inner = [node for node in trees[0].nodes if any(child.children for child in node.children)]
    assert all(len(node.children) == 3 for node in inner)  # nobody is gone down to before


# ---- the strategy ---------------------------------------------------------------------------------------------------


def test_fresh_and_refining_prompts(trees: list[AnswerTree]) -> None:
    seen: dict[Any, Request] = {}

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen[(*request.address, child)] = request
        return digits(request, child, rng)

    trace = solved(ABMCTS(n=24, batch=2), reply, number, seed=1)
    (tree,) = trees
    refined = 0
    for node in tree.nodes[1:]:
        assert node.candidate is not None
        assert node.parent is not None
        above = node.parent.candidate
        attempts = [] if above is None else [above.text]
        assert seen[node.candidate.address].messages == revision_prompt(problem(), attempts)
        assert node.candidate.parents == (() if above is None else (above.id,))
        assert not node.candidate.continues
        refined += above is not None
    assert 0 < refined < 24
    assert len(trace.candidates) == 24
    assert trace.rounds[-1].candidates == tuple(node.candidate.id for node in tree.nodes[1:] if node.candidate)


def test_child_k_of_an_answer_is_sample_k_of_its_prompt_in_whatever_batches() -> None:
    """So a seed's answers to a prompt are the same ones, however the search comes to ask for them."""
    texts: dict[str, str] = {}
    for batch in (1, 2, 3, 5):
        trace = solved(ABMCTS(n=15, batch=batch), digits, number, seed=4)
        for candidate in trace.candidates:
            if not candidate.parents:
                assert texts.setdefault(candidate.id, candidate.text) == candidate.text


def test_where_refining_helps_it_goes_deep_and_beats_best_of_n() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        """A fresh answer is worth at most 0.3; a refined one up to 0.15 more than what it refines."""
        before = shown(request)
        return f"#### {min(999, (before or 100) + int(rng.integers(150 if before else 200)))}"

    better, deepest = 0, []
    for seed in range(10):
        trace = solved(ABMCTS(n=32, batch=1), reply, number, seed=seed)
        plain = solved(BestOfN(n=32), reply, number, seed=seed)
        deepest.append(max(depths(trace).values()))
        better += int(trace.answer or 0) > int(plain.answer or 0)
    assert better == 10
    assert sorted(set(deepest)) == [3, 4, 5]


def test_the_answer_is_the_highest_score_and_of_equal_ones_the_earliest() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return ["x #### 5", "#### 5", "y #### 6", "#### 7"][child]

    trace = solved(ABMCTS(n=4), reply, lambda text: 0.1 if "7" in text else 0.6)
    assert (trace.text, trace.confidence) == ("x #### 5", 0.5)


def test_missing_scores_and_unreadable_answers_count_0_and_are_not_given_out_as_scores(trees: list[AnswerTree]) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return ["#### 11", "no answer", "#### 22", "#### 33 and" + " more" * 50][child % 4]

    judge = Judge(lambda text: 0.4 if "11" in text else None)
    trace = run(
        solve_async(problem(), ABMCTS(n=4), model=ScriptedEngine(reply), verifier=judge,
                    sampling=Sampling(max_tokens=20))
    )  # fmt: skip
    assert judge.batches == [["#### 11", "#### 22"]]
    assert trace.rounds[-1].scores == (0.4, None, None, None)
    assert [node.score for node in trees[0].nodes[1:]] == [0.4, 0.0, 0.0, 0.0]
    assert trace.answer == "11"
    none = solved(ABMCTS(n=4), digits, lambda text: None)
    assert none.answer is not None
    assert none.rounds[-1].scores == (None,) * 4


@pytest.mark.parametrize("score", [-0.1, 1.5])
@pytest.mark.parametrize("prior", ["gaussian", "beta", "mixed"])
def test_a_score_outside_of_0_and_1_is_refused_and_what_was_paid_for_answers(score: float, prior: Any) -> None:
    trace = solved(ABMCTS(n=4, prior=prior), digits, lambda text: score)
    assert trace.stopped == "error"
    assert trace.error is not None
    assert trace.error.startswith(f"AB-MCTS needs scores in [0, 1], and one is {score:g}: map them")
    assert trace.answer is not None
    assert len(trace.candidates) == 4


def test_an_answer_that_failed_is_told_to_nobody_and_blocks_nothing(trees: list[AnswerTree]) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("lost") if rng.random() < 0.3 else digits(request, child, rng)

    for seed in range(6):
        trace = solved(ABMCTS(n=30, batch=3), reply, number, seed=seed)
        tree = trees[-1]
        failed = sum(call.failed for call in trace.calls)
        assert failed > 0
        assert sum(call.n for call in trace.calls) == 30
        assert len(tree.nodes) - 1 == len(trace.candidates) == 30 - failed
        assert trace.stopped == "finished"
        for node in tree.nodes:
            assert len(node.wider) == len(node.children)
            assert len(node.deeper) == size(node) - 1 - len(node.children)


def test_a_model_that_dies_on_the_way_leaves_the_best_answer() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        alive = request.address[1] == 0 and child < 3
        return digits(request, child, rng) if alive else EngineError("gone")

    trace = solved(ABMCTS(n=12, batch=3), reply, number)
    assert (trace.stopped, len(trace.candidates)) == ("finished", 3)
    assert trace.answer == max(str(candidate.answer) for candidate in trace.candidates)
    with pytest.raises(NothingCameBack):
        solved(ABMCTS(), lambda *_: EngineError("gone"), number)


def test_a_prompt_that_has_become_too_long_costs_that_answer_alone() -> None:
    class Narrow(ScriptedEngine):
        async def bound(self, request: Request) -> Any:
            if len(request.messages[-1].text) > 100:
                raise PromptTooLong("too long")
            return await super().bound(request)

    trace = run(solve_async(problem(), ABMCTS(n=20, batch=2), model=Narrow(digits), verifier=Judge(number)))
    assert trace.stopped == "finished"
    assert 2 <= len(trace.candidates) < 20
    assert set(depths(trace).values()) == {1}


def test_the_budget_ends_it_with_the_best_so_far() -> None:
    stopped = 0
    for limit in range(40, 400, 15):
        trace = solved(
            ABMCTS(n=20, batch=3), digits, number, budget=f"{limit}-tokens", sampling=Sampling(max_tokens=10)
        )
        assert trace.cost["tokens"] <= limit
        assert trace.answer == max(str(candidate.answer) for candidate in trace.candidates)
        stopped += trace.stopped == "budget"
    assert stopped == 24


def test_answers_stand_while_their_scores_are_awaited() -> None:
    judge = Judge(number, seconds=10.0)
    engine = ScriptedEngine(digits, latency=lambda request, child: 1.0)
    trace = run(solve_async(problem(), ABMCTS(n=8, batch=4), model=engine, verifier=judge, budget="5s"))
    assert (trace.stopped, len(trace.candidates)) == ("deadline", 4)
    assert trace.answer is not None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"prior": "flat"}, "prior must be gaussian, beta or mixed"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ABMCTS(**wrong)


# ---- variant M, several models, feedback ----------------------------------------------------------------------------


def test_variant_m_goes_where_scores_are_high_and_leaves_what_is_always_the_same() -> None:
    tree = AnswerTree("mixed")
    for name, score in enumerate((0.9, 0.1)):
        tree.tell(tree.nodes[0], answer(name), score)
    good, bad = tree.nodes[1:3]
    for name in range(2):
        tree.tell(good, answer(10 + name), 0.9 + 0.05 * name)
        tree.tell(bad, answer(20 + name), 0.1 + 0.05 * name)

    def goes() -> list[int]:
        """How often it stays at the root, goes below the good child, and below the bad one, of 300."""
        counts = [0, 0, 0]
        for turn in range(300):
            node = tree.ask(np.random.default_rng((4, turn)))
            while node.parent is not None and node.parent.parent is not None:
                node = node.parent
            counts[[tree.nodes[0], good, bad].index(node)] += 1
        return counts

    root, deep, shallow = goes()
    assert deep > root > shallow
    for name in range(20):  # more than three quarters of its scores are one now
        tree.tell(good, answer(30 + name), 0.9)
    assert goes()[1] == 0


def test_several_models_write_and_the_better_one_writes_more() -> None:
    def reply(value: int) -> Reply:
        return lambda request, child, rng: f"#### {value + int(rng.integers(50))}"

    trace = run(
        solve_async(
            problem(),
            ABMCTS(n=60, batch=2, roles=("second",)),
            model=ScriptedEngine(reply(100)),
            models={"second": ScriptedEngine(reply(900), name="better")},
            verifier=Judge(number),
        )
    )
    wrote = [candidate.address[0] for candidate in trace.candidates]
    assert {*wrote} == {"model", "second"}
    assert wrote.count("second") > 40
    assert int(trace.answer or 0) >= 900
    assert len(wrote) == 60


def test_a_role_that_was_not_given_is_refused_and_so_is_one_named_twice() -> None:
    with pytest.raises(MissingResource, match="--role second=MODEL"):
        solved(ABMCTS(roles=("second",)), digits, number)
    for roles in (("a", "a"), ("model",)):
        with pytest.raises(ValueError, match="roles must be different"):
            ABMCTS(roles=roles)


def test_feedback_is_the_score_of_the_answer_that_is_refined() -> None:
    for feedback in (False, True):
        asked: list[str] = []

        def reply(request: Request, child: int, rng: np.random.Generator, asked: list[str] = asked) -> str:
            asked.append(request.messages[-1].text)
            return digits(request, child, rng)

        solved(ABMCTS(n=12, batch=1, feedback=feedback), reply, number)
        refining = [text for text in asked if "Attempt 1:" in text]
        assert refining
        for text in refining:
            answered = text.partition("Attempt 1:\n#### ")[2][:3]
            assert (f"gave this attempt {int(answered) / 1000:.2f} of 1" in text) == feedback
