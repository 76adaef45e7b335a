"""A judge that scores all solutions in one text, by principles of its own; k such passes are summed.

Source: Liu et al., Inference-Time Scaling for Generalist Reward Modeling (DeepSeek-GRM), from excerpts on its voting
and from notes; the paper itself was not read. Differs: any model judges, by our prompt; a pass that cannot be read is
dropped as a whole; the meta reward model that rates the passes can be any scorer; the sum is shown as a mean in [0, 1];
of equal sums that of the response is larger which is at the top of more passes, by less than any other difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, NothingCameBack
from outthink.maths.selection import numbers
from outthink.meter import Meter
from outthink.model import Draw, Models
from outthink.rewards import Path
from outthink.rewards.inner import Bound, Inner
from outthink.rewards.pairwise import distinct, whole_text
from outthink.rng import Rng
from outthink.together import each, together
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "Question:\n{question}\n\n{responses}\n\n"
    "First write the principles by which these responses should be judged and their weights. Then criticise each "
    "response by them. End with one line that gives each response an integer from 1 (worst) to 10 (best), in their "
    "order: Scores: {form}"
)
_MARKS = r"(?:[^\w\n]|_)*"  # Markdown, brackets, colons, full stops
_NUMBER = r"<?(?<![-.])\d{1,9}>?"
_LINE = re.compile(
    rf"^{_MARKS}scores{_MARKS}({_NUMBER}(?:[ \t]*,[ \t]*{_NUMBER})*){_MARKS}$", re.IGNORECASE | re.MULTILINE
)
_TEMPERATURE = 0.5
_MOST = 10
_TIE = 1e-9  # the part of its score that a response loses which is never at the top


def passes_that_count(scores: ArrayLike, ratings: ArrayLike, k_meta: int) -> NDArray[np.bool_]:
    """The passes (..., k) that vote: the `k_meta` that are rated best, the earlier of equals, and unrated ones last.

    Where none is rated, all do; one that could not be read never does.

    Args:
        scores: (..., k, n) of each pass; NaN throughout for one that could not be read.
        ratings: (..., k) of the passes themselves; NaN is missing.
        k_meta: with k it is the plain vote, with 1 the word of whoever rates.
    """
    there = ~np.isnan(np.asarray(scores, float)).any(-1)
    rated = np.where(there, np.asarray(ratings, float), np.nan)
    best_first = np.lexsort((-np.nan_to_num(rated, nan=-np.inf), ~there), axis=-1)
    places = np.argsort(best_first, axis=-1, kind="stable")
    return np.asarray(there & ((places < k_meta) | np.isnan(rated).all(-1, keepdims=True)))


def summed_scores(scores: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """The sum S* (..., n) of each response's scores (..., k, n) over the passes that count (..., k)."""
    return np.asarray(np.where(np.asarray(counts)[..., None], np.asarray(scores, float), 0.0).sum(-2))


def top_shares(scores: ArrayLike, counts: ArrayLike) -> NDArray[np.float64]:
    """The share (..., n) of the passes that count in which each response has the highest score, alone or not."""
    known = np.where(np.asarray(counts)[..., None], np.asarray(scores, float), -np.inf)
    top = (known == known.max(-1, keepdims=True)) & np.asarray(counts)[..., None]
    return np.asarray(top.sum(-2) / np.maximum(np.asarray(counts).sum(-1), 1)[..., None])


def read_scores(text: str, n: int) -> list[int] | None:
    """The integers of the last line that gives scores; None where they are not n of 1 to 10."""
    lines = _LINE.findall(text)
    scores = [int(score) for score in re.findall(r"\d+", lines[-1])] if lines else []
    return scores if len(scores) == n and all(1 <= score <= _MOST for score in scores) else None


