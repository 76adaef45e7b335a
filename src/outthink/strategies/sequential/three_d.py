"""Context, batch and turns: rounds of samples with a thinking limit, each of which sees the best one so far.

Source: Extending Test-Time Scaling: A 3D Perspective with Context, Batch, and Turn (2025); the abstract and the public
reviews read, not the paper. Prompts are ours. Differs: the best so far stays in the contest, and is the answer whatever
later rounds bring; the judge sees one sample of each of the most frequent answers, in shuffled order; what is carried
are words and no thoughts. The source counts neither judge nor longer prompts as cost, this does.

Pays: on very hard problems with a selector that can be trusted, such as tests. With a weak judge plain best_of_n is
better, also in the source's reviews; with a 0.5B one it was 32 points below a vote that costs less on sums
(docs/results/selection.md).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, MissingResource, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rewards.judge import written
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report, checks
from outthink.strategies.choosing import by_best, by_majority, last_line
from outthink.strategies.thinking import CLOSE, ending, forcing, room, size, thought_through
from outthink.types import Candidate, Message, Problem

if TYPE_CHECKING:
    from numpy.random import Generator

_JUDGE = (
    "Question:\n{question}\n\n{solutions}\n\n"
    "Which of these solutions is the best one, and which the worst? First say of each in a sentence or two what is "
    "right and what is wrong in it. Then end with two lines:\nBest: LETTER\nWorst: LETTER"
)
_IMPROVE = (
    "{task}\n\nThe best solution so far, which may be wrong:\n\n{best}\n\n{worse}{reasons}"
    "Reflect on it and look for its weakest point. Then write a complete better solution in the form asked for above."
)
_WORSE = "A solution that was judged to be worse:\n\n{worst}\n\n"
_REASONS = "What a judge said, in whose words the best solution is Solution {letter}:\n\n{reasons}\n\n"
_LETTERS = "ABCDEFGH"  # of solutions that a judge is shown, at most so many; numbers would be taken for answers
_BEST = re.compile(r"\W*best\W*(?:solution\W*)?([A-H])\W*", re.IGNORECASE)
_WORST = re.compile(r"\W*worst\W*(?:solution\W*)?([A-H])\W*", re.IGNORECASE)

Selector = Literal["", "verifier", "judge", "vote"]


@dataclass(frozen=True, kw_only=True)
class _Carried:
    """What goes from one round to the next: the best so far, and perhaps a worse one and why."""

    best: Candidate
    worst: Candidate | None = None
    letter: str = ""
    reasons: str = ""


def judge_prompt(problem: Problem, solutions: Sequence[str]) -> str:
    """What the judge is asked of some solutions."""
    listed = "\n\n".join(
        f"Solution {letter}:\n{text.strip()}" for letter, text in zip(_LETTERS, solutions, strict=False)
    )
    return _JUDGE.format(question=problem.question, solutions=listed)


def improve_prompt(
    problem: Problem, best: str, worst: str = "", reasons: str = "", letter: str = ""
) -> tuple[Message, ...]:
    """The problem's messages with what is carried from the round before added to the last one."""
    *before, last = problem.messages
    asked = _IMPROVE.format(
        task=last.text,
        best=best.strip(),
        worse=_WORSE.format(worst=worst.strip()) if worst else "",
        reasons=_REASONS.format(letter=letter, reasons=reasons.strip()) if reasons.strip() else "",
    )
    return (*before, replace(last, content=asked))


def judged(text: str, count: int) -> tuple[int | None, int | None]:
    """Places of the best and the worst of so many solutions that a judge named; None where it did not."""
    places = []
    for form in (_BEST, _WORST):
        match = last_line(form, text)
        place = _LETTERS.index(match[1].upper()) if match else count
        places.append(place if place < count else None)
    return places[0], places[1]


