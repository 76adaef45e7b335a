"""How many tokens it took to reach given places in a sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from outthink.models.engine import Tokenizing
from outthink.types import writable


class TokenEnds:
    """Tells where in a text its tokens end, by an engine that turns tokens into text; each token is asked for once."""

    def __init__(self, engine: Tokenizing) -> None:
        self._engine = engine
        self._texts: dict[int, str] = {}

    async def locate(self, ids: Sequence[int], text: str) -> list[int] | None:
        """For each token the characters of the text up to its end; None where these are not the tokens of the text.

        Of tokens that share a character the last one has it. Raises EngineError where the engine fails.
        """
        for token in ids:
            if token not in self._texts:
                self._texts[token] = await self._engine.decode([token])
        alone = [self._texts[token] for token in ids]
        front, back = _matching(alone, text), _matching([one[::-1] for one in alone[::-1]], text[::-1])
        if front == len(ids) and sum(map(len, alone)) == len(text):
            return list(accumulate(map(len, alone)))
        if not ids or writable(await self._engine.decode(ids)) != text:
            return None
        # some character has several tokens, so that these have to be read together; the last that matched may hold
        # the beginning of one, which decoders leave out
        first, last = max(front - 1, 0), len(ids) - back
        while last < len(ids) and not alone[last]:
            last += 1
        ends = list(accumulate(map(len, alone[:first])))
        for end in range(first, last):
            ends.append(_shared(writable(await self._engine.decode(ids[: end + 1])), text))
        ends += [len(text) - sum(map(len, alone[end + 1 :])) for end in range(max(first, last), len(ids))]
        return list(accumulate(ends, max))


def _matching(parts: Sequence[str], text: str) -> int:
    """How many of the parts, one after the other, begin the text."""
    place = 0
    for number, part in enumerate(parts):
        if not text.startswith(part, place):
            return number
        place += len(part)
    return len(parts)


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
