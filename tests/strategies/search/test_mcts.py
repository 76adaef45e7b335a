"""MCTS over steps: worked numbers, the invariants of the tree, and what it reduces to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from outthink.models.engine import Completion, Request
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search.loop import ChildFailed, Event, Expand, Grown, Node, Pull, View
from outthink.strategies.search.mcts import MCTS, StepState, StepTree, puct, uct
from outthink.types import Sampling
from tests.strategies.search.test_search import (
    VIEW,
    Driven,
    Prm,
    chain,
    decided,
    flaky,
    node,
    noise,
    solved,
    steps,
    texts,
)

# ---- formulas -------------------------------------------------------------------------------------------------------

MEANS, VISITS = [0.8, 0.6, 0.7], [4, 2, 4]


def test_worked_values() -> None:
    np.testing.assert_allclose(uct(MEANS, VISITS, 10), [1.5587, 1.6730, 1.4587], atol=5e-5)
    np.testing.assert_allclose(puct(MEANS, VISITS, 10, [1 / 3] * 3), [1.0636, 1.0394, 0.9636], atol=5e-5)
    np.testing.assert_allclose(puct([0.0], [0], 19651, [1.0]), math.sqrt(19651) * (math.log(2) + 1.25), rtol=1e-12)
    np.testing.assert_allclose(uct(MEANS, VISITS, 0), MEANS)  # no logarithm of 0
    for values in (uct(MEANS, VISITS, 10, 0.0), puct(MEANS, VISITS, 10, [1 / 3] * 3, 0.0)):
        np.testing.assert_allclose(values, MEANS)


def test_values_of_many_parents() -> None:
    rng = np.random.default_rng(0)
    means, priors = rng.random((5, 6, 4)), rng.dirichlet(np.ones(4), (5, 6))
    visits = rng.integers(1, 9, (5, 6, 4))
    parents = visits.sum(axis=-1)
    one_by_one = [[uct(means[i, j], visits[i, j], parents[i, j], 0.3) for j in range(6)] for i in range(5)]
    np.testing.assert_array_equal(uct(means, visits, parents, 0.3), one_by_one)
    each = [[puct(means[i, j], visits[i, j], parents[i, j], priors[i, j], 2.0) for j in range(6)] for i in range(5)]
    np.testing.assert_array_equal(puct(means, visits, parents, priors, 2.0), each)


# ---- the tree -------------------------------------------------------------------------------------------------------


def tree(b: int = 3, **options: Any) -> StepTree:
    return StepTree(b, **{"rule": "uct", "c": 1.0, "priors": "uniform", "max_calls": 1000, **options})


def asked(policy: StepTree) -> Expand:
    expand = policy.ask(VIEW)
    assert expand is not None
    return expand


def tell(policy: StepTree, expand: Expand, *nodes: Node | None) -> None:
    assert len(nodes) == expand.n
    for one in nodes:
        policy.tell(VIEW, ChildFailed(expand) if one is None else Grown(expand, one))


def below(parent: Node, name: str, reward: float) -> Node:
    return node(reward, text=name, parent=parent)


def states(policy: StepTree) -> list[StepState]:
    tree = [policy.root]
    for state in tree:
        tree += state.children.values()
    return tree


def test_rewards_are_backed_up_along_the_path() -> None:
    policy = tree()
    first = asked(policy)
    assert first == Expand(n=3)
    children = [node(reward, text=name) for name, reward in zip("abc", [0.2, 0.9, 0.7], strict=True)]
    tell(policy, first, *children)
    assert policy.root.visits == 3
    assert policy.root.total / policy.root.visits == pytest.approx(0.6)
    second = asked(policy)
    assert second.parent is children[1]
    tell(policy, second, below(children[1], "d", 0.1), None, below(children[1], "e", 0.2))
    _, middle, _ = policy.root.children.values()
    assert (middle.visits, policy.root.visits) == (3, 5)
    assert [middle.total, policy.root.total] == pytest.approx([1.2, 2.1])


def test_a_missing_reward_counts_as_0() -> None:
    policy = tree(2)
    tell(policy, asked(policy), node(None, text="missing"), node(0.1, text="low"))
    assert (policy.root.visits, policy.root.total) == (2, 0.1)
    second = asked(policy)
    assert second.parent is not None
    assert second.parent.score == 0.1


def test_ties_go_to_the_older_child() -> None:
    policy = tree()
    children = [node(0.5, text=name) for name in "abc"]
    tell(policy, asked(policy), *children)
    assert [asked(policy).parent for _ in range(3)] == children


def test_ties_of_the_mean_go_to_the_higher_reward() -> None:
    policy = tree(2, c=0.0)
    low, high = node(0.25, text="low"), node(0.75, text="high")
    tell(policy, asked(policy), low, high)
    leaves = [below(high, name, 0.0) for name in "xy"]
    tell(policy, asked(policy), *leaves)
    assert [state.total / state.visits for state in policy.root.children.values()] == [0.25, 0.25]
    assert asked(policy).parent is leaves[0]


def test_equal_siblings_are_one_child_with_two_visits() -> None:
    policy = tree(4, rule="puct")
    twins, other = [node(0.5, text="twin") for _ in range(2)], node(0.5, text="other")
    tell(policy, asked(policy), twins[0], other, twins[1], None)
    assert len(policy.root.children) == 2
    assert [state.visits for state in policy.root.children.values()] == [2, 1]
    assert (policy.root.visits, policy.root.leaves) == (3, 2)
    # the priors are 2/3 and 1/3, and so are prior / (1 + N) 2/9 and 1/6
    assert asked(policy).parent is twins[0]
    assert asked(policy).parent is other
    assert policy.ask(VIEW) is None


def test_equal_answers_of_one_state_vote_once() -> None:
    policy = tree(3)
    same = [node(0.5, text="same", finished=True, key="1") for _ in range(2)]
    tell(policy, asked(policy), *same, node(0.4, text="other", finished=True, key="2"))
    assert [one.candidate.key for one in policy.finished] == ["1", "2"]
    assert policy.ask(VIEW) is None  # everything is closed


def test_priors_follow_the_logprobs_where_all_have_some() -> None:
    def family(*logprobs: float | None) -> list[Node]:
        made = []
        for place, logprob in enumerate(logprobs):
            one = node(0.5, text="ab"[place % 2])
            values = None if logprob is None else (logprob, logprob)
            made.append(replace(one, candidate=replace(one.candidate, logprobs=values)))
        return made

    likely = tree(2, rule="puct", priors="logprobs")
    children = family(math.log(0.2), math.log(0.6))
    tell(likely, asked(likely), *children)
    assert asked(likely).parent is children[1]
    np.testing.assert_allclose(likely._prior(likely.root), [0.25, 0.75])
    twice = tree(3, rule="puct", priors="logprobs")
    tell(twice, asked(twice), *family(math.log(0.2), math.log(0.6), math.log(0.2)))
    np.testing.assert_allclose(twice._prior(twice.root), [0.4, 0.6])
    unknown = tree(2, rule="puct", priors="logprobs")
    children = family(None, math.log(0.6))
    tell(unknown, asked(unknown), *children)
    assert asked(unknown).parent is children[0]
    uniform = tree(2, rule="puct")
    children = family(math.log(0.2), math.log(0.6))
    tell(uniform, asked(uniform), *children)
    assert asked(uniform).parent is children[0]


def test_a_virtual_loss_sends_the_next_descent_elsewhere() -> None:
    """Without it both go below a: there 0.8 and 0.79 beat b's 0.7 with c = 0."""
    policy = tree(2, c=0.0)
    a, b = node(0.8, text="a"), node(0.7, text="b")
    tell(policy, asked(policy), a, b)
    expand = asked(policy)
    leaves = [below(a, "x", 0.8), below(a, "y", 0.79)]
    tell(policy, expand, *leaves)
    first, second = asked(policy), asked(policy)
    assert first.parent is leaves[0]
    assert second.parent is b  # a has 2.39 / (3 + 1) = 0.5975 now
    assert asked(policy).parent is leaves[1]
    assert policy.ask(VIEW) is None  # what is under way is not handed out again
    assert [state.virtual for state in states(policy)] == [3, 2, 1, 1, 1]
    policy.tell(VIEW, ChildFailed(first))
    assert policy.root.virtual == 3
    policy.tell(VIEW, ChildFailed(first))
    assert [state.virtual for state in states(policy)] == [2, 1, 1, 0, 1]
    tell(policy, second, below(b, "z", 0.1), None)
    assert [state.virtual for state in states(policy)] == [1, 1, 0, 0, 1, 0]
    assert policy.root.visits == 5