@dataclass(frozen=True, kw_only=True)
class ThreeD:
    """`rounds` rounds of n samples that think for at most `max_think` tokens; the best of all rounds.

    Args:
        n: samples of a round (batch); at least 1.
        rounds: rounds of refinement (turns); at least 1.
        max_think: tokens after which a thought is ended by force (context); None: no limit but `max_tokens`. Needs a
            model that can go on with a text.
        selector: what chooses between rounds: "verifier" by score, "judge" by the model in that role, else by the main
            model, "vote" by equal answers; empty: the verifier where there is one, else the judge.
        contrast: also show the worst sample, as one that is not to be followed.
        answer_max: tokens kept for the answer behind a thought of `max_think`; None: a quarter of `max_tokens`.
        think_close, force: as for `budget_forcing`.
    """

    n: int = 4
    rounds: int = 3
    max_think: int | None = None
    selector: Selector = ""
    contrast: bool = False
    answer_max: int | None = None
    think_close: str = CLOSE
    force: str | None = None

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("n", "rounds", "max_think", "answer_max"))

    @property
    def powers(self) -> frozenset[str]:
        """What the model must be able to do."""
        return frozenset() if self.max_think is None else frozenset({"prefix"})

    @property
    def at_once(self) -> int:
        """Those of a round."""
        return self.n

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn."""
        return (Draw(n=self.n),) if self.max_think is None else ()

    @property
    def votes(self) -> bool:
        """Whether equal answers are what it goes by."""
        return self.selector == "vote"

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        meter: Meter,
        rng: Rng,
        verifier: Scores | None = None,
    ) -> None:
        """Reports every round before it is judged, and after."""
        selector = self.selector or ("judge" if verifier is None else "verifier")
        if selector == "verifier" and verifier is None:
            raise MissingResource("The selector verifier needs one: pass verifier=..., or --verifier NAME.")
        pool: list[Candidate] = []
        scores: dict[str, float | None] = {}
        carried: _Carried | None = None
        done = 0
        for turn in range(self.rounds):
            try:
                samples = await self._round(problem, model, meter, turn, carried)
            except (BudgetExhausted, EngineError, PromptTooLong):
                if not pool:
                    raise
                break
            pool += samples
            done += 1
            standing = carried.best if carried is not None else by_majority(samples)[0]
            self._report(report, pool, standing, scores if selector == "verifier" else None)
            if selector == "verifier" and verifier is not None:
                scores.update(zip((one.id for one in samples), await verifier.attempt(problem, samples), strict=True))
                carried = self._by_score(pool, scores)
            elif selector == "judge":
                carried = await self._by_judge(
                    problem, samples, carried, model, models.role("judge"), rng.at("order", turn)
                )
            else:
                best, _ = by_majority(pool)
                carried = None if best is None else _Carried(best=best)
            chosen = None if carried is None else carried.best
            self._report(report, pool, chosen, scores if selector == "verifier" else None)
        nominal = (self.max_think or model.sampling.cap) * self.n * self.rounds
        meter.notes.append(
            f"{len(pool)} samples in {done} rounds; {sum(one.tokens for one in pool)} tokens of at most {nominal}"
        )

    async def _round(
        self, problem: Problem, model: Model, meter: Meter, turn: int, carried: _Carried | None
    ) -> list[Candidate]:
        draw = Draw(n=self.n)
        if carried is not None:
            worst = carried.worst if self.contrast else None
            messages = improve_prompt(
                problem,
                spoken(model.text(carried.best)),
                spoken(model.text(worst)) if worst is not None else "",
                carried.reasons,
                carried.letter,
            )
            parents = (carried.best,) if worst is None else (carried.best, worst)
            draw = Draw(n=self.n, messages=messages, parents=parents, lane=("round", turn))
        if self.max_think is None:
            return (await model.sample_each(problem, [draw]))[0]
        force = forcing(problem, self.think_close, self.force)
        cap, put_in = model.sampling.cap, await size(model, ending("", self.think_close, force))
        answer = min(self.answer_max or max(cap // 4, 1), max(cap - 1, 1))
        think = min(self.max_think, max(cap - answer - put_in, 1))
        within = await room(model, problem, meter, draw, think=think, answer=answer, put_in=put_in)
        if within.think < 1:
            return (await model.sample_each(problem, [draw]))[0]
        draw = replace(draw, n=within.chains)
        (samples,) = await thought_through(
            model, problem, [draw], think=within.think, answer=answer, close=self.think_close, force=force
        )
        return samples

    def _by_score(self, pool: Sequence[Candidate], scores: dict[str, float | None]) -> _Carried | None:
        known = [scores.get(one.id) for one in pool]
        best, _ = by_best(pool, known)
        if best is None:
            return None
        worst, _ = by_best(pool, [None if score is None else -score for score in known])
        worst = best if worst is None or scores.get(worst.id) is None else worst
        return _Carried(best=best, worst=None if worst.key == best.key else worst)

    async def _by_judge(
        self,
        problem: Problem,
        samples: Sequence[Candidate],
        carried: _Carried | None,
        model: Model,
        judge: Model,
        order: Generator,
    ) -> _Carried | None:
        """The judge's choice among the best so far and the round's most frequent answers; without one it stays."""
        votes = Counter(one.key for one in samples if one.key is not None)
        ranked = sorted(votes, key=lambda key: -votes[key])  # of equals the earliest, as the counter has them
        firsts = {key: next(one for one in samples if one.key == key) for key in ranked[: len(_LETTERS)]}
        incumbent = carried.best if carried is not None else None
        shown = [incumbent] if incumbent is not None else []
        shown += [one for key, one in firsts.items() if incumbent is None or key != incumbent.key]
        shown = shown[: len(_LETTERS)]
        shown = [shown[place] for place in order.permutation(len(shown))]
        if len(shown) < 2:
            return carried or (_Carried(best=shown[0]) if shown else None)
        prompt = judge_prompt(problem, [spoken(model.text(one)) for one in shown])
        for temperature in (0.0, judge.sampling.temperature):  # 0 would say the same again
            try:
                ((said,),) = await written(judge, problem, [prompt], [tuple(shown)], temperature=temperature)
            except (BudgetExhausted, EngineError, PromptTooLong):
                break
            # one that was cut off may have gone on
            best, worst = judged(said.text, len(shown)) if said.finish == "eos" else (None, None)
            if best is not None:
                return _Carried(
                    best=shown[best],
                    worst=shown[worst] if worst is not None and worst != best else None,
                    letter=_LETTERS[best],
                    reasons=spoken(said.text),
                )
        if carried is not None:
            return carried
        majority, _ = by_majority(samples)
        return None if majority is None else _Carried(best=majority)

    def _report(
        self,
        report: Report,
        pool: Sequence[Candidate],
        chosen: Candidate | None,
        scores: dict[str, float | None] | None,
    ) -> None:
        keys = [one.key for one in pool if one.key is not None]
        share = sum(key == chosen.key for key in keys) / len(keys) if chosen is not None else 0.0
        known = None if scores is None else [scores.get(one.id) for one in pool]
        report(pool, chosen=chosen, confidence=share, scores=known)