@dataclass(frozen=True, kw_only=True)
class Critique:
    """S* / (10 * passes that count), in [0.1, 1], by the model in the role "judge", else the main model.

    Solutions that differ in blank lines and in white space at the end of lines only are one response.

    Args:
        k: passes, each with the responses in another order; at least 1.
        meta: a scorer that rates the passes, as text or as what `make_scorer` takes: the question it gets is the
            judge's prompt, the solution what the judge wrote. None: all passes count.
        k_meta: how many count then; None: half of k.
    """

    k: int = 8
    meta: Any = None
    k_meta: int | None = None
    relative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")
        if self.k_meta is not None and not (1 <= self.k_meta <= self.k and self.meta is not None):
            raise ValueError(f"k_meta must be from 1 to k and needs meta, not {self.k_meta}")
        _ = self._inner  # one that there is not is an error now

    @cached_property
    def _inner(self) -> Inner | None:
        return None if self.meta is None else Inner(self.meta, process=False)

    @property
    def reads(self) -> frozenset[str]:
        """What the meta scorer reads."""
        return frozenset() if self._inner is None else self._inner.reads

    @property
    def spec(self) -> Any:
        """Of the meta scorer."""
        return None if self._inner is None else self._inner.spec

    @property
    def score(self) -> Callable[..., Any]:
        """The coroutine function, with the resources of the meta scorer."""
        return self._means if self._inner is None else self._inner.naming(self._means)

    async def close(self) -> None:
        """Close the meta scorer."""
        if self._inner is not None:
            await self._inner.close()

    async def _means(
        self, problem: Problem, paths: Sequence[Path], *, models: Models, rng: Rng, meter: Meter, **others: Any
    ) -> list[float | None]:
        """All passes are one batch."""
        shown, places = await distinct(paths)
        first = shown[0][-1].address
        orders = [rng.at("critique", *first, number).permutation(len(shown)) for number in range(self.k)]
        prompts = await each(lambda order: _prompt(problem, [whole_text(shown[place]) for place in order]), orders)
        draws = [
            Draw(
                messages=(Message(content=prompt),),
                parents=tuple(shown[place][-1] for place in order),
                temperature=_TEMPERATURE,
                aside=True,
            )
            for prompt, order in zip(prompts, orders, strict=True)
        ]
        drawn = await models.role("judge").lane(*first).sample_each(problem, draws)
        scores = np.full((self.k, len(shown)), np.nan)
        critiques: dict[int, Candidate] = {}  # those that could be read
        whole = [(number, said) for number, samples in enumerate(drawn) for said in samples if said.finish == "eos"]
        read = await each(lambda one: read_scores(spoken(one[1].text), len(shown)), whole)
        for (number, said), marks in zip(whole, read, strict=True):
            if marks is not None:
                scores[number, orders[number]] = marks
                critiques[number] = said
        ratings = np.full(self.k, np.nan)
        if self._inner is not None:
            rater = self._inner.bound(models=models, rng=rng, meter=meter, **others)
            rated = (_rating(rater, replace(problem, question=prompts[at]), said) for at, said in critiques.items())
            ratings[[*critiques]] = numbers(await together(*rated))
        counts = passes_that_count(scores, ratings, max(self.k // 2, 1) if self.k_meta is None else self.k_meta)
        if not counts.any():
            return [None] * len(paths)
        means = summed_scores(scores, counts) / (_MOST * counts.sum())
        means *= 1 - _TIE * (1 - top_shares(scores, counts))
        return [float(means[place]) for place in places]


async def _rating(rater: Bound, problem: Problem, said: Candidate) -> float | None:
    try:
        return (await rater.scores(problem, [(replace(said, complete=True),)]))[0]
    except (BudgetExhausted, NothingCameBack):
        return None


def _prompt(problem: Problem, responses: Sequence[str]) -> str:
    shown = "\n\n".join(f"Response {number}:\n{text}" for number, text in enumerate(responses, 1))
    form = ", ".join(f"<{number}>" for number in range(1, len(responses) + 1))
    return _PROMPT.format(question=problem.question, responses=shown, form=form)
