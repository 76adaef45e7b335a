"""Self-consistency that stops early, by the posterior of the leader or by unanimous windows."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from outthink import Budget, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import EngineError, NothingCameBack, UsageError
from outthink.maths.selection import majority
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import (
    AdaptiveConsistency,
    leader_probability,
    mode_probability,
    posterior_of_votes,
    stops_at,
    top_counts,
)
from outthink.strategies.parallel.esc import EarlyStopping, early_stopping
from outthink.strategies.parallel.self_consistency import SelfConsistency
from tests.tools.toys import coin, problem
from tests.tools.virtual import run


def solved(strategy: Any, engine: ScriptedEngine | None = None, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=20))
    return run(solve_async(problem(), strategy, model=engine or coin(0.5, wrong=3), **options))


def says(*answers: str | None) -> ScriptedEngine:
    """Sample k answers answers[k]; None has no readable answer."""
    return ScriptedEngine(lambda request, child, rng: "none" if answers[child] is None else f"#### {answers[child]}")


def written(trace: Trace) -> list[tuple[str, str]]:
    return [(candidate.id, candidate.text) for candidate in trace.candidates]


# ---- adaptive-consistency -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1, 0, 0.75), (2, 0, 0.875), (3, 0, 0.9375), (4, 0, 0.96875), (3, 1, 0.8125), (5, 1, 0.9375),
     (6, 1, 0.96484375), (8, 2, 0.967285)],
)  # fmt: skip
def test_the_beta_posterior_of_the_leader(first: int, second: int, expected: float) -> None:
    assert float(leader_probability(first, second)) == pytest.approx(expected, abs=5e-7)


def test_the_closed_form_is_the_tail_of_the_beta_distribution() -> None:
    from scipy.special import betainc

    first, second = np.meshgrid(np.arange(41), np.arange(41), indexing="ij")
    assert leader_probability(first, second) == pytest.approx(betainc(second + 1, first + 1, 0.5), abs=1e-12)
    assert np.all(np.diagonal(leader_probability(first, second)) == 0.5)
    assert np.all(np.diff(leader_probability(first, second), axis=0) > 0)
    assert np.all(np.diff(leader_probability(first, second), axis=1) < 0)
    assert float(leader_probability(3000, 0)) == 1.0


def test_the_mode_of_two_answers_is_the_beta_posterior() -> None:
    for first, second in [(1, 1), (4, 1), (6, 1), (8, 2), (20, 13), (40, 1)]:
        assert float(mode_probability([first, second])) == pytest.approx(
            float(leader_probability(first, second)), abs=1e-8
        )


@pytest.mark.parametrize("counts", [(3, 2, 1), (5, 1, 1, 1), (4, 4, 2, 1, 1)])
def test_the_mode_probability_is_that_of_dirichlet_draws(counts: tuple[int, ...]) -> None:
    """4 standard errors of 50,000 draws; a false alarm in 1 of 16,000, with a fixed seed."""
    draws = np.random.default_rng(0).dirichlet(np.array(counts) + 1.0, 50_000)
    p = float(mode_probability(counts))
    assert np.mean(draws.argmax(-1) == 0) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 50_000))
    ordered = mode_probability([counts, counts])
    assert ordered.shape == (2,)


def test_votes_are_counted_without_the_unreadable() -> None:
    keys = [[2, -1, 2, 0, -1], [-1, -1, -1, -1, -1], [4, 1, 4, 1, 3]]
    assert top_counts(keys, 3).tolist() == [[2, 1, 0], [0, 0, 0], [2, 2, 1]]
    assert top_counts([7, 7], 5).tolist() == [2, 0, 0, 0, 0]
    assert posterior_of_votes(top_counts(keys, 5)).tolist() == [0.6875, 0.0, 0.5]
    assert posterior_of_votes(top_counts(np.zeros((2, 0), int), 5)).tolist() == [0.0, 0.0]
    two = top_counts([[0, 0, 1], [0, 1, 2]], 5)
    assert posterior_of_votes(two, "dirichlet")[0] == 0.6875  # two answers: the Beta criterion
    assert posterior_of_votes(top_counts([0, 1, 2], 5), "dirichlet") == pytest.approx(1 / 3, abs=1e-6)  # all alike


def test_majority_and_entropy_are_those_of_all_votes() -> None:
    votes = [[3, 1, 0], [4, 1, 0], [1, 1, 1], [2, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert posterior_of_votes(votes, "majority") == pytest.approx([0.75, 0.8, 1 / 3, 1, 0, 0])
    # the entropy of 3 : 1 is 0.8113 bits of 1, that of 4 : 1 is 0.7219
    assert posterior_of_votes(votes, "entropy") == pytest.approx([0.1887, 0.2781, 0, 1, 0, 0], abs=1e-4)
    assert posterior_of_votes([1] * 9, "entropy") == pytest.approx(0, abs=1e-12)  # more than five answers
    keys = [0, 1, *[0] * 8]
    # as in the authors' code, of whose entropy 1 - 0.25 is the bound; one sample never stops it
    assert stops_at([keys, [0] * 10], 0.8, "majority").tolist() == [5, 2]
    assert stops_at([keys, [0] * 10], 0.25, "entropy").tolist() == [5, 2]


def test_where_it_stops() -> None:
    unanimous, dissent = [0] * 10, [0, 1, *[0] * 8]
    assert stops_at([unanimous, dissent]).tolist() == [4, 7]
    assert stops_at([unanimous, dissent], 0.75).tolist() == [1, 1]
    assert stops_at([unanimous, dissent], 0.7500001).tolist() == [2, 4]
    assert stops_at([unanimous, dissent], 1.01).tolist() == [10, 10]
    assert stops_at([-1, -1, 0, -1, 0, 0, 0, 0]) == 7  # four readable ones
    assert stops_at([[-1] * 6]).tolist() == [6]
    assert stops_at([0]) == 1


@pytest.mark.parametrize("criterion", ["beta", "dirichlet", "majority", "entropy"])
@pytest.mark.parametrize("ahead", [1, 3, 8, 40])
def test_a_run_stops_where_the_replay_does(ahead: int, criterion: Any) -> None:
    for seed in range(8):
        whole = solved(SelfConsistency(n=20), seed=seed)
        keys = np.array([int(candidate.key or -1) for candidate in whole.candidates])
        drawn = int(stops_at(keys, criterion=criterion))
        trace = solved(AdaptiveConsistency(n=20, ahead=ahead, criterion=criterion), seed=seed)
        last = trace.rounds[-1]
        assert list(last.candidates) == [candidate.id for candidate in whole.candidates[:drawn]]
        choice = majority(keys[:drawn])
        assert last.chosen == f"model/0/{choice.index}"
        assert trace.confidence == pytest.approx(float(choice.share))
        assert len(trace.rounds) == drawn
        if ahead == 1:
            assert len(trace.candidates) == drawn


@pytest.mark.parametrize(("n", "window"), [(40, 5), (64, 5), (20, 4), (10, 3), (7, 9)])
def test_windows_and_surrender_are_those_of_difficulty_adaptive_self_consistency(n: int, window: int) -> None:
    """The second half of its authors' code, written once more as a loop; ties are half sure."""
    keys = np.random.default_rng(7).integers(-1, 3, (60, n))
    keys[:20] = np.where(keys[:20] >= 0, keys[:20] % 2, -1)
    keys[20:30] = 0

    def drawn(row: Any) -> int:
        for number in range(n // window):
            most, second = sorted(np.bincount(row[: (number + 1) * window] + 1, minlength=4)[1:])[:-3:-1]
            sure = float(leader_probability(most, second))
            if sure >= 0.95 or (sure <= 0.5 and number >= n // (2 * window)):
                return (number + 1) * window
        return n

    expected = [drawn(row) for row in keys]
    assert stops_at(keys, window=window, hopeless=0.5).tolist() == expected
    assert window > n or any(n / 2 < m < n for m in expected), "some are given up"
    assert window > n or expected[20] < n, "some are sure"


def test_without_hope_it_ends_after_half() -> None:
    assert stops_at([[0, 1] * 5, [-1] * 10, [0] * 10], hopeless=0.5).tolist() == [6, 6, 4]
    assert stops_at([[0, 1] * 5], 0.99, "majority", hopeless=0.5).tolist() == [6]
    assert stops_at([[0] * 10], window=3).tolist() == [6]


@pytest.mark.parametrize("criterion", ["beta", "dirichlet", "majority", "entropy", "random"])
def test_a_run_looks_and_surrenders_where_the_replay_does(criterion: Any) -> None:
    settings: dict[str, Any] = {"window": 3, "hopeless": 0.0 if criterion == "random" else 0.5}
    for seed in range(8):
        whole = solved(SelfConsistency(n=20), seed=seed)
        keys = np.array([int(candidate.key or -1) for candidate in whole.candidates])
        trace = solved(AdaptiveConsistency(n=20, criterion=criterion, **settings), seed=seed)
        drawn = len(trace.rounds)
        assert drawn % 3 == 0 or drawn == 20
        if criterion != "random":  # whose chances are others
            assert drawn == int(stops_at(keys, criterion=criterion, **settings))


def test_the_random_criterion_stops_by_chance_alone() -> None:
    """The control: geometric with the chance 1 - threshold, whatever the answers are."""
    keys = np.zeros((4000, 12), dtype=np.intp)
    stops = stops_at(keys, 0.9, "random")
    assert (stops == stops_at(keys - 1, 0.9, "random")).all()
    expected = sum(0.9**number for number in range(12))
    # 4,000 draws of a standard deviation below 4: six of its mean's, so a false alarm in 1e9
    assert stops.mean() == pytest.approx(expected, abs=6 * 4 / math.sqrt(4000))
    drawn = [len(solved(AdaptiveConsistency(n=20, threshold=0.9, criterion="random"), seed=s).rounds) for s in range(9)]
    assert len({*drawn}) > 1
    again = [len(solved(AdaptiveConsistency(n=20, threshold=0.9, criterion="random"), seed=s).rounds) for s in range(9)]
    assert again == drawn
    assert stops_at(keys[:5], 1.01, "random").tolist() == [12] * 5


def test_the_decision_does_not_depend_on_what_arrives_first() -> None:
    def backwards(request: Request, child: int) -> float:
        return 10.0 - child % 7

    plain = solved(AdaptiveConsistency(ahead=1), seed=5)
    for ahead in (1, 2, 8, 40):
        trace = solved(AdaptiveConsistency(ahead=ahead), coin(0.5, wrong=3, latency=backwards), seed=5)
        assert [one.chosen for one in trace.rounds] == [one.chosen for one in plain.rounds]
        assert trace.rounds[-1].candidates == plain.rounds[-1].candidates


def test_what_is_in_flight_at_the_stop_is_cancelled_and_charged() -> None:
    engine = ScriptedEngine(lambda *_: "#### 1", latency=lambda request, child: 1.0 if child < 4 else 4.0)
    trace = solved(AdaptiveConsistency(ahead=6), engine)
    assert trace.answer == "1"
    cancelled = [call for call in trace.calls if call.outcome == "cancelled"]
    assert [call.address[-1] for call in cancelled] == [4, 5]  # those after them were not begun yet
    assert trace.seconds == pytest.approx(1.0)
    assert sum(call.charged.completion for call in cancelled) == 2  # a quarter of six tokens each
    assert trace.usage.completion == 4 * 6 + 2


@pytest.mark.parametrize("ahead", [1, 8])
def test_a_threshold_above_1_is_self_consistency(ahead: int) -> None:
    for seed in range(10):
        plain = solved(SelfConsistency(n=9), seed=seed)
        trace = solved(AdaptiveConsistency(n=9, threshold=1.01, ahead=ahead), seed=seed)
        assert written(trace) == written(plain)
        assert (trace.answer, trace.confidence, trace.usage) == (plain.answer, plain.confidence, plain.usage)
        assert trace.rounds[-1].chosen == plain.rounds[-1].chosen


def test_the_order_of_the_samples_decides_when_and_not_what() -> None:
    for order in {*permutations("AAAAB")}:
        trace = solved(AdaptiveConsistency(n=5), says(*("7" if name == "A" else "8" for name in order)))
        assert trace.answer == "7"


def test_unreadable_samples_are_paid_for_and_do_not_vote() -> None:
    trace = solved(AdaptiveConsistency(ahead=1), says(None, "3", None, "3", "3", "3", "4"))
    assert (trace.answer, len(trace.candidates)) == ("3", 6)
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    nothing = solved(AdaptiveConsistency(n=3), says(None, None, None))
    assert (nothing.answer, nothing.stopped, len(nothing.candidates)) == (None, "finished", 3)


# ---- early-stopping self-consistency --------------------------------------------------------------------------------


@pytest.mark.parametrize(("w", "n"), [(5, 40), (3, 10)])
def test_the_expected_number_is_that_of_the_rule(w: int, n: int) -> None:
    """4 standard errors of 20,000 problems; a false alarm in 1 of 16,000, with a fixed seed."""
    keys = (np.random.default_rng(1).random((20_000, n)) < 0.2).astype(int)
    _, drawn = early_stopping(keys, w)
    q = 0.8**w + 0.2**w  # P(a window is unanimous)
    whole, rest = divmod(n, w)
    expected = w * sum((1 - q) ** window for window in range(whole)) + rest * (1 - q) ** whole
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / math.sqrt(len(drawn)))


def test_the_windows_answer_stands_against_the_majority() -> None:
    keys = [0, 0, 1, 0, 1, 1, 2, 2]
    choice, drawn = early_stopping(keys, 2)
    assert (int(choice.index), float(choice.share), int(drawn)) == (0, 1.0, 2)
    choice, drawn = early_stopping(keys[1:], 2)  # 0 1 | 0 1 | 1 2 | 2
    assert (int(drawn), int(choice.index)) == (7, 1)
    choice, drawn = early_stopping([0, 0, 1, 0, 0, 1, 1, 1, 1, 0], 3)
    assert (int(choice.index), int(drawn)) == (6, 9)  # of nine samples five are 1, four are 0
    choice, drawn = early_stopping([0, 0, 1, 0, 0, 2, 1, 1, 1, 0], 3)
    assert (int(choice.index), int(drawn)) == (6, 9)  # four each: the window decides, not the votes
    choice, drawn = early_stopping([[0, 0, -1, -1], [-1, -1, -1, -1]], 2)
    assert (choice.index.tolist(), drawn.tolist()) == ([0, -1], [2, 4])
    assert early_stopping([0, 1, 0, 1, 2], 2, lengths=[5, 3, 5, 3, 1])[0].index == 1


@pytest.mark.parametrize(("n", "w"), [(20, 5), (11, 3), (8, 2), (6, 1), (4, 9)])
def test_a_run_chooses_what_the_replay_does(n: int, w: int) -> None:
    for seed in range(8):
        whole = solved(SelfConsistency(n=n), coin(0.7, wrong=2), seed=seed)
        keys = [int(candidate.key or -1) for candidate in whole.candidates]
        choice, drawn = early_stopping(keys, w)
        trace = solved(EarlyStopping(n=n, w=w), coin(0.7, wrong=2), seed=seed)
        assert written(trace) == written(whole)[: int(drawn)]
        assert trace.rounds[-1].chosen == f"model/0/{choice.index}"
        assert trace.confidence == pytest.approx(float(choice.share))
        if w > n:
            assert (trace.answer, trace.usage) == (whole.answer, whole.usage)


def test_a_window_of_one_is_the_first_readable_sample() -> None:
    assert solved(EarlyStopping(w=1), says(None, None, "5", "6")).answer == "5"
    assert len(solved(EarlyStopping(w=1), coin(0.5)).candidates) == 1


def test_unreadable_and_failed_samples_break_a_window() -> None:
    trace = solved(EarlyStopping(n=4, w=2), says("1", None, "2", "2"))
    assert (trace.answer, len(trace.candidates)) == ("2", 4)

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("down") if child in (0, 1, 3) else "#### 2"

    trace = solved(EarlyStopping(n=8, w=2), ScriptedEngine(reply))
    assert (trace.answer, len(trace.candidates)) == ("2", 3)  # the third window is whole
    with pytest.raises(NothingCameBack, match="down"):
        solved(EarlyStopping(n=4, w=2), ScriptedEngine(lambda *_: EngineError("down")))


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [AdaptiveConsistency(threshold=2.0), EarlyStopping(w=3), EarlyStopping(w=50)])
def test_the_budget_ends_it_with_the_majority(strategy: Any) -> None:
    each = 12 + 20  # the first sample reads the prompt; the others find it in the cache
    engine = says(*[str(number % 2) for number in range(40)])
    trace = solved(strategy, engine, budget=Budget({"tokens": 2 * each}))
    assert trace.stopped == "budget"
    assert trace.cost["tokens"] <= 2 * each
    assert trace.answer is not None
    assert len(trace.candidates) >= 2


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("adaptive_consistency", {"n": 0}, "n must be at least 1"),
        ("adaptive_consistency", {"ahead": 0}, "ahead must be at least 1"),
        ("adaptive_consistency", {"threshold": "nan"}, "threshold must be above 0"),
        ("adaptive_consistency", {"threshold": 0}, "threshold must be above 0"),
        ("adaptive_consistency", {"criterion": "flat"}, "criterion"),
        ("adaptive_consistency", {"window": 0}, "window must be at least 1"),
        ("adaptive_consistency", {"hopeless": 1.5}, r"hopeless must be in \[0, 1\]"),
        ("adaptive_consistency", {"criterion": "random", "hopeless": 0.5}, "leave hopeless out"),
        ("esc", {"n": 0}, "n must be at least 1"),
        ("esc", {"w": 0}, "w must be at least 1"),
    ],
)
def test_bad_hyperparameters_are_one_sentence(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_strategy(name, parameters)


# ---- at any size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(0, 0), (7, 3), (600, 400), (400, 600), (1500, 1480), (1000, 0)])
def test_the_posterior_is_the_exact_sum(first: int, second: int) -> None:
    flips = first + second + 1
    exact = Fraction(sum(math.comb(flips, heads) for heads in range(first + 1)), 2**flips)
    assert float(leader_probability(first, second)) == pytest.approx(float(exact), rel=1e-9, abs=1e-15)


def test_the_posterior_of_millions_of_votes() -> None:
    """There it is the normal distribution: the difference is three times the root of the sum."""
    assert float(leader_probability(5_004_743, 4_995_257)) == pytest.approx(0.998651, abs=1e-5)
    assert float(leader_probability(9_000, 1_000)) == 1.0
    assert float(leader_probability(10**7, 10**7)) == 0.5


@pytest.mark.parametrize("criterion", ["beta", "dirichlet", "majority", "entropy"])
def test_the_stop_is_that_of_the_posterior_of_every_beginning(criterion: Any) -> None:
    keys = np.random.default_rng(5).integers(-1, 4, (60, 18))
    for threshold in (0.5, 0.8, 0.9, 0.95, 1.1):
        beginnings = [posterior_of_votes(top_counts(keys[:, :m], 5), criterion) >= threshold for m in range(1, 18)]
        stops = np.argmax([*beginnings, np.ones(60, dtype=bool)], axis=0) + 1
        assert stops_at(keys, threshold, criterion).tolist() == stops.tolist()


def test_windows_of_a_table_are_those_of_its_rows() -> None:
    keys = np.random.default_rng(6).integers(-1, 2, (40, 11))
    for window in (1, 2, 3, 11, 12):
        choice, drawn = early_stopping(keys, window)
        for row in range(len(keys)):
            windows = [keys[row, start : start + window] for start in range(0, 12 - window, window)]
            same = [number for number, ours in enumerate(windows) if len(ours) == window and ours[0] >= 0
                    and (ours == ours[0]).all()]  # fmt: skip
            expected = same[0] * window if same else int(majority(keys[row]).index)
            assert (choice.index[row], drawn[row]) == (expected, (same[0] + 1) * window if same else 11)
