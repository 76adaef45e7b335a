"""Embeddings of texts, for methods that ask how different two steps are.

Own work; the default is the hashing trick (Weinberger et al., Feature Hashing for Large Scale Multitask Learning,
2009, from memory) on character n-grams: it compares wording and numbers, not meaning, and costs nothing. A sentence
encoder compares meaning, and what it reads is counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.errors import BudgetExhausted, EngineError, NothingCameBack
from outthink.meter import Meter, Work
from outthink.types import Usage


class Vectors(NamedTuple):
    """Embeddings of texts.

    Args:
        values: (n, d), finite; a text without content may be a row of zeros.
        tokens: tokens that were read to make them; 0 where no model is involved.
    """

    values: NDArray[np.float64]
    tokens: int = 0


class TextEmbedder(Protocol):
    """Turns texts into vectors whose cosine says how alike they are."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, in order."""

    # A class variable `free = True` says that no tokens are ever read, so nothing has to be reserved for a call.


class Hashing:
    """Signed counts of hashed character n-grams, scaled to length 1; the same on every machine.

    Args:
        dimensions: length of a vector; fewer make unlike texts alike by chance.
        n: the longest n-gram; all lengths from 1 to n count.
    """

    free = True

    def __init__(self, dimensions: int = 512, n: int = 3) -> None:
        if dimensions < 1 or n < 1:
            raise ValueError(f"dimensions and n must be at least 1, not {dimensions} and {n}")
        self._dimensions = dimensions
        self._n = n

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text; a text of white space is a row of zeros."""
        return Vectors(hashed(texts, self._dimensions, self._n))


def hashed(texts: Sequence[str], dimensions: int, n: int) -> NDArray[np.float64]:
    """(len(texts), dimensions) signed counts of the hashed n-grams of each text, scaled to length 1."""
    values = np.zeros((len(texts), dimensions))
    for row, text in zip(values, texts, strict=True):
        data = " ".join(text.split())
        for length in range(1, n + 1):
            for start in range(len(data) - length + 1):
                code = zlib.crc32(data[start : start + length].encode("utf-8", "replace"))
                row[(code >> 1) % dimensions] += 1.0 if code & 1 else -1.0
    return _unit(values)


class Embedder:
    """A text embedder with a meter. A text that was embedded before on this problem is not embedded again."""

    def __init__(self, embedder: TextEmbedder, meter: Meter) -> None:
        self._embedder = embedder
        self._meter = meter
        self._known: dict[str, NDArray[np.float64]] = {}

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n, d) rows of length 1, or of zeros; raises BudgetExhausted or NothingCameBack where there are none."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, await self._fresh(new), strict=True))
        return np.array([self._known[text] for text in texts])

    async def _fresh(self, texts: Sequence[str]) -> NDArray[np.float64]:
        # no token is less than a byte; encoders add a mark at either end
        most = (
            0
            if getattr(self._embedder, "free", False)
            else sum(len(text.encode("utf-8", "replace")) + 2 for text in texts)
        )
        address = (*self._meter.next_request(("embedder",)), 0)
        failure: Exception | None = None
        async with self._meter.work("embed", "embedder", address, n=len(texts), worst={"tokens": most}) as work:
            if work is None:
                raise BudgetExhausted("Nothing more fits into the budget.")
            _charge(work, most)  # that is what it costs where it fails after it was begun
            try:
                vectors = await self._embedder.embed(texts)
                _charge(work, vectors.tokens)
                return _checked(vectors, len(texts))
            except Exception as cause:
                failure, work.failed, work.error = cause, len(texts), f"{type(cause).__name__}: {cause}"
        raise NothingCameBack(f"The embedder failed: {failure}") from failure


def _charge(work: Work, tokens: int) -> None:
    work.seen = work.charged = Usage(prompt=tokens)
    work.cost = {"tokens": float(tokens)}


def _checked(vectors: Vectors, n: int) -> NDArray[np.float64]:
    values = np.asarray(vectors.values, dtype=np.float64)
    if values.ndim != 2 or len(values) != n or not np.isfinite(values).all():
        raise EngineError(f"expected {n} rows of finite numbers, got the shape {values.shape}")
    return _unit(values)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    return scaled
