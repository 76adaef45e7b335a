"""The parts of the planner: what samples say, chances, decisions, bins, fixed strategies, one budget for many."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.errors import UsageError
from outthink.maths.quantiles import quantile_edges
from outthink.maths.selection import majority as vote_majority
from outthink.models.engine import EngineSpec, Shape
from outthink.planner.agreement import gain_of_votes, next_portion
from outthink.planner.bins import ABSOLUTE, Table, absolute_edges, affordable, ease, fill, flat
from outthink.planner.cases import Material, cases, material
from outthink.planner.estimate import Estimate, Prospect, Scale, fit_estimate, fit_prospect
from outthink.planner.evidence import Floats, Seen, Vote, evidence, feature_names, leaders
from outthink.planner.fit import fit_policy, fit_vote
from outthink.planner.fixed import families, families_of_vote, joined
from outthink.planner.policy import Action, Policy, Rate, Stage, Start
from outthink.planner.portfolio import Portfolio
from outthink.planner.simulate import Simulator, price_grid
from outthink.planner.trust import acted, tenths
from outthink.planner.validate import folds_alike
from outthink.records.pools import read_pool
from outthink.reports.curves import majority, replayed_curve
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import leader_probability
from tests.tools import simulated, virtual

SPEC = EngineSpec(name="toy", shape=Shape(parameters=1_000_000))
DEAR = EngineSpec(name="big", shape=Shape(parameters=3_000_000))


def seen(keys: list[int], logprobs: list[float] | None = None, target: list[bool] | None = None) -> Seen:
    n = len(keys)
    return Seen(
        keys=np.array(keys, dtype=np.intp),
        tokens=np.full(n, 10.0),
        paths=np.arange(n),
        target=np.array(target or [False] * n),
        signals={"logprob": np.array(logprobs if logprobs is not None else [np.nan] * n)},
        prompt=np.array(30.0),
    )


def feature(features: Floats, name: str) -> float:
    return float(features[feature_names(("logprob",), target=False).index(name)])


# ------------------------------------------------------------------------------------------------------- evidence


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_without_coefficients_the_vote_is_the_majority(keys: list[int]) -> None:
    vote, plain = leaders(seen(keys), Vote(centres={"logprob": 0.0})), vote_majority(keys)
    assert int(vote) == int(plain.index)
    assert int(evidence(seen(keys), Vote(), (), target=False).leader) == int(plain.index)


def test_features_of_a_vote_by_hand() -> None:
    summary = evidence(seen([5, 5, 7, -1], [-0.5, -1.0, -0.2, -3.0]), Vote(), ("logprob",), target=False)
    assert int(summary.leader) == 0
    assert float(summary.share) == pytest.approx(2 / 3)
    assert feature(summary.features, "empty") == 0
    assert feature(summary.features, "runner_up_share") == pytest.approx(1 / 3)
    assert feature(summary.features, "vote_share") == pytest.approx(0.5)
    assert feature(summary.features, "ahead") == pytest.approx(11 / 16)  # P(Beta(3, 2) > 1/2)
    assert feature(summary.features, "distinct") == pytest.approx(0.5)
    assert feature(summary.features, "invalid") == pytest.approx(0.25)
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(5)
    assert feature(summary.features, "entropy") == pytest.approx(entropy)
    assert feature(summary.features, "logprob_leader_mean") == pytest.approx(-0.75)
    assert feature(summary.features, "logprob_leader_best") == pytest.approx(-0.5)
    assert feature(summary.features, "logprob_others_best") == pytest.approx(-0.2)
    assert feature(summary.features, "log_prompt") == pytest.approx(np.log(30))


def test_what_is_missing_is_not_zero() -> None:
    features = evidence(seen([3, 3], [np.nan, -1.0]), Vote(), ("logprob",), target=False).features
    assert feature(features, "logprob_leader_mean") == pytest.approx(-1.0)
    assert np.isnan(feature(features, "logprob_others_best"))
    nothing = evidence(seen([]), Vote(), ("logprob",), target=False)
    assert int(nothing.leader) == -1
    assert feature(nothing.features, "empty") == 1
    assert np.isnan(feature(nothing.features, "share"))
    unread = evidence(seen([-1, -1]), Vote(), ("logprob",), target=False)
    assert int(unread.leader) == -1
    assert feature(unread.features, "share") == 0


def test_signals_and_copies_weigh() -> None:
    votes = seen([1, 1, 2], [-2.0, -2.0, -0.5])
    assert int(leaders(votes, Vote(coefficients={"logprob": 0.0}, centres={"logprob": -1.0}))) == 0
    assert int(leaders(votes, Vote(coefficients={"logprob": 1.0}, centres={"logprob": -1.0}))) == 2
    copied = replace(seen([1, 1, 2, 2]), paths=np.array([0, 0, 1, 2]))
    assert int(leaders(copied, Vote())) == 0
    assert int(leaders(copied, Vote(copy=-6.0))) == 2
    dear = seen([1, 1, 2], target=[False, False, True])
    assert int(leaders(dear, Vote())) == 0
    assert int(leaders(dear, Vote(target=1.0))) == 2


@given(st.lists(st.integers(-1, 3), min_size=2, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_samples_changes_no_feature(keys: list[int], random: object) -> None:
    order = np.random.default_rng(len(keys)).permutation(len(keys))
    one = evidence(seen(keys), Vote(), (), target=False)
    other = evidence(seen([keys[place] for place in order]), Vote(), (), target=False)
    assert one.share == pytest.approx(other.share)
    tied = np.bincount(np.array(keys)[np.array(keys) >= 0], minlength=1)
    if (tied == tied.max()).sum() == 1:  # among equals the first one leads
        np.testing.assert_allclose(one.features, other.features, equal_nan=True)


# -------------------------------------------------------------------------------------------------------- chances


def test_a_known_chance_is_found_again() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(20_000, 2))
    chance = 1 / (1 + np.exp(-(0.5 + 1.5 * features[:, 0])))
    right = (rng.random(20_000) < chance).astype(float)
    scale = Scale.from_features(features)
    fitted = fit_estimate(scale.standard(features), right, np.arange(20_000))
    # a standard error of about .01 where chances are near 1/2, and a straight line between knots; fixed seed
    assert float(np.abs(fitted.at(scale.standard(features)) - chance).max()) < 0.06
    assert float(np.abs(fitted.at(scale.standard(features)).mean() - right.mean())) < 0.01


def test_calibration_mends_what_the_logistic_cannot() -> None:
    rng = np.random.default_rng(4)
    features = rng.uniform(-1, 1, size=(30_000, 1))
    chance = np.where(features[:, 0] > 0, 0.9, 0.6)  # a step is not logistic
    right = (rng.random(30_000) < chance).astype(float)
    scale = Scale.from_features(features)
    fitted = fit_estimate(scale.standard(features), right, np.arange(30_000))
    raw = replace(fitted, raw=(0.0, 1.0), calibrated=(0.0, 1.0))
    errors = [float(np.abs(one.at(scale.standard(features)) - chance).mean()) for one in (fitted, raw)]
    assert errors[0] < errors[1]


def test_one_class_is_its_rate() -> None:
    wrong = fit_estimate(np.zeros((50, 2)), np.zeros(50), np.arange(50))
    assert float(wrong.at(np.zeros(2))) < 0.05
    right = fit_estimate(np.zeros((50, 2)), np.ones(50), np.arange(50))
    assert float(right.at(np.zeros(2))) > 0.95


def test_the_best_of_many_predicted_gains_is_a_gain() -> None:
    """No action gains anything on average; of ten, the one with the largest predicted gain brings what was said."""
    rng = np.random.default_rng(5)
    features, problems = rng.normal(size=(4_000, 12)), np.arange(4_000) // 10
    true = np.repeat(0.3 * rng.normal(size=400), 10)
    gains = (rng.random((4_000, 10)) < 0.5 + 0.5 * true[:, None]).astype(float) * 2 - 1
    features[:, 0] += 2 * true
    train = problems < 100
    scale = Scale.from_features(features[train])
    fitted = fit_prospect(scale.standard(features[train]), gains[train], problems[train], range(10))
    said = fitted.at(scale.standard(features[~train]))
    best = said.argmax(-1)[:, None]
    chosen = said[np.arange(len(said)), best[:, 0]] > 0.05
    promised, brought = (np.take_along_axis(values, best, -1)[chosen, 0].mean() for values in (said, gains[~train]))
    # about 100 problems go on: a standard error of .03; fixed seed
    assert promised == pytest.approx(brought, abs=0.06)


def test_a_plan_keeps_its_word_on_other_problems(tmp_path: Path) -> None:
    """Three folds of 300 problems: the chances at the stop, the gain of what it chose, and what that is worth.

    When chances and not gains were regressed, it said twice the gain that it brought, was surer than right by up to 13
    points at the stop, and was better off deciding by 1.5 times the price.
    """
    made = material(read_pool(simulated.pool(tmp_path / "pool.jsonl", 300, 16)), spec=SPEC, orders=8)
    fold, simulators = np.arange(300) % 3, []
    for number in range(3):
        learned, _ = fit_policy(made.select(fold != number))
        held = made.select(fold == number)
        simulators.append(Simulator(learned, cases(held, learned.vote), held))
    fixed = [family for family in families(made) if not family.adaptive]
    for price in (5e-4, 1e-3, 3e-3):
        done = [acted(simulator, price) for simulator in simulators]
        auto, harsher = (
            np.mean([(one.credit - price * one.cost).mean() for one in outcomes])
            for outcomes in ([one.outcome for one in done], [one.harsher for one in done])
        )
        best = max(float((family.credit - price * family.cost).mean((0, 1)).max()) for family in fixed)
        # 300 problems: standard errors of the differences of about .007, and both lie above 0; the seeds are fixed
        assert auto > best - 0.01
        assert auto > harsher - 0.01
        said, true = (sum(float(getattr(one, name).sum()) for one in done) for name in ("said", "true"))
        assert said == pytest.approx(true, rel=0.2)
        chance, right = np.concatenate([o.chance for o in done]), np.concatenate([o.outcome.credit for o in done])
        told = [tenth for tenth in tenths(chance, right) if tenth.cases >= 200]
        # a tenth has 30 to 100 problems, so that a standard error is 4 to 8 points: in the mean it is under 5
        assert np.average([abs(one.said - one.true) for one in told], weights=[one.cases for one in told]) < 0.05


@settings(deadline=None)
@given(problems=st.integers(5, 60), folds=st.integers(2, 5), seed=st.integers(0, 99))
def test_folds_are_as_hard_as_each_other(problems: int, folds: int, seed: int) -> None:
    """Of problems by how hard they are, each fold has one in every row of as many as there are folds."""
    rates = np.random.default_rng(seed).integers(0, 4, problems) / 4
    fold = folds_alike(rates, folds, seed=seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for least in np.unique(rates):
        below = np.bincount(fold[rates < least], minlength=folds)
        assert below.max() - below.min() <= 2  # one of a row that has begun below, one of a row that ends above


def test_a_vote_needs_evidence(tmp_path: Path) -> None:
    """A signal that says nothing is not used, whatever it did on the problems at hand: in 12 pools, never by luck."""
    used = 0
    for seed in range(12):
        pool = read_pool(simulated.pool(tmp_path / f"{seed}.jsonl", 40, 8, telling=0.0, seed=seed))
        vote = fit_vote(material(pool, spec=SPEC, orders=4))
        used += bool(vote.coefficients["logprob"] or vote.copy)
    # one in fifty by chance for each signal, so more than two in 24 less often than once in a hundred; fixed seeds
    assert used <= 2


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_more_votes_never_lose_and_never_gain_more_than_is_missing(one: int, other: int, more: int) -> None:
    first, second = max(one, other), min(one, other)
    gain = gain_of_votes(first, second, more)
    now = float(leader_probability(first, second)) if first else 0.0
    assert -1e-9 <= gain <= 1 - now + 1e-9


def test_gains_of_votes_by_hand() -> None:
    assert gain_of_votes(1, 0, 1) == pytest.approx(0.0, abs=1e-12)  # one vote alone changes no leader
    # (3, 0), (2, 1), (1, 2) with 1/2, 1/3, 1/6: 15/16, 11/16, 11/16, against 3/4
    assert gain_of_votes(1, 0, 2) == pytest.approx(15 / 32 + 11 / 48 + 11 / 96 - 3 / 4)
    portions = [int(next_portion([4, 1], 5, cost)) for cost in (1e-6, 1e-3, 1e-2, 1.0)]
    assert portions[0] > 0 == portions[-1]
    assert int(next_portion([1, 1], 2, 0.03)) > 0 == int(next_portion([1, 1], 20, 0.03))  # where nothing agrees
    whole = next_portion([[4, 1], [1, 1]], [5, 20], 0.03)
    assert list(whole) == [int(next_portion([4, 1], 5, 0.03)), 0]


def test_a_scale_knows_its_range() -> None:
    scale = Scale.from_features(np.array([[0.0, np.nan], [4.0, np.nan]]))
    assert not scale.outside(np.array([2.0, np.nan]))
    assert not scale.outside(np.array([4.9, np.nan]))
    assert scale.outside(np.array([6.0, np.nan]))
    assert list(scale.standard(np.array([np.nan, 3.0]))) == [0.0, 3.0]


# ------------------------------------------------------------------------------------------------------ decisions


def always(chance: float) -> Estimate:
    return Estimate(intercept=0.0, coefficients=(0.0,) * len(feature_names((), target=False)), calibrated=(chance,) * 2)


def policy(now: float, then: dict[int, float]) -> Policy:
    """Always right with probability `now` once there is a sample, and with `then` after so many."""
    count = len(feature_names((), target=False))
    zeros = (0.0,) * count
    stages = []
    for drawn in range(max(then) + 1):
        able = [place for place, n in enumerate(then) if n > drawn]
        gains = [list(then.values())[place] - (now if drawn else 0.0) for place in able]
        prospect = Prospect(
            intercept=0.0, coefficients=zeros, raw=(0.0, 1.0), calibrated=(0.0, 0.0), actions=tuple(able),
            offsets=tuple(gains), slopes=(1.0,) * len(able),
        )  # fmt: skip
        stages.append(
            Stage(drawn=drawn, dear=0, now=always(now) if drawn else None, prospects=(prospect,) if able else ())
        )
    return Policy(
        signals=(),
        vote=Vote(),
        scale=Scale(mean=zeros, deviation=(1.0,) * count, low=zeros, high=zeros),
        actions=tuple(Action(kind="sample", n=n) for n in then),
        stages=tuple(stages),
        starts=(Start(action=0, prices=(1.0,), right=(0.0,), cost=(0.0,)),),
        rates=(Rate(prompt=1.0, completion=1.0, tokens=10.0, prompt_tokens=30.0),),
    )


def decide(made: Policy, state: tuple[int, int], price: float, tokens: float = 10.0) -> int:
    features = np.zeros(len(feature_names((), target=False)))
    spent = (np.array(tokens if state[0] else np.nan), np.array(np.nan))
    cost = made.cost(state, spent, np.array(30.0))
    return int(made.choice(made.gains(features, state), cost, price, state))


def test_costs_are_of_what_is_still_to_be_done() -> None:
    made = policy(0.5, {1: 0.5, 2: 0.6, 4: 0.7})
    first = made.cost((0, 0), (np.array(np.nan), np.array(np.nan)), np.array(30.0))
    assert list(first) == [0.0, 40.0, 50.0, 70.0]  # the prompt once, ten tokens a sample
    later = made.cost((2, 0), (np.array(20.0), np.array(np.nan)), np.array(30.0))
    assert list(later[[0, 3]]) == [0.0, 30.0]  # two more, of (2 x 20 + 2 x 10) / 4 tokens
    assert np.isnan(later[[1, 2]]).all()


def test_an_infinite_price_buys_the_first_sample_and_no_other() -> None:
    made = policy(0.1, {1: 0.5, 2: 0.9, 4: 0.99})
    assert decide(made, (0, 0), np.inf) == 1
    assert decide(made, (1, 0), np.inf) == 0


def test_without_a_price_nothing_stops_before_the_cap() -> None:
    made = policy(0.1, {1: 0.5, 2: 0.9, 4: 0.99})
    assert decide(made, (0, 0), 0.0) == 1
    assert decide(made, (1, 0), 0.0) == 3
    assert made.following((1, 0), 3) == (2, 0)  # the first part of it
    assert decide(made, (2, 0), 0.0) == 3
    assert decide(made, (4, 0), 0.0) == 0  # nothing is left to do


def test_the_price_decides_between_gain_and_cost() -> None:
    made = policy(0.5, {2: 0.52, 4: 0.8})
    # from one sample: 10 tokens gain .02, 30 gain .3; worth it below a price of .01
    assert decide(made, (1, 0), 0.0099) == 2
    assert decide(made, (1, 0), 0.0101) == 0
    assert decide(policy(0.5, {2: 0.5, 4: 0.5}), (1, 0), 1e-9) == 0  # what gains nothing is not done


def test_looking_ahead_sees_a_gain_that_one_more_sample_has_not() -> None:
    made = policy(0.5, {2: 0.5, 3: 0.5, 4: 0.8})
    choice = decide(made, (1, 0), 0.005)
    assert choice == 3
    assert made.following((1, 0), choice) == (2, 0)


# ------------------------------------------------------------------------------------------------- recorded pools


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Material:
    path = simulated.pool(tmp_path_factory.mktemp("toy") / "pool.jsonl", 120, 16)
    return material(read_pool(path), spec=SPEC, orders=12)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("both")
    small = simulated.pool(folder / "small.jsonl", 80, 8, rates=(0.5, 1.5))
    dear = simulated.pool(
        folder / "dear.jsonl", 80, 4, rates=(0.5, 1.5), better=2.0, model="big", parameters=3_000_000, seed=5
    )
    return material(read_pool(small), spec=SPEC, target=read_pool(dear), target_spec=DEAR, unit="flops", orders=8)


def test_states_cost_what_their_samples_cost(toy: Material) -> None:
    assert toy.states()[0] == (0, 0)
    assert float(toy.cost((0, 0)).max()) == 0.0
    order = toy.orders[3, 2]
    assert toy.cost((3, 0))[3, 2] == pytest.approx(40 + toy.model.tokens[3, order[:3]].sum())


def test_what_the_cache_does_not_find_is_read_by_every_sample(tmp_path: Path) -> None:
    pool = read_pool(simulated.pool(tmp_path / "pool.jsonl", 12, 4, prompt=66))
    whole = material(pool, spec=SPEC, orders=2)
    blocks = material(pool, spec=SPEC, orders=2, cache_block=32)
    assert (blocks.cost((1, 0)) == whole.cost((1, 0))).all()
    assert (blocks.cost((4, 0)) - whole.cost((4, 0)) == 3 * 2).all()  # 64 of 66 tokens are found
    full = material(read_pool(simulated.pool(tmp_path / "full.jsonl", 12, 4, prompt=64)), spec=SPEC, cache_block=32)
    assert float((full.model.later - full.model.tokens).max()) == 32  # the last block is always read


def test_the_target_reads_its_own_prompt(both: Material) -> None:
    assert both.target is not None
    alone = both.cost((0, 1))[0, 0]
    order = both.target_orders[0, 0] if both.target_orders is not None else []
    assert alone == pytest.approx(2 * 3_000_000 * (40 + both.target.tokens[0, order[0]]))
    assert both.cost((2, 1))[0, 0] == pytest.approx(alone + both.cost((2, 0))[0, 0])


def test_equal_answers_of_both_models_are_equal(both: Material) -> None:
    assert both.target is not None
    for one, other, right, dear in zip(
        both.model.keys, both.target.keys, both.model.correct, both.target.correct, strict=True
    ):
        assert len({*one[right].tolist(), *other[dear].tolist()}) <= 1  # the right answer is 0 in both files
        assert not {*one[~right].tolist()} & {*other[dear].tolist()}


def test_majority_of_the_cases_is_that_of_replay(tmp_path: Path) -> None:
    path = simulated.pool(tmp_path / "pool.jsonl", 40, 8)
    pool = read_pool(path)
    made = material(pool, spec=SPEC, orders=200)
    mine = {family.name: family for family in families(made)}["self_consistency"]
    other = majority(pool, [1, 2, 4, 8], subsamples=4000, seed=1)
    for place, n in enumerate((1, 2, 4, 8)):
        at = mine.settings.index(f"self_consistency?n={n}")
        assert place <= at
        # 40 problems, 200 against 4,000 orders: a standard error of at most .5/sqrt(40*200) = .006; 5 of them
        assert float(mine.credit[..., at].mean()) == pytest.approx(float(other[n].accuracy.mean()), abs=0.03)
        spent = other[n].tokens
        assert spent is not None
        assert float(mine.cost[..., at].mean()) == pytest.approx(float(spent.mean()), rel=0.03)


def test_stop_rules_of_the_cases_are_those_of_replay(tmp_path: Path) -> None:
    pool = read_pool(simulated.pool(tmp_path / "pool.jsonl", 30, 8))
    made = material(pool, spec=SPEC, orders=300)
    mine = {family.name: family for family in families(made)}["adaptive_consistency of 8"]
    strategy = make_strategy("adaptive_consistency", {"n": 8, "threshold": 0.9})
    other = replayed_curve(strategy, pool, [8], subsamples=3000, seed=2)[8]
    at = mine.settings.index("adaptive_consistency?n=8&threshold=0.9")
    assert float(mine.credit[..., at].mean()) == pytest.approx(float(other.accuracy.mean()), abs=0.03)
    assert other.tokens is not None
    assert float(mine.cost[..., at].mean()) == pytest.approx(float(other.tokens.mean()), rel=0.04)


def test_a_signal_that_tells_is_used_and_one_that_does_not_is_not(tmp_path: Path) -> None:
    telling = material(read_pool(simulated.pool(tmp_path / "a.jsonl", 150, 8, telling=2.0)), spec=SPEC, orders=8)
    assert fit_vote(telling).coefficients["logprob"] > 1.0
    silent = material(read_pool(simulated.pool(tmp_path / "b.jsonl", 150, 8, telling=0.0)), spec=SPEC, orders=8)
    assert fit_vote(silent).coefficients["logprob"] * 0.2 < 1.0  # in standard deviations


def test_a_learned_stop_is_better_than_fixed_numbers(toy: Material) -> None:
    half = np.arange(120) < 60
    learned, _ = fit_policy(toy.select(half))
    test = toy.select(~half)
    of_test = cases(test, learned.vote)
    simulator = Simulator(learned, of_test, test)
    costs = np.array([of_test.cost[state].mean() for state in of_test.states])
    credits = np.array([of_test.credit[state].mean() for state in of_test.states])
    gains = []
    for price in price_grid(learned.rates, points=9)[3:7]:
        outcome = simulator.at(price)
        gains.append(outcome.credit.mean() - np.interp(outcome.cost.mean(), costs, credits))
    # 60 problems: a standard error of the mean gain of about .01; the gain is about .05 (fixed seeds, no chance here)
    assert np.mean(gains) > 0.02


def test_what_is_spent_falls_with_the_price(toy: Material, both: Material) -> None:
    for made in (toy, both):
        learned, of_all = fit_policy(made)
        simulator = Simulator(learned, of_all, made)
        spent = [float(simulator.at(price).cost.mean()) for price in price_grid(learned.rates, points=13)]
        assert all(later <= earlier * 1.001 for earlier, later in itertools.pairwise(spent))
        assert simulator.at(np.inf).cost.mean() == pytest.approx(float(made.cost((1, 0)).mean()))


def test_predicted_chances_are_those_of_other_problems(tmp_path: Path) -> None:
    made = material(read_pool(simulated.pool(tmp_path / "pool.jsonl", 400, 8)), spec=SPEC, orders=6)
    half = np.arange(400) < 200
    learned, _ = fit_policy(made.select(half))
    test = made.select(~half)
    outcome = (simulator := Simulator(learned, cases(test, learned.vote), test)).at(2e-3)
    said, true = simulator.right_when(outcome), outcome.credit
    # 200 problems: standard error of a difference of means about .03 in the worst case; 3.5 of them
    assert abs(float(said.mean() - true.mean())) < 0.1
    assert float(((said - true) ** 2).mean()) < float(((true.mean() - true) ** 2).mean()) - 0.02


def test_going_over_to_a_dearer_model_pays_where_it_is_better(both: Material) -> None:
    learned, of_all = fit_policy(both)
    simulator = Simulator(learned, of_all, both)
    used = simulator.at(price_grid(learned.rates, points=9)[2])
    assert any(of_all.states[place][1] for place in np.unique(used.ended))


def test_scores_below_zero_have_a_best_of_n_to_be_beaten(tmp_path: Path) -> None:
    pool = read_pool(simulated.pool(tmp_path / "pool.jsonl", 30, 6))
    scores = {problem.id: problem.correct.astype(np.float64) - 5 for problem in pool.problems}
    made = material(pool, spec=SPEC, orders=4, scores={"rm": scores})
    names = [family.name for family in families(made)]
    assert "best_of_n by rm" in names
    assert "weighted_best_of_n by rm" not in names
    assert f"adaptive_consistency of {made.model.samples}" in names  # the stop rules may draw as much as anybody


def test_stop_rules_on_the_majority_are_the_plain_ones(toy: Material) -> None:
    """What is left over a rule on the plan's vote is the stop alone, so with the majority nothing is."""
    plain = {family.name: family for family in families(toy)}
    halves = [np.flatnonzero(np.arange(120) % 2 == side) for side in (0, 1)]
    on_vote = {
        family.name: family
        for family in joined([(half, families_of_vote(toy.select(half), Vote())) for half in halves])
    }
    for name, other in (
        ("its vote", "self_consistency"),
        ("adaptive_consistency of 8 on its vote", "adaptive_consistency of 8"),
    ):
        np.testing.assert_allclose(on_vote[name].credit, plain[other].credit)
        np.testing.assert_allclose(on_vote[name].cost, plain[other].cost)
    esc, its = plain["esc of 16"], on_vote["esc of 16 on its vote"]
    np.testing.assert_allclose(its.cost, esc.cost)
    weighted = {
        family.name: family
        for family in families_of_vote(toy, Vote(coefficients={"logprob": 5.0}, centres={"logprob": -1.0}))
    }
    # it stops where the rule does, and answers better by a signal that tells
    assert float(weighted["its vote"].credit.mean()) > float(plain["self_consistency"].credit.mean()) + 0.02


