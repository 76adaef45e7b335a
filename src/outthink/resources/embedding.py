"""Embeddings of texts, for methods that ask how different two steps are.

Own work; the default is the hashing trick (Weinberger et al., Feature Hashing for Large Scale Multitask Learning,
2009, from memory) on character n-grams: it compares wording and numbers, not meaning, and costs nothing. A sentence
encoder compares meaning, and what it reads is counted.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, UnknownName, UsageError
from outthink.meter import Meter, Work
from outthink.names import make, make_own
from outthink.together import away
from outthink.types import Usage

_ENCODER = "sentence-transformers"
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: spreads what is multiplied by it

_PIECE = 1 << 18  # characters that are hashed at a time


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


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """Signed counts of hashed character n-grams, scaled to length 1; the same on every machine.

    Args:
        dimensions: length of a vector; fewer make unlike texts alike by chance.
        n: the longest n-gram; all lengths from 1 to n count.
    """

    free = True

    dimensions: int = 512
    n: int = 3

    def __post_init__(self) -> None:
        for name in ("dimensions", "n"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text; a text of white space is a row of zeros."""
        rows = [np.zeros((0, self.dimensions))]
        for piece in _pieces(texts):  # one after the other, since each takes some forty bytes a character
            rows.append(await away(sum(map(len, piece)), hashed, piece, self.dimensions, self.n))
        return Vectors(np.concatenate(rows))


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in pieces of about so many characters."""
    start = size = 0
    for place, text in enumerate(texts):
        size += len(text)
        if size >= _PIECE:
            yield texts[start : place + 1]
            start, size = place + 1, 0
    if start < len(texts):
        yield texts[start:]


def hashed(texts: Sequence[str], dimensions: int, n: int) -> NDArray[np.float64]:
    """(len(texts), dimensions) signed counts of the hashed n-grams of each text, scaled to length 1.

    All runs of white space count as one space, and none at the ends.
    """
    clean = [" ".join(text.split()) for text in texts]
    lengths = np.array([len(text) for text in clean], dtype=np.int64)
    points = np.frombuffer("".join(clean).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    first = np.repeat(np.arange(len(texts)) * dimensions, lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(points))  # characters to the end of its own text
    values = np.zeros(len(texts) * dimensions)
    codes = np.zeros(len(points), dtype=np.uint64)
    for length in range(1, min(n, lengths.max(initial=0)) + 1):
        codes = (codes[: len(points) - length + 1] + points[length - 1 :] + np.uint64(1)) * _MULTIPLIER  # modulo 2^64
        high = (codes >> np.uint64(32)).astype(np.uint32)  # the half that depends on every character
        place = first[: len(codes)] + (high >> np.uint32(1)) % np.uint32(dimensions)
        sign = 1.0 - 2.0 * (high & np.uint32(1))
        sign[left[: len(codes)] < length] = 0.0
        values += np.bincount(place, weights=sign, minlength=values.size)
    return _unit(values.reshape(len(texts), dimensions))


@dataclass(eq=False)
class SentenceTransformer:
    """An encoder of the package sentence-transformers, loaded when it is made; nothing is downloaded.

    It reads one batch at a time, in a thread of its own. Of a text that is longer than it can read it reads the end,
    since paths that begin alike differ there. No prompt is put before a text, even if the encoder has one.

    Args:
        model: its name, if it was downloaded before, or its folder.

    Raises UsageError where the package or the encoder is not there.
    """

    model: str

    def __post_init__(self) -> None:
        try:
            import sentence_transformers  # here, because it need not be installed, and takes seconds
        except ImportError as cause:
            raise UsageError(
                f"{_ENCODER}:MODEL needs the package sentence-transformers: pip install 'outthink[embed]'."
            ) from cause
        try:
            self._encoder: Any = sentence_transformers.SentenceTransformer(self.model, local_files_only=True)
            self._encoder.default_prompt_name = None
            self._encoder.tokenizer.truncation_side = "left"
            self._read([""])
        except Exception as cause:  # of several libraries
            why = str(cause).strip().split("\n")[0]
            raise UsageError(
                f"Cannot load the encoder {self.model!r} ({type(cause).__name__}: {why}); "
                "fetch it first (hf download NAME), or give its folder."
            ) from cause
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outthink-embed")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text; tokens are those that the encoder reads, its marks included."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embedded, list(texts))

    def _embedded(self, texts: list[str]) -> Vectors:
        return Vectors(np.asarray(self._encoder.encode(texts, show_progress_bar=False), float), self._read(texts))

    def _read(self, texts: list[str]) -> int:
        read = self._encoder.tokenizer(texts, truncation=True, max_length=self._encoder.max_seq_length)
        return sum(len(ids) for ids in read["input_ids"])


def make_embedder(given: str | TextEmbedder) -> TextEmbedder:
    """A text embedder from text, or the embedder itself.

    Args:
        given: text is "hashing", which may carry options as in "hashing?dimensions=1024&n=4";
            "sentence-transformers:MODEL"; or "module:name" of an embedder or of a class that makes one.

    Raises UnknownName, and UsageError where an option is out of range or it cannot be loaded.
    """
    made: Any = given
    if isinstance(given, str):
        name, _, options = given.partition("?")
        kind, _, model = given.partition(":")
        if name == "hashing":
            made = make(Hashing, dict(parse_qsl(options, keep_blank_values=True)), name=name, what="option")
        elif kind == _ENCODER:
            made = SentenceTransformer(model)
        elif ":" not in given:
            raise UnknownName("embedder", name, ["hashing", f"{_ENCODER}:MODEL", "module:name"])
        else:
            made = make_own(name, dict(parse_qsl(options, keep_blank_values=True)), functions=False)
    if not hasattr(made, "embed"):
        raise UsageError(f"An embedder is a name, or an object with a coroutine function embed(texts), not {given!r}.")
    embedder: TextEmbedder = made
    return embedder


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
        # encoders add a mark at either end
        most = 0 if getattr(self._embedder, "free", False) else sum(_most_tokens(text) + 2 for text in texts)
        address = (*self._meter.next_request(("embedder",)), 0)
        failure: Exception | None = None
        async with self._meter.work("embed", "embedder", address, n=len(texts), worst={"tokens": most}) as work:
            if work is None:
                raise BudgetExhausted("Nothing more fits into the budget.")
            _charge(work, most)  # that is the most it can have cost where it is cancelled or fails
            try:
                vectors = await self._embedder.embed(texts)
                _charge(work, vectors.tokens)
                work.seen = work.charged
                return self._checked(vectors.values, len(texts))
            except Exception as cause:
                failure, work.failed, work.error = cause, len(texts), f"{type(cause).__name__}: {cause}"
        raise NothingCameBack(f"The embedder failed: {failure}") from failure

    def _checked(self, given: NDArray[np.float64], n: int) -> NDArray[np.float64]:
        values = np.asarray(given, dtype=np.float64)
        known = next((len(row) for row in self._known.values()), values.shape[-1] if values.ndim else 0)
        if values.shape != (n, known) or not np.isfinite(values).all():
            raise EngineError(f"expected {n} rows of finite numbers, of one length, got the shape {values.shape}")
        return _unit(values)


def _most_tokens(text: str) -> int:
    """No token is less than a byte, of the text or of its normal form, which many encoders make first."""
    forms = (text, unicodedata.normalize("NFKC", text))
    return max(len(form.encode("utf-8", "replace")) for form in forms)


def _charge(work: Work, tokens: int) -> None:
    work.charged = Usage(prompt=tokens)
    work.cost = {"tokens": float(tokens)}


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    return scaled


def cosines(vectors: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64]:
    """(k, k) cosines of k vectors of length 1; 1 is alike, and so is each to itself.

    One that is missing is unlike all others (0). Vectors of zeros, of texts without content, are alike.
    """
    size = next((len(vector) for vector in vectors if vector is not None), 0)
    rows = np.array([np.zeros(size) if vector is None else vector for vector in vectors]).reshape(len(vectors), size)
    empty = np.array([vector is not None and not vector.any() for vector in vectors], dtype=bool)
    similarities: NDArray[np.float64] = np.clip(rows @ rows.T, -1.0, 1.0)
    similarities[np.ix_(empty, empty)] = 1.0
    np.fill_diagonal(similarities, 1.0)
    return similarities
