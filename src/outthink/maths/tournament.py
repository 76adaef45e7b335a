"""Tournaments: who meets whom, and what matches say of those that played; pure functions, players by their number.

Source: Elo's update with K = 32 and a scale of 400, as replicas of the AI co-scientist have it, and its weights of
pairs, which are ours where the paper gives none; Bradley and Terry (1952), fitted as in Hunter (2004), MM algorithms,
from memory; win rates by margin and Swiss pairing as in V1 (Singh et al., 2026), of which the abstract, the read-me of
its code and summaries were read. Differs: a fit has a prior of drawn matches, so that who never lost has a strength.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEWCOMER = 1200.0
"""The rating of whoever has not played."""

_SCALE = 400.0
_ROUNDS = 500  # of a fit, at most
_CLOSE = 1e-10  # change of the strengths below which a fit has ended

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Match:
    """One match.

    Args:
        a, b: who played; two different players.
        score: of a, in [0, 1]: 1 it won, 0.5 a draw, 0 it lost.
        margin: by how much, in [0, 1].
    """

    a: int
    b: int
    score: float
    margin: float = 1.0


# ------------------------------------------------------------------------------------------------ who meets whom


def pairs(n: int, opponents: int | None) -> list[Pair]:
    """Who meets whom among n, each pair once: everyone, or a ring in which each meets its nearest on both sides.

    With an odd number of opponents each also meets the one across; among an odd number, one of them then has one more.
    """
    if opponents is None or opponents >= n - 1:
        return [(one, other) for one in range(n) for other in range(one + 1, n)]
    near = [(one, (one + step) % n) for step in range(1, opponents // 2 + 1) for one in range(n)]
    across = [(one, one + n // 2) for one in range((n + 1) // 2)] if opponents % 2 else []
    return [*near, *across]


def pair_weights(similarity: ArrayLike, priority: ArrayLike) -> NDArray[np.float64]:
    """How likely each pair is to meet (n, n), up to a factor: similarity times the sum of both priorities.

    Args:
        similarity: (n, n), at least 0; its diagonal does not matter, and is 0 in the result.
        priority: (n,), at least 0.
    """
    priority = np.asarray(priority, dtype=float)
    weights = np.asarray(similarity, dtype=float) * (priority[:, None] + priority)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def priorities(ratings: ArrayLike, played: ArrayLike, fewest: int) -> NDArray[np.float64]:
    """1, and one more for whoever has played fewer than `fewest` matches, and one more for the top third."""
    ratings = np.asarray(ratings, dtype=float)
    return np.asarray(1.0 + (np.asarray(played) < fewest) + top_third(ratings), dtype=float)


def top_third(ratings: ArrayLike) -> NDArray[np.bool_]:
    """Who (n,) is rated higher than everyone outside the first third; nobody where all are equal."""
    ratings = np.asarray(ratings, dtype=float)
    if not ratings.size:
        return np.zeros(0, dtype=bool)
    return np.asarray(ratings > np.sort(ratings)[::-1][len(ratings) // 3])


def drawn_pairs(weights: ArrayLike, rng: np.random.Generator) -> list[Pair]:
    """Pairs of which none shares a player, one after the other, each in proportion to the weights (n, n) that are left.

    A pair of weight 0 is never drawn. Which of the two comes first is drawn as well.
    """
    left = np.triu(np.asarray(weights, dtype=float), 1)
    drawn: list[Pair] = []
    while (total := left.sum()) > 0:
        place = int(np.searchsorted(np.cumsum(left), rng.random() * total, side="right"))
        a, b = divmod(min(place, left.size - 1), len(left))
        if left[a, b] <= 0:  # rounding at the end of the sum
            a, b = (int(part) for part in np.argwhere(left > 0)[-1])
        drawn.append((a, b) if rng.random() < 0.5 else (b, a))
        left[[a, b], :] = 0.0
        left[:, [a, b]] = 0.0
    return drawn


def swiss_pairs(ratings: Sequence[float], played: Collection[Pair], window: int) -> list[Pair]:
    """One round of pairs that have not met, of which none shares a player: the most alike in rating first.

    Only those that are at most `window` places apart meet, while any of these pairs is left; then those further apart.
    Empty: everyone has met everyone.

    Args:
        ratings: one for each; the higher the better, ties by number.
        played: pairs that have met, in either order.
        window: at least 1.
    """
    order = sorted(range(len(ratings)), key=lambda player: (-ratings[player], player))
    met = {frozenset(pair) for pair in played}
    while True:
        near = [
            (abs(ratings[one] - ratings[other]), place, one, other)
            for place, one in enumerate(order)
            for other in order[place + 1 : place + 1 + window]
            if frozenset((one, other)) not in met
        ]
        if near or window >= len(order) - 1:
            break
        window *= 2
    busy: set[int] = set()
    chosen: list[Pair] = []
    for _, _, one, other in sorted(near):
        if one not in busy and other not in busy:
            busy |= {one, other}
            chosen.append((one, other))
    return chosen


def groups(players: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The players in groups of `size`, in order; the last one may be smaller."""
    for start in range(0, len(players), size):
        yield players[start : start + size]