def test_too_few_problems_are_refused(tmp_path: Path) -> None:
    pool = read_pool(simulated.pool(tmp_path / "pool.jsonl", 9, 4))
    with pytest.raises(UsageError, match="at least 10"):
        material(pool, spec=SPEC)


# ----------------------------------------------------------------------------------------------------------- bins


def test_equal_difficulty_is_one_bin() -> None:
    assert quantile_edges(np.full(500, 0.3), 5) == ()
    assert len(quantile_edges(np.arange(500) / 500, 5)) == 4
    assert quantile_edges(np.array([]), 5) == ()


def test_absolute_bins_have_their_edges_in_the_easier_one() -> None:
    table = Table(difficulty="oracle", probe=1, edges=ABSOLUTE, budgets=(), cells=())
    assert list(table.bin([0.5, 0.4999, 0.1, 0.0999])) == [2, 1, 1, 0]


def test_absolute_bins_are_as_large_as_the_shares_of_such_pass_rates() -> None:
    """A third is hard, and looks as if two of four samples agreed; the agreement itself is never below one in ten."""
    rates = np.array([0.0] * 30 + [0.3] * 30 + [0.9] * 30)
    seen = np.array([0.25] * 30 + [0.5] * 30 + [1.0] * 30)[:, None]
    table = Table(difficulty="agreement", probe=4, edges=absolute_edges(seen, rates), budgets=(), cells=())
    assert np.bincount(table.bin(seen[:, 0])).tolist() == [30, 30, 30]
    assert table.bin([0.25, 0.5, 1.0]).tolist() == [0, 1, 2]
    assert absolute_edges(np.repeat(rates[:, None], 3, 1), rates) == ABSOLUTE
    hopeless = absolute_edges(seen, np.zeros(90))
    assert np.searchsorted(hopeless, [0.25, 1.0], side="right").tolist() == [0, 0]


