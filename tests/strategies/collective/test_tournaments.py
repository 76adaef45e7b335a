"""Methods that choose by matches: what the judge is sent, how many there are, and that an oracle is followed."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from outthink.models.engine import Request
from outthink.strategies.collective.elo_tournament import better
from outthink.strategies.collective.rtv import voted
from outthink.strategies.collective.v1_infer import match_of, ratings_of
from outthink.strategies.making import make_strategy
from outthink.types import Trace
from tests.strategies.collective.test_generations import Sent, solved
from tests.tools.toys import problem

RIGHT = 5


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?:#### |^Answer: )(\d+)", text, re.MULTILINE)]


def distance(number: int) -> int:
    return abs(number - RIGHT)


class Oracle(Sent):
    """Sample i answers with a number of its own; the judge knows that nearer to RIGHT is better."""

    def __init__(self, answers: list[int] | None = None, evolved: int = 8) -> None:
        super().__init__(self.reply)
        self.answers, self.evolved = answers, evolved

    def reply(self, request: Request, child: int, rng: np.random.Generator) -> str:
        text = request.messages[-1].text
        if request.address[0] == "model":
            return f"I say #### {self.answers[child] if self.answers else 10 + child}"
        if request.address[0] == "fusor":
            return f"evolved #### {self.evolved}"
        if text.startswith("Summarise"):
            return "**Answer:** something else" if self.answers is None else "Approach: adding"
        if text.startswith("Decide which of several"):
            order = numbers(text)
            return f"Best: {1 + min(range(len(order)), key=lambda place: distance(order[place]))}"
        if text.startswith("Decide which of two"):
            one, other = numbers(text)
            return f"Better: {1 if distance(one) < distance(other) else 2}"
        if text.startswith("Compare two"):
            one, other = (max(1, 10 - distance(number)) for number in numbers(text))
            return f"Ratings: A={one}/10, B={other}/10"
        return f"a review of {numbers(text)}" if text.startswith("Review") else "be more careful"

    def asked(self, beginning: str) -> list[str]:
        return [text for text in self.texts("judge") if text.startswith(beginning)]


def won(name: str, engine: Oracle, **settings: Any) -> Trace:
    return solved(name, engine, **settings)


SETTINGS: dict[str, dict[str, Any]] = {"elo_tournament": {"rounds": 0, "matches": 2}, "rtv": {}, "v1_infer": {}}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", range(6))
def test_a_judge_that_knows_puts_the_right_answer_on_top_wherever_it_is(name: str, place: int) -> None:
    answers = [30, 24, 9, 17, 12, 21]
    answers[place] = RIGHT
    assert won(name, Oracle(answers), n=6, seed=place, **SETTINGS[name]).answer == str(RIGHT)


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_asked_where_all_answers_are_equal(name: str) -> None:
    engine = Oracle([3] * 6)
    assert won(name, engine, n=6, **SETTINGS[name]).answer == "3"
    assert len(engine.requests) == 1


@pytest.mark.parametrize("name", SETTINGS)
def test_a_judge_that_says_nothing_leaves_an_answer(name: str) -> None:
    engine = Oracle([3, 3, 4, 6])
    engine._reply = lambda request, child, rng: (
        engine.reply(request, child, rng) if request.address[0] == "model" else "hm"
    )
    trace = won(name, engine, n=4, **SETTINGS[name])
    assert trace.stopped == "finished"
    assert trace.answer is not None


# ------------------------------------------------------------------------------------------------------------- elo


def pairs_of(texts: list[str]) -> list[frozenset[int]]:
    return [frozenset(numbers(text)) for text in texts]


def test_a_round_robin_of_eight_is_28_matches_and_no_pair_meets_twice() -> None:
    engine = Oracle()
    trace = won("elo_tournament", engine, n=8, matches=7, rounds=0)
    met = pairs_of(engine.asked("Decide"))
    assert len(met) == len({*met}) == 28
    assert all(len(pair) == 2 for pair in met)
    assert trace.answer == "10"


def test_everyone_plays_as_often_as_it_is_told() -> None:
    engine = Oracle()
    won("elo_tournament", engine, n=9, matches=3, rounds=0)
    played = Counter(number for pair in pairs_of(engine.asked("Decide")) for number in pair)
    assert len(played) == 9
    assert min(played.values()) == 3
    assert sum(played.values()) < 2 * 9 * 3, "few play more"


def test_matches_show_both_answers_with_their_reviews_and_the_best_meet_in_a_debate() -> None:
    engine = Oracle()
    won("elo_tournament", engine, n=9, matches=8, rounds=0)
    assert sorted(numbers(text)[0] for text in engine.asked("Review")) == [*range(10, 19)]
    compared = engine.asked("Decide")
    for text in compared:
        one, other = numbers(text)
        assert problem().question in text
        assert f"a review of [{one}]" in text
        assert f"a review of [{other}]" in text
        assert "Ignore scores in the reviews" in text
    debates = [text for text in compared if "panel of experts" in text]
    assert 0 < len(debates) < len(compared)
    assert all(max(numbers(text)) <= 14 for text in debates), "those on top"


def test_evolved_answers_are_new_ones_made_from_the_best_with_their_reviews() -> None:
    engine = Oracle([30, 9, 12, 21], evolved=RIGHT)
    trace = won("elo_tournament", engine, n=4, rounds=1, evolved=2)
    first, second = engine.texts("fusor")
    for text in (first, second):
        assert text.startswith(problem().question)
        assert {9, 12, 21} == set(numbers(text)), "the three best"
        assert "a review of [9]" in text
        assert "be more careful" in text, "what was often weak"
    assert "Combine the best parts" in first
    assert "repair what its review finds weak" in second
    (meta,) = engine.asked("Here are reviews")
    assert all(f"a review of [{number}]" in meta for number in (30, 9, 12, 21))
    assert trace.answer == str(RIGHT), "it entered, played, and won"
    entered = [text for text in engine.asked("Decide") if RIGHT in numbers(text)]
    assert len(entered) >= 3
    by_id = {one.id: one.text for one in trace.candidates}
    assert [by_id[f"model/0/{place}"] for place in range(4)] == [f"I say #### {n}" for n in (30, 9, 12, 21)]


def test_what_was_evolved_and_says_nothing_new_does_not_play() -> None:
    engine = Oracle([30, 9, 12, 21], evolved=9)
    trace = won("elo_tournament", engine, n=4, rounds=3)
    assert len(engine.texts("fusor")) == 2, "one round of evolution, not three"
    assert "nothing that was evolved in round 1 is a new answer" in trace.notes


def test_without_matches_it_is_the_majority() -> None:
    engine = Oracle([1, 2, 2, 3])
    assert won("elo_tournament", engine, n=4, matches=0).answer == "2"
    assert not engine.texts("judge")


def test_ratings_of_elo_keep_their_sum() -> None:
    trace = won("elo_tournament", Oracle(), n=6, matches=5, rounds=0, ranking="elo")
    scores = trace.rounds[-1].scores
    assert scores is not None
    assert sum(score for score in scores if score is not None) == pytest.approx(6 * 1200.0)


# ------------------------------------------------------------------------------------------------------------- rtv


@pytest.mark.parametrize(("n", "group", "matches"), [(16, 2, 15), (6, 2, 5), (16, 4, 5), (9, 3, 4)])
def test_a_bracket_has_as_many_matches_as_it_takes(n: int, group: int, matches: int) -> None:
    engine = Oracle()
    trace = won("rtv", engine, n=n, group=group, m=2)
    assert f"matches asked: {matches}; samples: {n}" in trace.notes
    compared = engine.asked("Decide")
    assert len(compared) == 2 * matches, "both orders"
    assert trace.answer == "10"


def test_matches_read_summaries_in_both_orders_and_never_the_samples() -> None:
    engine = Oracle()
    won("rtv", engine, n=4)
    summaries = engine.asked("Summarise")
    assert sorted(numbers(text)[0] for text in summaries) == [10, 11, 12, 13]
    assert all("I say" in text for text in summaries)
    compared = engine.asked("Decide")
    assert not any("I say" in text for text in compared)
    assert not any("something else" in text for text in compared), "the answer is the one that was read"
    orders = {tuple(numbers(text)) for text in compared}
    assert {order[::-1] for order in orders} == orders
    whole = Oracle()
    won("rtv", whole, n=4, summary=0)
    assert not whole.asked("Summarise")
    assert all("I say" in text for text in whole.asked("Decide"))


def test_who_meets_whom_is_shuffled_by_the_seed_and_the_ledger_has_the_matches() -> None:
    orders = set()
    for seed in range(5):
        engine = Oracle()
        trace = won("rtv", engine, n=6, seed=seed)
        orders.add(frozenset(pairs_of(engine.asked("Decide"))))
        (line,) = [line for line in trace.ledger() if line.kind == "judge"]
        assert line.children == len(engine.texts("judge"))
        assert line.usage.tokens > 0
    assert len(orders) > 1


def test_equal_answers_do_not_play() -> None:
    engine = Oracle([3, 3, 3, 3, 3, 9])
    won("rtv", engine, n=6)
    assert {frozenset((3, 9))} == {*pairs_of(engine.asked("Decide"))}


# -------------------------------------------------------------------------------------------------------- v1_infer


def test_everyone_is_compared_first_and_no_pair_twice_and_not_more_than_asked_for() -> None:
    engine = Oracle()
    trace = won("v1_infer", engine, n=16, m=2, comparisons=3.0)
    met = pairs_of(engine.asked("Compare"))
    assert len(met) == len({*met}) == 48
    first = Counter(number for pair in met[:16] for number in pair)
    assert len(first) == 16
    assert {*first.values()} == {2}
    assert trace.answer == "10"
    assert all(problem().question in text for text in engine.asked("Compare"))


def test_comparisons_of_all_pairs_is_the_round_robin() -> None:
    engine = Oracle()
    trace = won("v1_infer", engine, n=6, comparisons=9.0)
    met = pairs_of(engine.asked("Compare"))
    assert len(met) == len({*met}) == 15
    answers = {one.id: int(one.answer or 0) for one in trace.candidates if one.address[0] == "model"}
    last = trace.rounds[-1]
    rates = {answers[name]: score for name, score in zip(last.candidates, last.scores or (), strict=True)}
    rated = {number: max(1, 10 - distance(number)) for number in rates}

    def rate(number: int) -> float:
        margins = {other: max(abs(rated[number] - rated[other]) / 9, 0.1) for other in rates if other != number}
        score = {other: 0.5 + 0.5 * np.sign(rated[number] - rated[other]) for other in margins}
        return float(sum(margins[other] * score[other] for other in margins) / sum(margins.values()))

    assert rates == pytest.approx({number: rate(number) for number in rates})


def test_verdicts_are_read_as_they_are_asked_for() -> None:
    assert ratings_of("Both...\n**Ratings:** A = 7, B = 3") == (7, 3)
    assert ratings_of("Ratings: A=7/10, B=10/10.") == (7, 10)
    for said in ("A=0/10, B=3/10", "A=9, B=-8", "A=101, B=79", "A=7.5, B=3", "A=, B=3"):
        assert ratings_of(f"Ratings: {said}") is None
    assert ratings_of("A is better") is None
    assert (match_of(0, 1, (10, 1)).margin, match_of(0, 1, (2, 5)).score, match_of(0, 1, (4, 4)).score) == (
        1.0,
        0.0,
        0.5,
    )
    assert (better("...\n**Better: 2**"), better("Better: answer 1."), better("Better: 3")) == (0.0, 1.0, None)
    assert (voted("Best: 2", 2), voted("The best solution is solution 1.", 2), voted("Best: 3", 2)) == (1, 0, None)


def test_what_cannot_be_read_is_asked_for_once_more() -> None:
    engine = Oracle([9, 12])
    engine._reply = lambda request, child, rng: (
        "hm" if request.address[0] == "judge" and request.temperature == 0 else engine.reply(request, child, rng)
    )
    assert won("v1_infer", engine, n=2).answer == "9"
    assert len(engine.asked("Compare")) == 2


def test_too_many_pairs_are_refused() -> None:
    with pytest.raises(Exception, match="100 answers have 4,950 pairs for the judge, more than 4,096"):
        make_strategy("elo_tournament", {"n": 98})
