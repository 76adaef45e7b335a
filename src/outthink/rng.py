"""Randomness that is addressed, not drawn in order: a key (seed, problem, path) always gives the same stream.

So scheduling, concurrency and added lanes cannot change a result.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from outthink.types import Address

if TYPE_CHECKING:
    import numpy as np


def digest(seed: int, problem: str, *path: str | int) -> int:
    """A 64-bit hash of the key; parts are length-prefixed, so ("a", "b") and ("ab",) differ."""
    hasher = hashlib.blake2b(digest_size=8)
    for part in (seed, problem, *path):
        data = f"{type(part).__name__}:{part}".encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big") + data)
    return int.from_bytes(hasher.digest(), "big")


def child_seed(seed: int, problem: str, address: Address, child: int) -> int:
    """The 31-bit seed that an engine gets for one child of a request (31 bits fit every engine's integer)."""
    return digest(seed, problem, *address, child) >> 33


def generator(*key: int) -> np.random.Generator:
    """The generator of a seed and of further numbers; any of them may be below 0, which numpy refuses."""
    import numpy as np  # here, because importing numpy is slow

    return np.random.default_rng([part if part >= 0 else digest(part, "") for part in key])


def library_seed(seed: int) -> int:
    """A seed for libraries that take 32 bits and nothing below 0; within these it is as given."""
    return seed if 0 <= seed < 1 << 32 else digest(seed, "") >> 32


class Rng:
    """Stateless source of random streams for one problem."""

    def __init__(self, seed: int, problem: str, *path: str | int) -> None:
        self._key = (seed, problem, *path)

    def at(self, *path: str | int) -> np.random.Generator:
        """A fresh generator for this path; asking twice gives the same numbers twice."""
        seed, problem, *rest = self._key
        return generator(digest(int(seed), str(problem), *rest, *path))