def test_what_no_setting_can_be_had_for_is_not_affordable(toy: Material) -> None:
    (family,) = [family for family in families(toy) if family.name == "self_consistency"]
    least = float(family.cost[..., 2].mean())
    empty = Table(difficulty="agreement", probe=4, edges=(), budgets=(0.4 * least, 1e9), cells=())
    table, _ = fill([family], ease(toy, "agreement", 4), toy.cost((4, 0)), empty, 4)
    assert [affordable(cell, budget) for cell, budget in zip(table.cells[0], table.budgets, strict=True)] == [
        False,
        True,
    ]
    assert table.cells[0][0].cost > table.budgets[0]


def test_one_bin_and_one_family_is_a_fixed_number(toy: Material) -> None:
    (family,) = [family for family in families(toy) if family.name == "self_consistency"]
    budgets = tuple(float(cost) for cost in family.cost.mean((0, 1)))
    empty = Table(difficulty="agreement", probe=1, edges=(), budgets=budgets, cells=())
    of_ease, probing = ease(toy, "agreement", 1), toy.cost((1, 0))
    table, _ = fill([family], of_ease, probing, empty, 1)
    best = np.maximum.accumulate(family.credit.mean((0, 1)))
    assert [cell.accuracy for cell in table.cells[0]] == pytest.approx(list(best))


