"""Minimum Bayes risk (MBR): the sample that is most like the other samples.

Source: MBR decoding as described in When Life Gives You Samples and in code for self-certainty, notes read; chrF from
Popović (2015), chrF: character n-gram F-score for automatic MT evaluation, from memory. Differs: unfinished and
unreadable samples are neither chosen nor evidence; ties go to the shorter; of more than 64 samples 64 are the
evidence, evenly spaced, and of texts that are very long together only the ends are compared.

Pays: for free-form outputs that are rarely equal. On short exact answers use the vote: 34 points below it on sums
(docs/results/selection.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.answers.thoughts import spoken
from outthink.errors import UsageError
from outthink.maths.selection import Drawn, Replayed, answer_totals, best_of, codes, majority
from outthink.model import Model
from outthink.strategies import Report
from outthink.strategies.choosing import by_best, by_majority
from outthink.together import away
from outthink.types import Candidate, Problem

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_ORDERS = 6  # longest n-grams of chrF
_BETA = 2.0  # recall counts this many times as much as precision
_EVIDENCE = 64  # samples that each is compared with, at most
_LETTERS = 1 << 22  # of all texts together
_WORK = 1 << 27  # letters of all texts, times those that they are compared with
_DIGITS = 12  # mean utilities that differ by less are ties


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


def chrf(texts: Sequence[str], evidence: Sequence[int] | None = None) -> NDArray[np.float64]:
    """The chrF (n, e), in [0, 1], of each text (row) against some of them as reference (column).

    White space is left out. It takes time in proportion to e times the characters of all texts.

    Args:
        evidence: (e,) which texts are references; None: all.
    """
    columns = np.arange(len(texts)) if evidence is None else np.asarray(evidence, dtype=np.intp)
    place = {text: number for number, text in enumerate(dict.fromkeys("".join(text.split()) for text in texts))}
    row = np.array([place["".join(text.split())] for text in texts], dtype=np.intp)  # equal texts are compared once
    n, references = len(place), np.unique(row[columns])
    shape = (n, len(references))
    precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    letters = np.array([len(text) for text in place], dtype=float)
    for order, table in enumerate(_grams(list(place)), start=1):
        sizes = np.maximum(letters - order + 1, 0)
        both = (sizes[:, None] > 0) & (sizes[references] > 0)
        matches = _matches(table, references)
        matches[references, np.arange(len(references))] = sizes[references]
        precision += np.divide(matches, sizes[:, None], out=np.zeros(shape), where=both)
        recall += np.divide(matches, sizes[references], out=np.zeros(shape), where=both)
        orders += both
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    weighted = _BETA**2 * precision + recall
    alike = np.divide((1 + _BETA**2) * precision * recall, weighted, out=np.zeros(shape), where=weighted > 0)
    return np.asarray(alike[row][:, np.searchsorted(references, row[columns])])


def _grams(texts: Sequence[str]) -> Iterator[csr_array]:
    """For each order, how often (n, grams) each text has each n-gram that is in more than one of them."""
    from scipy.sparse import csr_array  # here, because importing scipy is slow

    lengths = np.array([len(text) for text in texts], dtype=np.intp)
    letters = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    alphabet, letter = np.unique(letters, return_inverse=True)
    row = np.repeat(np.arange(len(texts)), lengths)
    left = np.cumsum(lengths)[row] - np.arange(len(letters))  # letters from each place to the end of its text
    begins, gram = np.arange(len(letters)), np.zeros(len(letters), dtype=np.intp)
    for order in range(1, _ORDERS + 1):
        # an n-gram is the one before it and a letter more; where that is in one text only, so is this
        going = left[begins] >= order
        begins, gram = begins[going], gram[going]
        names, gram = np.unique(gram * len(alphabet) + letter[begins + order - 1], return_inverse=True)
        # sorted by text and gram, so that it is the table as it is stored
        cells, counts = np.unique(row[begins] * len(names) + gram, return_counts=True)
        place, column = np.divmod(cells, max(len(names), 1))
        shared = np.bincount(column, minlength=len(names)) > 1
        kept = shared[column]
        begin = np.concatenate([[0], np.cumsum(np.bincount(place[kept], minlength=len(texts)))])
        yield csr_array((counts[kept].astype(np.int32), column[kept], begin), shape=(len(texts), len(names)))
        going = shared[gram]
        begins, gram = begins[going], gram[going]


def _matches(table: csr_array, references: NDArray[np.intp]) -> NDArray[np.float64]:
    """How many n-grams (n, e) each text shares with each reference; one counts as often as it is in both."""
    matches = np.zeros((table.shape[0], len(references)))
    counts = np.zeros(table.shape[1], dtype=table.data.dtype)
    sums = np.zeros(len(table.data) + 1, dtype=np.int64)
    for column, reference in enumerate(references):
        mine = slice(table.indptr[reference], table.indptr[reference + 1])
        counts[table.indices[mine]] = table.data[mine]
        np.cumsum(np.minimum(table.data, counts[table.indices]), out=sums[1:])
        matches[:, column] = np.diff(sums[table.indptr])
        counts[table.indices[mine]] = 0
    return matches


def evidence_of(valid: ArrayLike) -> NDArray[np.bool_]:
    """Which of the samples (..., n) the others are compared with: all valid ones, or 64 of them, evenly spaced."""
    valid = np.asarray(valid, dtype=bool)
    count = valid.sum(-1, keepdims=True)
    rank = np.cumsum(valid, axis=-1) * _EVIDENCE
    step = rank // np.maximum(count, 1) > (rank - _EVIDENCE) // np.maximum(count, 1)
    return np.asarray(valid & ((count <= _EVIDENCE) | step))


def longest_compared(n: int) -> int:
    """How many letters of each of n texts are compared, so that time and memory are bounded."""
    return min(_LETTERS, _WORK // min(n, _EVIDENCE)) // n


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
        if self.compare == "key":
            utilities = _agreement(keys)
            chosen, share = by_majority(samples)
        else:
            texts = [self._compared(sample) for sample in samples if sample.key is not None]
            utilities = np.full(len(samples), np.nan)
            utilities[keys >= 0] = await away(sum(map(len, texts)), text_utilities, texts, len(samples))
        scores = [None if np.isnan(score) else float(score) for score in utilities]
        if self.compare != "key":
            chosen, share = by_best(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def replay(self, drawn: Drawn) -> Replayed:
        """The same choice from recorded texts; `compare` is "text" or "key"."""
        if self.compare == "key":
            return Replayed.of_all(majority(drawn.keys, lengths=drawn.lengths), drawn)
        if self.compare == "answer":
            raise UsageError("Pools have no answers as they were written: replay mbr with compare=text or compare=key.")
        assert drawn.texts is not None
        most = longest_compared(drawn.keys.shape[-1])
        alike = _all_alike(tuple(_end(spoken(text), most) for text in drawn.texts))
        # the mean over the evidence of each order, without a table of all pairs for each
        counted = evidence_of(drawn.keys >= 0)
        evidence = np.zeros((len(counted), len(alike)))
        np.put_along_axis(evidence, drawn.order, counted.astype(float), -1)
        total = np.take_along_axis(evidence @ alike.T, drawn.order, -1) - counted * alike.diagonal()[drawn.order]
        count = counted.sum(-1, keepdims=True) - counted
        scores = np.divide(total, count, out=np.full(total.shape, np.nan), where=(count > 0) & (drawn.keys >= 0))
        return Replayed.of_all(best_of(drawn.keys, np.round(scores, _DIGITS), lengths=drawn.lengths), drawn)

    def _compared(self, sample: Candidate) -> str:
        return spoken(sample.text) if self.compare == "text" else sample.answer or ""


def text_utilities(texts: Sequence[str], n: int) -> NDArray[np.float64]:
    """The expected utility of each of the texts of the valid ones among n samples."""
    compared = [_end(text, longest_compared(n)) for text in texts]
    evidence = np.flatnonzero(evidence_of(np.ones(len(texts))))
    utilities = np.full((len(texts), len(texts)), np.nan)
    if len(texts) > 1:
        utilities[:, evidence] = chrf(compared, evidence.tolist())
    return np.round(expected_utility(utilities), _DIGITS)


def _agreement(keys: NDArray[np.intp]) -> NDArray[np.float64]:
    """Expected utility of answers where equal ones are worth 1 to each other, and others 0."""
    valid = keys >= 0
    same, others = answer_totals(keys, np.ones(keys.shape)) - 1, valid.sum(-1) - 1
    return np.where(valid & (others > 0), same / np.maximum(others, 1), np.nan)


@lru_cache(maxsize=2)  # a problem is replayed many times, one after the other
def _all_alike(texts: tuple[str, ...]) -> NDArray[np.float64]:
    return chrf(texts)


def _end(text: str, most: int) -> str:
    return text[-most:]