def test_a_leaf_all_of_whose_children_fail_is_given_up() -> None:
    policy = tree(2)
    a, b = node(0.8, text="a"), node(0.7, text="b")
    tell(policy, asked(policy), a, b)
    tell(policy, asked(policy), None, None)
    expand = asked(policy)
    assert expand.parent is b
    tell(policy, expand, None, None)
    assert policy.ask(VIEW) is None


def test_out_of_calls_the_state_of_the_best_mean_is_completed_greedily() -> None:
    policy = tree(2, max_calls=5)
    a, b = node(0.8, text="a"), node(0.7, text="b")
    tell(policy, asked(policy), a, b)
    expand = asked(policy)
    assert expand.parent is a
    tell(policy, expand, below(a, "x", 0.1), below(a, "y", 0.2))
    last = asked(policy)
    assert last == Expand(parent=b, n=1)  # one call is left
    assert policy.ask(VIEW) is None  # it may bring an answer
    best = below(b, "z", 0.9)
    tell(policy, last, best)
    completion = asked(policy)
    assert completion == Expand(parent=best, until="end", temperature=0.0)
    assert policy.ask(VIEW) is None
    tell(policy, completion, node(0.9, text="cut", parent=best, finished=True))
    assert policy.ask(VIEW) is None
    visited = tree(2, max_calls=4)
    tell(visited, asked(visited), a, b)
    tell(visited, asked(visited), below(a, "x", 0.8), best)
    assert asked(visited).parent is best  # with the bonus it would be b, whose mean is lower
    answered = tree(2, max_calls=2)
    tell(answered, asked(answered), a, node(0.1, text="answer", finished=True, key="1"))
    assert answered.ask(VIEW) is None