def test_bins_chosen_on_the_same_problems_beat_every_fixed_setting(toy: Material) -> None:
    every, budget = families(toy), 300.0
    of_ease, probing = ease(toy, "logprob", 4), toy.cost((4, 0))
    names, credit, cost = flat(every, probing, 4)
    edges = quantile_edges(of_ease, 5)
    empty = Table(difficulty="logprob", probe=4, edges=edges, budgets=(budget,), cells=())
    table, chosen = fill(every, of_ease, probing, empty, 4)
    where = table.bin(of_ease)
    reached = np.take_along_axis(credit, chosen[where, 0][..., None], -1)[..., 0].mean()
    by_bin = [
        max(credit[where == row][:, place].mean() for place in range(len(names)) if
            cost[where == row][:, place].mean() <= budget)
        for row in range(len(edges) + 1)
    ]  # fmt: skip
    assert reached == pytest.approx(
        np.average(by_bin, weights=[(where == row).mean() for row in range(len(edges) + 1)])
    )
    always = [place for place in range(len(names))
              if all(cost[where == row][:, place].mean() <= budget for row in range(len(edges) + 1))]  # fmt: skip
    assert reached >= max(credit[..., place].mean() for place in always) - 1e-12


def test_what_does_not_go_on_from_the_probe_pays_it_too(both: Material) -> None:
    every, probing = families(both), both.cost((2, 0))
    names, _, cost = flat(every, probing, 2)
    dear = names.index("target:self_consistency?n=1")
    assert float(cost[..., dear].mean()) == pytest.approx(float((both.cost((0, 1)) + probing).mean()))
    assert "self_consistency?n=1" not in names


