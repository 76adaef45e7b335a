"""Elo tournament of ideas: answers are reviewed, play matches before a judge, and the best are evolved and play on.

Source: Towards an AI co-scientist (2502.18864), text and the supplement's pseudo-code through a reproduction were read,
the prompts were not. Differs: a tournament of answers and no scientist, so the name: no search, no tools, no supervisor
that samples who works next; rounds of review, matches and evolution instead; prompts are ours. One sample stands for
each different answer, and an evolved one that says nothing new does not enter; which of two is shown first is drawn;
a verdict that cannot be read is asked for once more, then it is a draw. After the matches the best meets who has lost
nothing and not met it; it is the best of a Bradley-Terry fit where nothing else is said, not by Elo.

Pays: for open problems, with a judge better than the model. Ratings are the judge's own and can rise without the
answers getting better. On sums with a 0.5B judge it was 38 points below the vote of a quarter of its tokens
(docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.maths.tournament import (
    NEWCOMER,
    Match,
    Pair,
    bradley_terry,
    drawn_pairs,
    elo,
    pair_weights,
    priorities,
    times_played,
    top_third,
    winner,
)
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.resources.embedding import Embedder
from outthink.rewards.judge import read_once, written
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, last_line
from outthink.strategies.prompting import added, between, said_by
from outthink.together import away, each
from outthink.types import Candidate, Message, Problem

_REVIEW = (
    "Review an answer as a careful expert.\n\nQuestion:\n{question}\n\n<answer>\n{answer}\n</answer>\n\n{known}"
    "Name its main assumptions or steps and say of each whether it holds, then its greatest weakness. Be brief, and "
    "give no score."
)
_KNOWN = "Weaknesses that earlier answers had:\n{weaknesses}\n\n"
_SIDES = (
    "Question:\n{question}\n\n<answer 1>\n{a}\n</answer 1>\n\n<review 1>\n{review_a}\n</review 1>\n\n"
    "<answer 2>\n{b}\n</answer 2>\n\n<review 2>\n{review_b}\n</review 2>\n\n"
)
_COMPARE = (
    f"Decide which of two answers is better. Ignore scores in the reviews.\n\n{_SIDES}"
    "Compare them in a few sentences: which one is right, and complete? Then end with one line: Better: 1 or Better: 2"
)
_DEBATE = (
    f"Decide which of two answers is better. Ignore scores in the reviews.\n\n{_SIDES}"
    "Play a panel of experts that discusses them in three turns. In the first, sum up both. In the second, ask "
    "questions and name weaknesses of each. In the third, settle which one is right, useful and complete. Then end "
    "with one line: Better: 1 or Better: 2"
)
_BETTER = re.compile(r"[^\w\n]*better[^\w\n]*(?:answer[^\w\n]*)?([12])[^\w\n]*", re.IGNORECASE)
_META = (
    "Here are reviews of several answers to one question.\n\nQuestion:\n{question}\n\n{reviews}\n\n"
    "Sum up in a few lines which weaknesses come again, as advice to whoever answers next."
)
_EVOLVE = "Here are answers to this with their reviews; they may be wrong.\n\n{ideas}\n\n{known}{way}"
_WAYS = (
    "Combine the best parts of these answers into a better one.",
    "Take the first of these answers, and repair what its review finds weak.",
    "Find an answer that goes another way than all of these.",
)
_WRITE = " Write one complete answer of your own, which ends in the form asked for above."
_PARENTS = 3  # answers that an evolved one is made from
_SIMILAR = 0.1  # the least similarity of two answers
_MOST = 4096  # pairs


def better(text: str) -> float | None:
    """The score of answer 1 in the last line of the form "Better: 1"; None without one."""
    line = last_line(_BETTER, text)
    return None if line is None else float(line[1] == "1")


def evolve_prompt(
    problem: Problem, ideas: Sequence[tuple[str, str]], way: str, weaknesses: str = ""
) -> tuple[Message, ...]:
    """The question, the answers with their reviews, what was often weak, and in which way a new one is to be made."""
    texts = {number: f"{text}\n\nIts review:\n{review}" for number, (text, review) in enumerate(ideas, 1)}
    known = _KNOWN.format(weaknesses=weaknesses.strip()) if weaknesses else ""
    return added(problem, _EVOLVE.format(ideas=between("answer", texts), known=known, way=way + _WRITE))


@dataclass(eq=False, slots=True)
class _Field:
    """Those that play: answers in the order in which they entered, and everything that is known of them."""

    ideas: list[Candidate] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    reviews: list[str] = field(default_factory=list)
    ratings: list[float] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    met: set[Pair] = field(default_factory=set)

    async def enter(self, candidates: Sequence[Candidate]) -> int:
        """Those that say something new enter; how many did."""
        known = {idea.key for idea in self.ideas} | {None}
        new = {one.key: one for one in reversed(candidates) if one.key not in known}
        entering = [*new.values()][::-1]
        self.ideas += entering
        self.said += (await said_by(entering)).values()
        self.reviews += [""] * len(new)
        self.ratings += [NEWCOMER] * len(new)
        return len(new)

    def weights(self, similarity: NDArray[np.float64], fewest: int) -> NDArray[np.float64]:
        """How likely pairs are to meet; those that have met, or have played enough both, do not."""
        played = times_played(len(self.ideas), self.matches)
        weights = pair_weights(similarity, priorities(self.ratings, played, fewest))
        for a, b in self.met:
            weights[a, b] = weights[b, a] = 0.0
        enough = played >= fewest
        weights[np.ix_(enough, enough)] = 0.0
        return weights

    def challenge(self, ratings: Sequence[float], fewest: int) -> list[Pair]:
        """The best against the first that has lost nothing and that it has not met, if there is one."""
        best = winner(ratings, self.matches, fewest)
        met = {match.a + match.b - best for match in self.matches if best in (match.a, match.b)}
        beaten = {match.b if match.score == 1 else match.a for match in self.matches if match.score in (0, 1)}
        others = (place for place in range(len(ratings)) if place not in {best, *met, *beaten})
        return [(best, other) for other in others][:1]


@dataclass(frozen=True, kw_only=True)
class EloTournament:
    """Answers by the main model, evolved ones by the role "fusor", reviews and matches by the role "judge".

    The main model is in a role that has none of its own.

    Args:
        n: answers at first.
        matches: that each different answer plays at least, as far as there are others it has not met; 0 is the
            majority. As many as there are others is a round robin.
        rounds: of evolution, each with reviews and matches of what is new; 0 is a tournament of the first answers.
        evolved: new answers of such a round.
        k: how far one match moves a rating.
        ranking: what the answer is the best by: "elo", or a fit of "bradley_terry" to all matches, which does not
            depend on their order.
    """

    n: int = 4
    matches: int = 3
    rounds: int = 1
    evolved: int = 2
    k: float = 32.0
    ranking: Literal["elo", "bradley_terry"] = "bradley_terry"

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "evolved"), at_least_zero=("matches", "rounds"), above_zero=("k",))
        most = self.n + self.rounds * self.evolved
        if (asked := most * (most - 1) // 2) > _MOST:
            raise ValueError(f"{most} answers have {asked:,} pairs for the judge, more than {_MOST:,}: make them fewer")

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        rng: Rng,
        meter: Meter,
        embedder: Embedder,
    ) -> None:
        """The majority is reported first, then the best of the tournament after each round."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share, generation=1)
        players = _Field()
        await players.enter(samples)
        if len(players.ideas) < 2 or not self.matches:
            return
        judge, fusor = models.role("judge"), models.role("fusor")
        weaknesses = ""
        for number in range(1, self.rounds + 2):
            before = len(players.matches)
            try:
                await self._review(problem, judge, players, weaknesses)
                similarity = await _similarity(embedder, players.said)
                await self._play(problem, judge, players, similarity, rng, number)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"the tournament ends after {len(players.matches)} matches: {failure}")
                if len(players.matches) > before:
                    self._report(report, players, players.ideas, None)
                return
            self._report(report, players, players.ideas, None)
            if number > self.rounds:
                break
            try:
                weaknesses = await self._weaknesses(problem, judge, players)
                new = await self._evolve(problem, fusor.lane("round", number + 1), players, weaknesses)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"nothing was evolved in round {number}: {failure}")
                return
            self._report(report, players, new, number + 1)
            if not await players.enter(new):
                meter.notes.append(f"nothing that was evolved in round {number} is a new answer")
                break
        meter.notes.append(f"matches played: {len(players.matches)}; different answers: {len(players.ideas)}")

    def _report(self, report: Report, players: _Field, shown: Sequence[Candidate], generation: int | None) -> None:
        """The best of those that have played, beside what is shown with its ratings."""
        ratings = self._rated(players)
        best = winner(ratings, players.matches, self.matches)
        rated = {idea.id: rating for idea, rating in zip(players.ideas, ratings, strict=True)}
        scores = [rated.get(one.id) for one in shown]
        played = [match for match in players.matches if best in (match.a, match.b)]
        won = sum(match.score if match.a == best else 1.0 - match.score for match in played)
        share = won / len(played) if played else 0.0
        report(shown, chosen=players.ideas[best], scores=scores, confidence=share, generation=generation)

    def _rated(self, players: _Field) -> list[float]:
        """What the best is the best by."""
        if self.ranking == "elo":
            return players.ratings
        return [float(strength) for strength in bradley_terry(len(players.ideas), players.matches)]

    async def _review(self, problem: Problem, judge: Model, players: _Field, weaknesses: str) -> None:
        """Review those that have no review; one whose review is missing plays without."""
        new = [place for place, review in enumerate(players.reviews) if not review]
        known = _KNOWN.format(weaknesses=weaknesses) if weaknesses else ""
        prompts = await each(
            lambda place: _REVIEW.format(question=problem.question, answer=players.said[place], known=known), new
        )
        drawn = await written(judge.lane("review"), problem, prompts, [(players.ideas[place],) for place in new])
        reviews = {place: texts[0] for place, texts in zip(new, drawn, strict=True) if texts}
        said = await said_by([*reviews.values()])
        for place, review in reviews.items():
            players.reviews[place] = said[review.id]

    async def _play(
        self,
        problem: Problem,
        judge: Model,
        players: _Field,
        similarity: NDArray[np.float64],
        rng: Rng,
        number: int,
    ) -> None:
        """Waves of matches side by side, until everyone has played enough or has met everyone; then the play-off."""
        wave = 0
        while True:
            draw = rng.at("elo_tournament", number, wave)
            weights = players.weights(similarity, self.matches)
            met = await away(weights.size * len(players.ideas), drawn_pairs, weights, draw)
            met = met or players.challenge(self._rated(players), self.matches)
            if not met:
                return
            top = top_third(players.ratings)
            forms = [_DEBATE if top[a] and top[b] else _COMPARE for a, b in met]
            prompts = await each(
                lambda known: known[0].format(
                    question=problem.question,
                    a=players.said[known[1][0]],
                    review_a=players.reviews[known[1][0]] or "none",
                    b=players.said[known[1][1]],
                    review_b=players.reviews[known[1][1]] or "none",
                ),
                zip(forms, met, strict=True),
            )
            judged = [(players.ideas[a], players.ideas[b]) for a, b in met]
            said = await read_once(judge.lane("match"), problem, prompts, judged, better)
            played = [Match(a, b, 0.5 if won is None else won) for (a, b), won in zip(met, said, strict=True)]
            players.ratings = elo(players.ratings, played, k=self.k)
            players.matches += played
            players.met |= set(met)
            wave += 1

    async def _weaknesses(self, problem: Problem, judge: Model, players: _Field) -> str:
        """What reviews say again and again; it is no answer."""
        reviews = [review for review in players.reviews if review]
        if not reviews:
            return ""
        prompt = _META.format(question=problem.question, reviews=between("review", dict(enumerate(reviews, 1))))
        ((said,),) = await written(judge.lane("meta"), problem, [prompt], [tuple(players.ideas)])
        return (await said_by([said]))[said.id]

    async def _evolve(self, problem: Problem, fusor: Model, players: _Field, weaknesses: str) -> list[Candidate]:
        """New answers from the best ones, which stay as they are."""
        order = sorted(range(len(players.ideas)), key=lambda place: (-players.ratings[place], place))[:_PARENTS]
        ideas = [(players.said[place], players.reviews[place]) for place in order]
        draws = [
            Draw(
                messages=evolve_prompt(problem, ideas, _WAYS[at % len(_WAYS)], weaknesses),
                parents=tuple(players.ideas[place] for place in order),
                lane=(at,),
            )
            for at in range(self.evolved)
        ]
        drawn = await fusor.sample_fitting(problem, draws)
        new = [sample for samples in drawn for sample in samples]
        if not new:
            raise NothingCameBack("no evolved answer came back")
        return new


async def _similarity(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float64]:
    """(n, n), from the least to 1."""
    rows = await embedder.embed(texts)
    return np.asarray(np.clip(rows @ rows.T, _SIMILAR, 1.0))
