"""Thoughts that are cut on the way: a live run does what the replay of the same thoughts does, and pays for probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.maths.selection import Drawn, Probes, Replayed, majority
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.cmc import CMC, Schedule
from outthink.strategies.parallel.depth_consistency import DepthConsistency
from outthink.strategies.parallel.length_vote import LengthVote
from outthink.strategies.parallel.parallel_probe import ParallelProbe
from outthink.strategies.parallel.race_vote import RaceVote
from outthink.strategies.probing import FORCED
from outthink.strategies.sequential.mrt_stop import MRTStop
from outthink.types import Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run

EVERY = 20


def plain(replayed: Replayed) -> tuple[int, int, float]:
    """What was chosen, how many were drawn, and what was written, of one order."""
    assert replayed.tokens is not None
    return int(replayed.index[0]), int(replayed.used[0]), float(replayed.tokens[0])


class Thoughts:
    """Thoughts with known lengths, ends and probes; one token is one character.

    Args:
        seed: of everything.
        n: thoughts.
    """

    def __init__(self, seed: int, n: int, *, answers: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(10, 200, n)
        self.final = rng.integers(0, answers, n)
        self.probes = rng.integers(0, answers, (n, 10))
        settled = rng.random((n, 10)) < np.linspace(0.2, 1, 10)
        self.probes = np.where(settled, self.final[:, None], self.probes)
        self.forced = 0

    def text(self, number: int) -> str:
        end = f"#### {self.final[number]}"
        return "x" * (int(self.tokens[number]) - len(end)) + end

    def reply(self, request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[1] == "probe":
            number = int(request.address[2])
            thought = request.prefix_text.removesuffix(FORCED)
            assert request.prefix_text.endswith(FORCED), "the thought is closed by force"
            assert self.text(number).startswith(thought), "and it is the thought as far as it was written"
            self.forced += 1
            return str(self.probes[number, len(thought) // EVERY - 1])
        number = child if request.address[1] == 0 else int(request.address[2])
        assert self.text(number).startswith(request.prefix_text)
        assert FORCED not in request.prefix_text, "what was forced does not stay in the thought"
        return self.text(number)[len(request.prefix_text) :]

    def solve(self, strategy: Any, **options: Any) -> Trace:
        options.setdefault("sampling", Sampling(max_tokens=400))
        return run(solve_async(problem(), strategy, model=ScriptedEngine(self.reply), **options))

    def drawn(self, orders: np.ndarray | None = None) -> Drawn:
        order = np.arange(len(self.tokens))[None] if orders is None else orders
        return Drawn(
            keys=self.final[order],
            tokens=self.tokens[order].astype(float),
            lengths=np.zeros(order.shape),
            complete=np.ones(order.shape, bool),
            logprobs=None,
            scores=None,
            verdicts=None,
            paths=order,
            texts=None,
            order=order,
            probes=Probes(answers=self.probes, every=EVERY, tokens=1.0),
        )


STOPPING = [
    MRTStop(n=6, every=EVERY, k=1, window=3, tau=1.0, eps=1.0),
    MRTStop(n=6, every=EVERY, k=1, tau=2.0, cap=60),
    MRTStop(n=6, every=EVERY, k=1, tau=2.0),
    ParallelProbe(n=6, every=EVERY, stable=3, warm_up=2, patience=2),
    DepthConsistency(n=6, every=EVERY, threshold=0.9),
    CMC(n=6, every=EVERY, beta=0.0),
    CMC(n=12, every=EVERY, beta=0.3),
]


@pytest.mark.parametrize("strategy", STOPPING, ids=repr)
@pytest.mark.parametrize("seed", range(6))
def test_a_live_run_decides_and_pays_as_the_replay_of_the_same_thoughts(strategy: Any, seed: int) -> None:
    world = Thoughts(seed, strategy.n)
    trace, replayed = world.solve(strategy), strategy.replay(world.drawn())
    assert replayed.tokens is not None
    assert replayed.probing is not None
    assert replayed.keys is not None
    assert trace.answer == str(replayed.keys[0])
    assert trace.usage.completion == replayed.tokens[0]
    assert world.forced == replayed.probing[0]
    assert trace.stopped == "finished"


@pytest.mark.parametrize("strategy", STOPPING, ids=repr)
def test_many_orders_at_once_are_the_orders_one_by_one(strategy: Any) -> None:
    world = Thoughts(9, strategy.n)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(strategy.n), (5, 1)), axis=1)
    together = strategy.replay(world.drawn(orders))
    for place, order in enumerate(orders):
        alone = strategy.replay(world.drawn(order[None]))
        for name in ("index", "used", "tokens", "probing", "keys"):
            assert getattr(alone, name)[0] == getattr(together, name)[place]


def test_a_thought_that_nothing_stops_is_a_plain_sample_and_is_never_probed() -> None:
    world = Thoughts(1, 6)
    replayed = MRTStop(n=6, every=EVERY, k=1, tau=2.0).replay(world.drawn())
    assert replayed.tokens == world.tokens.sum()
    assert replayed.probing == 0
    assert replayed.keys == world.final[majority(world.final, lengths=-(-world.tokens // EVERY)).index]


def test_several_answers_at_once_are_not_in_a_pool() -> None:
    with pytest.raises(UsageError, match="k=1"):
        MRTStop(n=6, k=2).replay(Thoughts(1, 6).drawn())


def test_k_forced_answers_must_agree() -> None:
    world = Thoughts(2, 2)
    said = iter("0101" * 99)

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return next(said) if request.address[1] == "probe" else world.reply(request, child, rng)

    never = run(solve_async(problem(), MRTStop(n=2, every=EVERY, k=2, tau=1.0), model=ScriptedEngine(reply)))
    assert never.answer in {str(one) for one in world.final}
    assert sum(call.n for call in never.calls if "probe" in call.address) == 2 * sum((world.tokens - 1) // EVERY)


def test_a_thought_that_fails_on_its_way_does_not_end_the_others() -> None:
    world = Thoughts(4, 3)
    world.tokens, world.final = np.array([70, 90, 190]), np.array([1, 2, 2])

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[1:3] == ("thought", 1):
            return EngineError("the line is cut")
        return world.reply(request, child, rng)

    how = MRTStop(n=3, every=EVERY, k=1, window=99)
    trace = run(solve_async(problem(), how, model=ScriptedEngine(reply), sampling=Sampling(max_tokens=400)))
    ended = [one for one in trace.candidates if one.text.endswith(("#### 1", "#### 2"))]
    assert len(ended) == 2, "the first and the last thought came to their ends"


def test_depth_stops_with_the_first_piece_after_which_the_lead_is_sure() -> None:
    world = Thoughts(0, 5)
    world.tokens, world.final = np.full(5, 200), np.zeros(5, int)
    world.probes = np.array([[1, 2, 2, 0]] * 4 + [[2, 1, 2, 0]])  # 4 of 5 agree at once: (4 + 1, 1 + 1) is 57/64
    assert plain(DepthConsistency(n=5, every=EVERY, threshold=57 / 64).replay(world.drawn()))[2] == 5 * EVERY + 5
    assert plain(DepthConsistency(n=5, every=EVERY, threshold=0.9).replay(world.drawn()))[2] == 5 * 3 * EVERY + 3 * 5


def test_cmc_has_the_published_schedule() -> None:
    plan = Schedule.of_beta(0.5)
    assert (plan.most, plan.warm_up, plan.begin, plan.ended) == (34, 6, 5, 4)
    assert plan.confident == pytest.approx(0.91)
    assert Schedule.of_beta(1.0).most == 64


def test_cmc_keeps_two_thoughts_whatever_they_say() -> None:
    world = Thoughts(3, 8, answers=8)
    how = CMC(n=8, every=EVERY, beta=1.0)
    replayed = how.replay(world.drawn())
    assert replayed.probing is not None
    spent = plain(replayed)[2]
    assert np.sort(world.tokens)[:2].sum() <= spent <= world.tokens.sum() + replayed.probing[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 5))
def test_a_race_that_nothing_decides_is_the_length_vote_and_one_that_is_decided_costs_no_more(
    seed: int, n: int, portion: int
) -> None:
    drawn = Thoughts(seed, n).drawn()
    whole = RaceVote(n=n, portion=portion, threshold=2.0).replay(drawn)
    same = LengthVote(n=n, portion=portion, threshold=2.0, exponent=0.5).replay(drawn)
    assert whole.index == same.index
    assert whole.tokens == drawn.tokens.sum()
    cut = RaceVote(n=n, portion=portion, threshold=0.8).replay(drawn)
    longer = LengthVote(n=n, portion=portion, threshold=0.8, exponent=0.5).replay(drawn)
    assert plain(cut)[2] <= drawn.tokens[0, : longer.used[0]].sum()
    if portion == 1:
        assert (cut.index, cut.used) == (longer.index, longer.used)


def test_a_race_by_hand() -> None:
    """Ends at 30 and 50 say the same: (2 + 1, 0 + 1) is 7/8 certain, so at 50 all four stop."""
    world = Thoughts(0, 4)
    world.tokens, world.final = np.array([90, 30, 50, 200]), np.array([1, 2, 2, 1])
    replayed = RaceVote(n=4, threshold=0.875, exponent=0.0).replay(world.drawn())
    assert plain(replayed) == (1, 4, 50 + 30 + 50 + 50)
    trace = run(
        solve_async(
            problem(),
            RaceVote(n=4, threshold=0.875, exponent=0.0),
            model=ScriptedEngine(world.reply, latency=lambda request, child: float(world.tokens[child])),
            sampling=Sampling(max_tokens=400),
        )
    )
    assert trace.answer == "2"
    assert trace.usage.completion == plain(replayed)[2], "what was cut is charged as far as it was written"
    assert len(trace.candidates) == 2, "and does not vote"


def test_a_dear_token_stops_a_race_that_the_threshold_would_not() -> None:
    world = Thoughts(0, 4)
    world.tokens, world.final = np.array([100, 100, 100, 100]), np.array([1, 1, 2, 3])
    drawn = world.drawn()
    # one end is 3/4 certain; a thought costs 100 tokens, so the price is met where 1/4 of the value is less
    dear = RaceVote(n=4, portion=1, threshold=2, value_in_tokens=399).replay(drawn)
    cheap = RaceVote(n=4, portion=1, threshold=2, value_in_tokens=401).replay(drawn)
    assert (plain(dear)[1], plain(cheap)[1]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("race_vote", {"n": 0}, "n must be"),
        ("race_vote", {"value_in_tokens": -1.0}, "value_in_tokens"),
        ("mrt_stop", {"eps": 2.0}, "eps must be"),
        ("mrt_stop", {"tau": 0.0}, "tau must be"),
        ("parallel_probe", {"stable": 0}, "stable must be"),
        ("cmc", {"beta": 1.5}, "beta must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, settings: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, UsageError), match=match):
        make_strategy(name, settings)
