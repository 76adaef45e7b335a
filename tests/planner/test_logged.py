"""What is learned from drawn actions, against simulated traffic whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outthink.planner.logged import LoggedRequest, action_values, best, changes
from outthink.records.runs import OWN

SIZES = (1, 2, 4, 8)
COST = {OWN: 400.0, **{f"sc?n={size}": 100.0 * size for size in SIZES}}
PRICE = 1 / 5000


def chance(action: str, hard: float) -> float:
    """Of being right, on questions that are hard or not: more samples help on hard ones only."""
    size = 4 if action == OWN else int(action.rpartition("=")[2])
    easy, difficult = 0.9, 0.2 + 0.6 * math.log2(size) / 3
    return (1 - hard) * easy + hard * difficult


def true_value(action: str, hard: float) -> float:
    return chance(action, hard) - PRICE * COST[action]


def traffic(rng: np.random.Generator, requests: int, share: float, hard: float) -> list[LoggedRequest]:
    """Long prompts are hard."""
    actions = [f"sc?n={size}" for size in SIZES]
    made = []
    for number in range(requests):
        is_hard = rng.random() < hard
        explores = rng.random() < share
        action = actions[rng.integers(len(actions))] if explores else OWN
        made.append(
            LoggedRequest(
                problem=f"{number}",
                action=action,
                chance=share / len(actions) if explores else 1 - share,
                credit=float(rng.random() < chance(action, float(is_hard))),
                cost=COST[action] * rng.uniform(0.8, 1.2),
                prompt=float(rng.integers(200, 400) if is_hard else rng.integers(50, 100)),
                ended=float(number),
            )
        )
    return made


def test_values_are_unbiased_and_intervals_hold_the_truth() -> None:
    """100 repetitions. Gains of all four actions are held at once in at least 95%: below 86 of 100 has odds of 1 in
    7,000. A mean that is off by more than 4 standard errors has odds of 1 in 15,000, for each of eight."""
    rng = np.random.default_rng(3)
    held, means = 0, []
    for _ in range(100):
        values = action_values(traffic(rng, 1500, 0.2, 0.4), price=PRICE)
        truths = {one.action: true_value(one.action, 0.4) - true_value(OWN, 0.4) for one in values}
        held += all(one.gain[1] <= truths[one.action] <= one.gain[2] for one in values[1:])
        means.append([one.gain[0] - truths[one.action] for one in values[1:]] + [one.accuracy[0] for one in values[1:]])
    assert held >= 86
    errors = np.array(means)
    accuracies = [chance(f"sc?n={size}", 0.4) for size in SIZES]
    off = errors.mean(0) - np.array([0.0] * 4 + accuracies)
    assert (np.abs(off) < 4 * errors.std(0) / math.sqrt(len(errors))).all()


def test_what_is_learned_is_nearly_the_best_in_hindsight_and_follows_a_shift_of_difficulty() -> None:
    """Before the shift nothing is hard, and one sample is best; after it everything is, and eight are.

    30 repetitions of 8,000 requests each. No action that is truly worse than the server's own is ever chosen but with
    odds of 1 in 40 each time; more than 5 of 30 has odds of 1 in 11,000.
    """
    rng = np.random.default_rng(5)
    regrets, worse = [], 0
    for hard, wanted in ((0.0, "sc?n=1"), (1.0, "sc?n=8")):
        worth = {action: true_value(action, hard) for action in COST}
        assert max(worth, key=lambda action: worth[action]) == wanted
        for _ in range(15):
            chosen = best(action_values(traffic(rng, 8000, 0.2, hard), price=PRICE)).action
            regrets.append(worth[wanted] - worth[chosen])
            worse += worth[chosen] < worth[OWN]
        assert np.mean(regrets[-15:]) < (worth[wanted] - worth[OWN]) / 2, "most of the gain is there"
    assert worse <= 5


def test_exploring_costs_no_more_than_its_share() -> None:
    """Expected loss is share times what a uniform action is worse than the own one; 4 standard errors are allowed."""
    rng = np.random.default_rng(9)
    share, hard = 0.05, 0.5
    requests = traffic(rng, 20_000, share, hard)
    got = np.array([one.credit - PRICE * one.cost for one in requests])
    loss = true_value(OWN, hard) - got.mean()
    most = share * (true_value(OWN, hard) - min(true_value(f"sc?n={size}", hard) for size in SIZES))
    assert loss <= most + 4 * got.std() / math.sqrt(len(got))
    assert sum(one.action != OWN for one in requests) < 0.06 * len(requests)


def test_a_change_is_told_and_a_false_alarm_is_rare() -> None:
    """200 quiet weeks, two sentences each at 1%: more than 14 of them have odds of 1 in 50,000."""
    rng = np.random.default_rng(11)
    alarms = sum(len(changes(traffic(rng, 120, 0.0, 0.3))) for _ in range(200))
    assert alarms <= 14
    shifted = traffic(rng, 500, 0.0, 0.0) + [
        LoggedRequest(
            problem=f"later {one.problem}",
            action=one.action,
            chance=one.chance,
            credit=one.credit,
            cost=one.cost,
            prompt=one.prompt,
            ended=one.ended + 1000,
        )
        for one in traffic(rng, 500, 0.0, 1.0)
    ]
    (said,) = changes(shifted)
    assert said.startswith("the mean accuracy was 0.")
    assert changes(shifted[:20]) == []


def test_few_requests_have_no_interval_and_are_never_chosen() -> None:
    rng = np.random.default_rng(1)
    few = traffic(rng, 200, 0.05, 1.0)
    values = action_values(few)
    assert all(math.isnan(one.gain[1]) for one in values[1:])
    assert best(values).action == OWN
    assert values[0].action == OWN
    assert [one.action for one in values[1:]] == sorted({one.action for one in few} - {OWN}, key=lambda name: name[5:])
    with pytest.raises(ValueError, match="no requests"):
        action_values([])


def test_sizes_are_in_the_order_of_numbers_and_weights_are_cut() -> None:
    one = LoggedRequest(problem="a", action="sc?n=16", chance=1e-4, credit=1.0, cost=1.0, prompt=1.0, ended=0.0)
    other = LoggedRequest(problem="b", action="sc?n=4", chance=0.5, credit=1.0, cost=1.0, prompt=1.0, ended=0.0)
    values = action_values([one, other])
    assert [value.action for value in values] == [OWN, "sc?n=4", "sc?n=16"]
    assert [value.clipped for value in values] == [0.0, 0.0, 1.0]
