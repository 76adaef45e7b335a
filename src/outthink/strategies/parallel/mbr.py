"""Minimum Bayes risk (MBR): the sample that is most like the other samples.

Source: MBR decoding as described in When Life Gives You Samples and in code for self-certainty, notes read; chrF from
Popović (2015), chrF: character n-gram F-score for automatic MT evaluation, from memory. Differs: unfinished and
unreadable samples are neither chosen nor evidence; ties go to the shorter.

Pays: for free-form outputs that are rarely equal. On short exact answers use the vote: 34 points below it on sums
(docs/results/selection.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.maths.selection import Drawn, Replayed, best_of, codes
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import by_best
from outthink.types import Candidate, Problem

_ORDERS = 6  # longest n-grams of chrF
_BETA = 2.0  # recall counts this many times as much as precision


def expected_utility(utilities: ArrayLike) -> NDArray[np.float64]:
    """The mean utility (..., n) of each sample over the evidence other than itself; NaN where there is none.

    Args:
        utilities: (..., n, n + m): of every sample (row) against the n samples and m further pieces of evidence
            (columns). NaN is missing, and left out; a column of NaN is no evidence.
    """
    u = np.asarray(utilities, float)
    n, evidence = u.shape[-2:]
    counted = ~np.isnan(u) & ~np.eye(n, evidence, dtype=bool)
    count = counted.sum(-1)
    total = np.where(counted, u, 0.0).sum(-1)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def equality(keys: ArrayLike) -> NDArray[np.float64]:
    """The utilities (..., n, n) that make MBR the majority: 1 for equal answers, else 0; NaN for INVALID.

    Args:
        keys: (..., n) integers, -1 is INVALID.
    """
    keys = np.asarray(keys)
    valid = keys >= 0
    equal = (keys[..., :, None] == keys[..., None, :]).astype(float)
    return np.where(valid[..., :, None] & valid[..., None, :], equal, np.nan)


def chrf(texts: Sequence[str]) -> NDArray[np.float64]:
    """The chrF (n, n), in [0, 1], of each text (row) against each as reference (column); white space is left out."""
    n = len(texts)
    letters = ["".join(text.split()) for text in texts]
    precision, recall, orders = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for order in range(1, _ORDERS + 1):
        sizes = np.array([max(len(text) - order + 1, 0) for text in letters], dtype=float)
        both = (sizes[:, None] > 0) & (sizes[None, :] > 0)
        matches = _matches(letters, order)
        precision += np.divide(matches, sizes[:, None], out=np.zeros((n, n)), where=both)
        recall += np.divide(matches, sizes[None, :], out=np.zeros((n, n)), where=both)
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    weighted = _BETA**2 * precision + recall
    return np.divide((1 + _BETA**2) * precision * recall, weighted, out=np.zeros((n, n)), where=weighted > 0)


def _matches(texts: Sequence[str], order: int) -> NDArray[np.float64]:
    """How many n-grams (n, n) each two texts share; one that is in both several times counts as often as in both."""
    from scipy.sparse import csr_array  # here, because importing scipy is slow

    # the k-th occurrence of an n-gram in a text is a word of its own, so shared words are shared occurrences
    known: dict[tuple[str, int], int] = {}
    rows, words = [], []
    for row, text in enumerate(texts):
        seen: Counter[str] = Counter()
        for start in range(len(text) - order + 1):
            gram = text[start : start + order]
            words.append(known.setdefault((gram, seen[gram]), len(known)))
            rows.append(row)
            seen[gram] += 1
    table = csr_array((np.ones(len(words)), (rows, words)), shape=(len(texts), len(known)))
    return np.asarray((table @ table.T).toarray(), dtype=float)


@dataclass(frozen=True, kw_only=True)
class MBR:
    """The sample with the highest mean utility against the others.

    Args:
        n: samples drawn; at least 1.
        compare: what the utility of a sample against another is: "text" or "answer", the chrF of their whole texts
            (without what stands before a last `</think>`) or of their answers; "key", 1 for equal answers, which is
            the majority.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"keys", "texts"})

    n: int = 16
    compare: Literal["text", "answer", "key"] = "text"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        """One batch, one choice."""
        samples = await model.sample(problem, self.n)
        keys = codes([sample.key for sample in samples])
        utilities = equality(keys)
        if self.compare != "key":
            utilities = np.where(np.isnan(utilities), np.nan, chrf([self._compared(sample) for sample in samples]))
        scores = [None if np.isnan(score) else float(score) for score in expected_utility(utilities)]
        chosen, share = by_best(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded texts; `compare` is "text" or "key"."""
        utilities = equality(drawn.keys)
        if self.compare != "key":
            assert drawn.texts is not None
            alike = chrf([text.rpartition("</think>")[2] for text in drawn.texts])
            rows, columns = drawn.order[..., :, None], drawn.order[..., None, :]
            utilities = np.where(np.isnan(utilities), np.nan, alike[rows, columns])
        return Replayed.of_all(best_of(drawn.keys, expected_utility(utilities), lengths=drawn.lengths), drawn)

    def _compared(self, sample: Candidate) -> str:
        if sample.key is None:
            return ""
        return sample.text.rpartition("</think>")[2] if self.compare == "text" else sample.answer or ""
