"""How long a sample may be where nobody says it, so that several samples fit a budget at once.

Source: none. A call starts only if its worst case fits, so with a large cap on tokens a budget has room for one sample
at a time, although most end long before their cap. The cap is lowered until the worst cases of all samples that are
wanted at once fit, but never below what answers usually take: a sample that is cut off is paid for and worth nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from outthink.cost import charge
from outthink.errors import UsageError
from outthink.models.engine import Engine, Request
from outthink.types import Candidate

USUAL = 512  # tokens that answers are taken to need where nothing is known of them
_ROUNDING = 1e-9  # as the meter's
_KEPT, _ENOUGH = 256, 16  # lengths of answers that are kept, and those that say something
_MOST, _MORE = 0.9, 1.25

Worst = Callable[[int], Mapping[str, float]]
"""The most that a sample with this cap can cost, by unit; never less for a larger cap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cap:
    """What a budget allows.

    Args:
        tokens: most tokens of a sample.
        at_once: how many of them fit at once; 0: not even one does.
        wanted: how many would be asked for at once.
        lowered: whether the budget has lowered it.
        enough: by unit, a budget with room for all that are wanted, at the lowest cap.
    """

    tokens: int
    at_once: int
    wanted: int
    lowered: bool
    enough: Mapping[str, float]

    def sentence(self) -> str | None:
        """What people should know of it; None: nothing."""
        if not self.at_once or (not self.lowered and self.at_once >= min(self.wanted, 2)):
            return None  # refused, or as it would be without a budget
        more = " and ".join(f"{amount:.6g} {unit}" for unit, amount in self.enough.items())
        if not self.lowered:
            return (
                f"The budget has room for one sample of up to {self.tokens:,} tokens at a time; {more} would do for "
                f"{self.wanted} at once."
            )
        fit = "fits" if self.at_once == 1 else "fit"
        rest = "" if self.at_once >= self.wanted else f"; {more} would do for {self.wanted}"
        return f"Samples have up to {self.tokens:,} tokens, so that {self.at_once:,} {fit} the budget at once{rest}."

    def cut_off(self, samples: Sequence[Candidate]) -> str | None:
        """What people should know where the budget has lowered the cap and samples reached it; None: nothing."""
        cut = sum(one.finish == "length" and one.tokens >= self.tokens for one in samples)
        if not self.lowered or not cut:
            return None
        return (
            f"{cut:,} of {len(samples):,} samples were cut off at {self.tokens:,} tokens: allow a larger budget, or "
            "set max_tokens for longer and fewer ones."
        )


class AnswerLengths:
    """How long the last answers of a model were."""

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=_KEPT)

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Those of a trace; what was cut off is as long as it is, at least."""
        self._last.extend(one.tokens for one in whole_samples(candidates))

    def usual(self) -> int | None:
        """What nine in ten of them took, and a quarter more; None: too few are known."""
        if len(self._last) < _ENOUGH:
            return None
        return max(1, math.ceil(_MORE * sorted(self._last)[math.ceil(_MOST * len(self._last)) - 1]))


def whole_samples(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that are answers to the problem's own messages, cut off or not; none of a search, which writes steps."""
    candidates = list(candidates)
    if any(one.continues for one in candidates):
        return []
    own = (one for one in candidates if one.address[0] == "model" and not one.parents and one.problem is None)
    return [one for one in own if one.complete or one.finish == "length"]


def least_caps(most: int, usual: int | None = None) -> tuple[int, int]:
    """The lowest that a cap of `most` tokens is lowered to, for one sample and for several.

    Args:
        usual: what answers usually take; None: not known, and then 512 tokens, or for several half of a cap that is
            less than 1,024.
    """
    if usual is not None:
        return min(most, usual), min(most, usual)
    return min(most, USUAL), max(1, min(USUAL, most // 2))


def fitting(worst: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """How many samples of this worst cost fit the limits at once."""
    rooms = [limit * (1 + _ROUNDING) // worst[unit] for unit, limit in limits.items() if worst.get(unit, 0.0) > 0]
    return min(rooms, default=math.inf)


def fitted_cap(worst: Worst, limits: Mapping[str, float], *, most: int, least: tuple[int, int], wanted: int) -> Cap:
    """The largest cap up to `most` with which as many samples fit at once as are wanted, or else can.

    It stays `most` where that brings no more of them. Where not even one fits, it is the lowest.

    Args:
        limits: by unit; seconds limit nothing here.
        least: the lowest cap where else not even one sample fits, and where one does and more are wanted.
        wanted: samples at once, at least 1.
    """
    limits = {unit: limit for unit, limit in limits.items() if unit != "seconds"}
    there = fitting(worst(most), limits)
    low = least[0] if there < 1 else least[1]
    lowest = worst(low)
    n = min(wanted, fitting(lowest, limits))
    cap = most
    if n > there:  # `low` has room for n, `high` has not
        high = most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fitting(worst(middle), limits) >= n else (low, middle)
    if n > there or n < 1:
        cap = low
    return Cap(
        tokens=cap,
        at_once=int(min(wanted, fitting(worst(cap), limits))),
        wanted=wanted,
        lowered=cap < most,
        enough={unit: wanted * lowest[unit] for unit in limits if lowest.get(unit, 0.0) > 0},
    )


async def cap_within(
    engine: Engine, request: Request, limits: Mapping[str, float], *, wanted: int, usual: int | None = None
) -> Cap:
    """What the limits allow of samples of this request, whose cap is the largest that is considered.

    An engine that cannot lower it, such as a recorded pool, keeps it. Raises as `Engine.bound` does.

    Args:
        usual: what answers usually take; None: as the engine says.
    """
    most = request.max_tokens
    high = await engine.bound(request)

    def at_most(cap: int) -> Mapping[str, float]:
        return charge(engine.spec, [high])

    least = least_caps(most, engine.spec.usual if usual is None else usual)
    if least[1] == most or fitting(at_most(most), limits) >= wanted:
        return fitted_cap(at_most, limits, most=most, least=(most, most), wanted=wanted)
    try:
        low = await engine.bound(replace(request, max_tokens=1))
    except UsageError:
        return fitted_cap(at_most, limits, most=most, least=(most, most), wanted=wanted)

    def worst(cap: int) -> Mapping[str, float]:
        share = (cap - 1) / (most - 1)
        written = math.ceil(low.completion + share * (high.completion - low.completion))
        return charge(engine.spec, [replace(high, completion=written)])

    return fitted_cap(worst, limits, most=most, least=least, wanted=wanted)
