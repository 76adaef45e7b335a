"""Chains of attempts: how many and how long they are, how they grow side by side, and the choice among all attempts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from outthink.errors import OutthinkError
from outthink.strategies import checks
from outthink.strategies.choosing import Chosen, by_best, by_majority, by_weighted_vote
from outthink.together import together
from outthink.types import Candidate

Selector = Literal["majority", "weighted_vote", "best", "last"]
Attempt = Callable[[int, list[Candidate]], Coroutine[Any, Any, "Candidate | OutthinkError | None"]]
"""(number of a chain, its attempts so far) -> the next one, why there is none, or None: it has nothing to add."""


def lengths(n: int, ratio: float) -> list[int]:
    """How n attempts are split into chains whose length is about `ratio` times their number.

    Args:
        n: attempts of all chains together; at least 1.
        ratio: 0: n chains of one attempt; infinity: one chain.
    """
    chains = round(min(max(math.sqrt(n / ratio), 1.0), n)) if ratio else n
    return [n // chains + (number < n % chains) for number in range(chains)]


def check_chains(strategy: Any) -> None:
    """Raise ValueError, in one sentence, where n, ratio, patience or threshold of a strategy is out of range."""
    checks.check(strategy, at_least_one=("n",), at_least_zero=("patience",))
    if not strategy.ratio >= 0:
        raise ValueError(f"ratio must be at least 0, not {strategy.ratio}")
    if strategy.threshold is not None and not math.isfinite(strategy.threshold):
        raise ValueError(f"threshold must be a finite number, not {strategy.threshold}")


async def grow(
    sizes: Sequence[int],
    attempt: Attempt,
    seen: Callable[[list[list[Candidate]], list[Candidate]], Awaitable[set[int]]],
) -> None:
    """All chains get one attempt more, turn by turn, until they have their size or end.

    Args:
        seen: is told the chains and what is new after each turn, and returns the numbers of chains that are to end.

    A chain ends where its attempt fails; raises the failure where a turn brought nothing but failures.
    """
    chains: list[list[Candidate]] = [[] for _ in sizes]
    over: set[int] = set()
    for turn in range(max(sizes)):
        going = [number for number, size in enumerate(sizes) if turn < size and number not in over]
        if not going:
            return
        drawn = await together(*(attempt(number, chains[number]) for number in going))
        new = [one for one in drawn if isinstance(one, Candidate)]
        failure = next((one for one in drawn if isinstance(one, OutthinkError)), None)
        if failure is not None and not new and None not in drawn:
            raise failure
        for number, one in zip(going, drawn, strict=True):
            if isinstance(one, Candidate):
                chains[number].append(one)
            else:
                over.add(number)
        over |= await seen(chains, new)


def repeats(chain: Sequence[Candidate]) -> int:
    """How many of the last attempts in a row have the answer of the one before them."""
    count = 0
    for before, after in pairwise(reversed(chain)):
        if before.key is None or before.key != after.key:
            break
        count += 1
    return count


def ended(
    chains: Sequence[Sequence[Candidate]],
    scores: Mapping[str, float | None],
    *,
    patience: int,
    threshold: float | None,
) -> set[int]:
    """The numbers of the chains whose last attempt has at least this score, or repeats an answer often enough."""

    def ends(chain: Sequence[Candidate]) -> bool:
        score = scores.get(chain[-1].id) if chain else None
        passed = threshold is not None and score is not None and score >= threshold
        return passed or 0 < patience <= repeats(chain)

    return {number for number, chain in enumerate(chains) if ends(chain)}


def select(
    chains: Sequence[Sequence[Candidate]],
    scores: Mapping[str, float | None],
    selector: str,
    hierarchical: bool,
) -> Chosen:
    """The attempt that a rule takes, by the scores of attempts by id, and its share.

    Args:
        selector: a `Selector`; "last" takes the last attempt of the first chain whose last one is valid.
        hierarchical: choose inside each chain first, then among what the chains have chosen.
    """
    # turn by turn, so that "first seen" means the earliest turn
    turns = range(max(len(chain) for chain in chains))
    everything = [chain[turn] for turn in turns for chain in chains if turn < len(chain)]
    if selector == "last":
        ends = [chain[-1] for chain in chains if chain and chain[-1].key is not None]
        return (ends[0] if ends else None), 1.0 / len(chains)
    if not hierarchical:
        return _choose(everything, scores, selector)
    winners = [_choose(chain, scores, selector)[0] for chain in chains if chain]
    return _choose([winner for winner in winners if winner is not None], scores, selector)


def _choose(attempts: Sequence[Candidate], scores: Mapping[str, float | None], selector: str) -> Chosen:
    known = [scores.get(attempt.id) for attempt in attempts]
    if selector == "best":
        return by_best(attempts, known)
    return by_weighted_vote(attempts, known) if selector == "weighted_vote" else by_majority(attempts)