# ----------------------------------------------------------------------------------------------- what matches say


def elo(ratings: Sequence[float], matches: Iterable[Match], *, k: float = 32.0) -> list[float]:
    """The ratings after these matches, one after the other; their sum stays as it was.

    E_a = 1 / (1 + 10^((R_b - R_a) / 400)); R_a grows by k (score - E_a), and R_b falls by as much.
    """
    after = [*ratings]
    for match in matches:
        expected = 1.0 / (1.0 + 10.0 ** ((after[match.b] - after[match.a]) / _SCALE))
        change = k * (match.score - expected)
        after[match.a] += change
        after[match.b] -= change
    return after


def bradley_terry(n: int, matches: Iterable[Match], *, prior: float = 0.5) -> NDArray[np.float64]:
    """The log strengths (n,) under which a beats b with 1 / (1 + exp(s_b - s_a)); the order of matches does not matter.

    Args:
        prior: matches won, and as many lost, of each player against one of log strength 0; above 0. A small one is the
            maximum of the likelihood where that has one.
    """
    won, met = np.full(n, prior), np.zeros((n, n))
    for match in matches:
        won[match.a] += match.score
        won[match.b] += 1.0 - match.score
        met[match.a, match.b] += 1.0
        met[match.b, match.a] += 1.0
    strength = np.ones(n)
    for _ in range(_ROUNDS):
        before = strength
        against = (met / (strength[:, None] + strength)).sum(-1) + 2.0 * prior / (strength + 1.0)
        strength = won / against
        if np.abs(strength - before).max(initial=0.0) <= _CLOSE * max(strength.max(initial=0.0), 1.0):
            break
    return np.asarray(np.log(strength))


def win_rates(n: int, matches: Iterable[Match], *, least: float = 0.1) -> NDArray[np.float64]:
    """The mean score (n,) of each player over its matches, weighted by their margins; NaN for who has not played.

    Args:
        least: weight of a match with a smaller margin; above 0.
    """
    won, weight = np.zeros(n), np.zeros(n)
    for match in matches:
        counts = max(match.margin, least)
        won[match.a] += counts * match.score
        won[match.b] += counts * (1.0 - match.score)
        weight[[match.a, match.b]] += counts
    return np.asarray(np.divide(won, weight, out=np.full(n, np.nan), where=weight > 0))


def times_played(n: int, matches: Iterable[Match]) -> NDArray[np.intp]:
    """How many matches (n,) each has played."""
    times = np.zeros(n, dtype=np.intp)
    for match in matches:
        times[[match.a, match.b]] += 1
    return times


def winner(ratings: Sequence[float], matches: Sequence[Match], fewest: int) -> int:
    """Who is rated highest, among those that have played `fewest` matches where there are any, else among all.

    A tie goes to who has won more against those it is tied with, then to the first; there must be a player. A rating
    of NaN is below all others.
    """
    times = times_played(len(ratings), matches)
    known = [-math.inf if math.isnan(rating) else rating for rating in ratings]
    eligible = [player for player in range(len(known)) if times[player] >= fewest] or [*range(len(known))]
    best = max(known[player] for player in eligible)
    tied = [player for player in eligible if math.isclose(known[player], best, rel_tol=1e-9, abs_tol=1e-9)]
    won = dict.fromkeys(tied, 0.0)
    for match in matches:
        if match.a in won and match.b in won:
            won[match.a] += match.score
            won[match.b] += 1.0 - match.score
    return max(tied, key=lambda player: (won[player], -player))