class Watched(StepTree):
    """Checks the tree whenever it is asked, and remembers what was handed out."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.handed: list[Expand] = []
        self.told = Counter[str]()

    def ask(self, view: View) -> Expand | None:
        self.check()
        expand = super().ask(view)
        if expand is not None:
            assert expand.parent not in [earlier.parent for earlier in self.handed]
            assert expand.parent is None or not expand.parent.finished
            self.handed.append(expand)
        return expand

    def tell(self, view: View, event: Event) -> None:
        super().tell(view, event)
        self.told[type(event).__name__] += 1

    def check(self) -> None:
        under_way = [state for state in states(self) if state.awaited]
        for state in states(self):
            inner = list(state.children.values())
            own = (
                len(state.parent.drawn) and [child for child, _ in state.parent.drawn].count(state)
                if state.parent
                else 0
            )
            assert state.visits == own + sum(child.visits for child in inner)
            assert -1e-9 <= state.total <= state.visits + 1e-9
            assert state.virtual == sum(state in other.path for other in under_way)
            ready = not (inner or state.awaited or (state.node and state.node.finished))
            gone = ready and state.node in [expand.parent for expand in self.handed]
            assert state.leaves == int(ready and not gone) + sum(child.leaves for child in inner)
        assert self.root.visits == self.told["Grown"]


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("par", [1, 9])
@pytest.mark.parametrize("rule", ["uct", "puct"])
@pytest.mark.parametrize("seed", range(3))
def test_every_child_is_backed_up_once_and_no_virtual_loss_is_left(
    seed: int, rule: Any, par: int, share: float
) -> None:
    """The 3 first children all fail with probability 0.008 a seed; the seeds are fixed."""
    made: list[Watched] = []

    def policy() -> Pull:
        made.append(Watched(3, rule=rule, c=0.3, priors="logprobs", max_calls=60))
        return Pull(made[-1], par=par)

    prm = Prm()
    trace = solved(Driven(policy=policy), flaky(steps, share), prm=prm, seed=seed)
    (driven,) = made
    driven.check()
    assert driven.root.visits == sum(prm.batches) == len(trace.candidates)
    assert driven.root.visits + driven.told["ChildFailed"] == sum(call.n for call in trace.calls) <= 60
    assert (driven.told["ChildFailed"] > 0) == (share > 0)
    assert all(state.virtual == state.awaited == 0 for state in states(driven))
    assert max(prm.batches) <= 3 * par
    assert trace.answer is not None


# ---- what it reduces to ---------------------------------------------------------------------------------------------


def unlike(request: Request, child: int, rng: np.random.Generator) -> str:
    """Steps that are all different, for ever."""
    return f"{rng.integers(10**8, 10**9)}\n\n" * 1000


def grown(strategy: StepTree, reward: Any, par: int = 1) -> list[StepState]:
    """The states of a tree of endless steps."""
    solved(Driven(policy=lambda: Pull(strategy, par=par)), unlike, prm=Prm(reward=reward), seed=1)
    return states(strategy)


def open_depths(tree: Sequence[StepState]) -> Counter[int]:
    return Counter(len(state.path) - 1 for state in tree if not state.children)


def test_one_child_a_state_is_a_single_chain() -> None:
    prm = Prm()
    trace = solved(MCTS(b=1), chain, prm=prm, seed=7)
    assert texts(trace) == texts(solved(SelfConsistency(n=1), chain, seed=7))
    assert len(trace.calls) == len(prm.batches) == texts(trace)[0].count("\n\n") + 1


@pytest.mark.parametrize("rule", ["uct", "puct"])
@pytest.mark.parametrize("c", [1.0, 1e6])
def test_equal_rewards_or_a_huge_c_make_a_balanced_tree(rule: Any, c: float) -> None:
    """Every level is full before the next one begins: 2 + 4 + 8 calls, and the greedy completion of one leaf."""
    reward = noise if c > 1 else lambda text: 0.5
    depths = open_depths(grown(tree(2, rule=rule, c=c, max_calls=14), reward))
    assert depths == {3: 7, 4: 1}


def test_without_a_bonus_it_follows_the_best_mean() -> None:
    class Greedy(Watched):
        def ask(self, view: View) -> Expand | None:
            state = self.root
            while state.children:
                inner = [child for child in state.children.values() if child.leaves]
                state = max(inner, key=lambda child: child.total / child.visits) if inner else StepState()
            expand = super().ask(view)
            if expand is not None:
                assert expand.parent is state.node
            return expand

    strategy = Greedy(3, rule="uct", c=0.0, priors="uniform", max_calls=40)
    assert max(open_depths(grown(strategy, noise))) > 4


def test_what_is_sampled_side_by_side_is_another_tree_of_the_same_size() -> None:
    one, four = tree(2, c=0.1, max_calls=30), tree(2, c=0.1, max_calls=30)
    grown(one, noise)
    grown(four, noise, par=4)
    assert one.root.visits == four.root.visits == 31  # one of them completes a path
    assert open_depths(states(one)) != open_depths(states(four))


# ---- the strategy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["uct", "puct"])
@pytest.mark.parametrize("par", [1, 4])
def test_results_do_not_depend_on_the_order_of_arrival(rule: Any, par: int) -> None:
    strategy = MCTS(b=3, rule=rule, par=par, c=0.3, max_calls=40)
    reference = decided(solved(strategy, seed=11))
    for mix in range(3):
        latency = lambda request, child, mix=mix: 10 * noise(mix, request.address, child)  # noqa: E731
        assert decided(solved(strategy, seed=11, latency=latency, prm=Prm(seconds=0.1 * mix))) == reference


def test_all_paths_that_ended_vote_by_their_reward() -> None:
    prm = Prm()
    trace = solved(MCTS(b=3, c=0.2, max_calls=60), prm=prm, seed=2)
    last = trace.rounds[-1]
    assert last.scores is not None
    assert len(last.candidates) > 5
    weight = dict[str | None, float]()
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    for name, score in zip(last.candidates, last.scores, strict=True):
        assert score == prm.reward(trace.whole_text(name))
        assert score is not None
        weight[by_id[name].key] = weight.get(by_id[name].key, 0.0) + score
    assert trace.key == max(weight, key=lambda key: weight[key])


def test_a_truncated_path_is_closed_and_never_votes() -> None:
    trace = solved(MCTS(b=2, max_calls=20), unlike, sampling=Sampling(max_tokens=22))
    assert trace.answer is None
    assert trace.stopped == "finished"
    assert sum(call.n for call in trace.calls) == 6  # two steps a path, and then all is closed


@pytest.mark.parametrize("reward", [None, math.nan])
def test_without_any_reward_the_majority_answers(reward: float | None) -> None:
    trace = solved(MCTS(b=3, max_calls=200), prm=Prm(reward=lambda text: reward), seed=8)
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    keys = [by_id[name].key for name in trace.rounds[-1].candidates]
    assert len(keys) > 5
    assert trace.confidence == pytest.approx(max(keys.count(key) for key in keys) / len(keys))


@pytest.mark.parametrize("priors", ["uniform", "logprobs"])
def test_logprobs_are_asked_for_where_they_are_priors(priors: Any) -> None:
    asked: set[bool] = set()

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.add(request.logprobs)
        return steps(request, child, rng)

    solved(MCTS(rule="puct", priors=priors, max_calls=9), reply)
    assert asked == {priors == "logprobs"}


def test_an_engine_without_logprobs_has_uniform_priors() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        text = steps(request, child, rng)
        end = text.find("\n\n")
        cut = text[: end + 2] if end >= 0 else text
        return Completion(text=cut, tokens=len(cut), finish="eos" if "#" in cut else "stop")

    options: dict[str, Any] = {"rule": "puct", "max_calls": 30, "b": 3}
    uniform, asked_for = (solved(MCTS(priors=priors, **options), reply, seed=3) for priors in ("uniform", "logprobs"))
    assert decided(uniform) == decided(asked_for)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"b": 0}, "b must be at least 1, not 0"),
        ({"par": 0}, "par must be at least 1"),
        ({"max_calls": 0}, "max_calls must be at least 1"),
        ({"max_step_tokens": 0}, "max_step_tokens must be at least 1"),
        ({"rule": "ucb"}, "rule must be uct or puct, not ucb"),
        ({"priors": "model"}, "priors must be uniform or logprobs, not model"),
        ({"c": -0.1}, "c must be a number of at least 0, not -0.1"),
        ({"c": math.inf}, "c must be a number of at least 0, not inf"),
        ({"delimiter": ""}, "delimiter must not be empty"),
    ],
)
def test_hyperparameters_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MCTS(**given)