# ------------------------------------------------------------------------------------------- one budget for many


@given(
    st.lists(st.lists(st.floats(1.0, 30.0), min_size=1, max_size=6), min_size=1, max_size=30),
    st.floats(50.0, 2000.0),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_a_portfolio_never_exceeds_its_total(wishes: list[list[float]], total: float, together: int) -> None:
    """Problems that spend up to their limits, in any overlap, as greedily as they can."""

    async def go() -> float:
        portfolio = Portfolio(total, len(wishes), first=5.0, worst=30.0)
        spent, running = 0.0, 0.0
        waiting = iter(wishes)

        async def work() -> None:
            nonlocal spent, running
            for wish in waiting:
                _, most = await portfolio.begin()
                running += most
                assert spent + running <= total + 1e-6
                unspent = most
                for amount in wish:
                    if amount <= unspent:
                        spent, running, unspent = spent + amount, running - amount, unspent - amount
                        portfolio.spend(amount)
                    await asyncio.sleep(amount)
                running -= unspent
                portfolio.end(unspent)

        await asyncio.gather(*(work() for _ in range(together)))
        return spent

    assert virtual.run(go()) <= total + 1e-6


def test_a_portfolio_shares_equally_what_nobody_has_spent() -> None:
    async def go() -> list[tuple[float, float]]:
        portfolio = Portfolio(1000.0, 10, first=5.0, worst=10.0)
        shares = []
        for _ in range(10):
            shares.append(await portfolio.begin())
            portfolio.spend(50.0)
            portfolio.end(shares[-1][1] - 50.0)
        return shares

    shares = virtual.run(go())
    assert shares[0][0] == pytest.approx(99.0)
    assert shares[-1][0] == pytest.approx(120.0)  # thrift is given back, but slowly
    assert all(mean <= most for mean, most in shares)
