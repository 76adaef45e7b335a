"""Fixed strategies and simple stop rules on the same recorded samples and orders, to be compared at equal mean cost.

Source: the strategies themselves, each by its own `replay`. Differs: none of them; a family is one strategy at several
settings, and between two of them, at a cost in between, it is a mixture of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.maths.selection import Drawn
from outthink.planner.cases import Material, Side, along
from outthink.planner.evidence import Floats, Vote, leaders
from outthink.planner.policy import LEVELS
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.adaptive_consistency import stops_at
from outthink.strategies.parallel.esc import early_stopping

THRESHOLDS = (0.78, 0.8, 0.85, 0.9, 0.95, 0.99, 0.999, 2.0)
"""Of adaptive-consistency: from two samples to all."""
WINDOWS = (2, 3, 4, 5, 6, 8)
CAPS = LEVELS[2:]
"""Most samples of the simple stop rules."""
ITS_VOTE = "its vote"
"""What the families are called that answer by the vote of a plan."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Family:
    """One strategy at several settings, from the cheapest.

    Args:
        name: with "target:" where the dearer model runs it.
        settings: as on the command line, such as "self_consistency?n=8".
        used: samples that each setting draws at most.
        credit, cost: (problems, orders, settings).
        adaptive: it decides by itself when to stop.
    """

    name: str
    settings: tuple[str, ...]
    used: tuple[int, ...]
    credit: Floats
    cost: Floats
    adaptive: bool = False

    def labels(self) -> list[str]:
        """The settings with who runs them and by which scorer: "target:best_of_n?n=4 by confidence"."""
        prefix = "target:" if self.name.startswith("target:") else ""
        _, _, scorer = self.name.partition(" by ")
        return [prefix + setting + (f" by {scorer}" if scorer else "") for setting in self.settings]

    def at(self, mean_cost: float) -> Floats | None:
        """(problems,) credit where the mean cost over all problems is `mean_cost`; None where it costs more.

        Where even the dearest setting costs less, it is that one.
        """
        costs = self.cost.mean((0, 1))
        if mean_cost < costs[0] * (1 - 1e-9):
            return None
        upper = int(np.clip(np.searchsorted(costs, mean_cost), 1, max(len(costs) - 1, 1)))
        if len(costs) == 1 or mean_cost >= costs[-1]:
            return np.asarray(self.credit[..., -1].mean(1))
        part = (mean_cost - costs[upper - 1]) / max(costs[upper] - costs[upper - 1], 1e-300)
        mixed = (1 - part) * self.credit[..., upper - 1] + part * self.credit[..., upper]
        return np.asarray(mixed.mean(1))

    def cost_of(self, accuracy: float) -> float | None:
        """The least mean cost at which it is that accurate; None where it never is."""
        costs, reached = self.cost.mean((0, 1)), self.credit.mean((0, 1))
        if accuracy <= reached[0]:
            return float(costs[0])
        for place in range(1, len(costs)):
            if reached[place] >= accuracy:
                low, high = reached[place - 1], reached[place]
                part = (accuracy - low) / (high - low) if high > low else 1.0
                return float(costs[place - 1] + part * (costs[place] - costs[place - 1]))
        return None


def families(material: Material) -> list[Family]:
    """All that can be replayed on the material, simple stop rules included; runs are families of one setting."""
    all_families: list[Family] = []
    for side, orders, prefix in (
        (material.model, material.orders, ""),
        (material.target, material.target_orders, "target:"),
    ):
        if side is None or orders is None:
            continue
        levels = [n for n in LEVELS if 1 <= n <= side.samples]
        plain = ["self_consistency"]
        if "logprob" in material.signals and not np.isnan(side.signals["logprob"]).all():
            plain += ["perplexity_consistency", "likelihood"]
        for name in plain:
            all_families.append(
                _family(material, side, orders, prefix + name, [(name, {"n": n}, n) for n in levels], None)
            )
        for scorer in _scorers(material, side):
            for name in ("weighted_best_of_n", "best_of_n") if _non_negative(side, scorer) else ("best_of_n",):
                settings: list[tuple[str, dict[str, Any], int]] = [(name, {"n": n}, n) for n in levels]
                all_families.append(_family(material, side, orders, f"{prefix}{name} by {scorer}", settings, scorer))
        for most in (n for n in CAPS if n <= side.samples):
            for name, option, values in (("adaptive_consistency", "threshold", THRESHOLDS), ("esc", "w", WINDOWS)):
                stops = [(name, {"n": most, option: at}, most) for at in values if option == "threshold" or at <= most]
                title = f"{prefix}{name} of {most}"
                all_families.append(_family(material, side, orders, title, stops, None, adaptive=True))
    shape = material.orders.shape[:2]
    for run in material.runs:
        credit, cost = (np.broadcast_to(values[:, None], shape)[..., None] for values in (run.credit, run.cost))
        all_families.append(Family(name=run.name, settings=(run.name,), used=(0,), credit=credit, cost=cost))
    return all_families


def families_of_vote(material: Material, vote: Vote) -> list[Family]:
    """The vote of a plan with a fixed number of samples and with the simple stop rules, which tells its stop apart.

    The rules stop by their own count of equal answers, and answer by the vote. Settings are not sorted by cost.
    """
    n, orders, side = material.model.samples, material.orders, material.model
    right = np.concatenate(
        [
            np.stack([piece.credit((m, 0), leaders(piece.seen((m, 0)), vote)) for m in range(1, n + 1)], -1)
            for piece in material.pieces()
        ]
    )
    spent = np.cumsum(np.concatenate([along(side.first, orders[..., :1]), along(side.later, orders[..., 1:])], -1), -1)
    keys = along(side.keys, orders)

    def family(name: str, settings: Sequence[tuple[str, int, NDArray[np.intp]]], *, adaptive: bool) -> Family:
        used = np.stack([used for _, _, used in settings], -1) - 1
        return Family(
            name=name,
            settings=tuple(setting for setting, _, _ in settings),
            used=tuple(most for _, most, _ in settings),
            credit=np.take_along_axis(right, used, -1),
            cost=np.take_along_axis(spent, used, -1),
            adaptive=adaptive,
        )

    shape = orders.shape[:2]
    levels = [level for level in LEVELS if 1 <= level <= n]
    every = [family(ITS_VOTE, [(f"vote?n={m}", m, np.full(shape, m)) for m in levels], adaptive=False)]
    sure = [(at, stops_at(keys, at)) for at in THRESHOLDS]
    agreed = [(w, early_stopping(keys, w)[1]) for w in WINDOWS]
    for most in (level for level in CAPS if level <= n):
        beta = [(f"adaptive_consistency?n={most}&threshold={at}", most, np.minimum(used, most)) for at, used in sure]
        whole = [
            (f"esc?n={most}&w={w}", most, np.where(used <= most // w * w, used, most))
            for w, used in agreed
            if w <= most
        ]
        every.append(family(f"adaptive_consistency of {most} on {ITS_VOTE}", beta, adaptive=True))
        every.append(family(f"esc of {most} on {ITS_VOTE}", whole, adaptive=True))
    return every


def joined(parts: Sequence[tuple[NDArray[np.intp], Sequence[Family]]]) -> list[Family]:
    """Families of all problems from those of parts of them, (positions, families) each; settings sorted by cost."""
    families = []
    problems = sum(len(rows) for rows, _ in parts)
    for place, first in enumerate(parts[0][1]):
        shape = (problems, *first.credit.shape[1:])
        credit, cost = np.empty(shape), np.empty(shape)
        for rows, group in parts:
            credit[rows], cost[rows] = group[place].credit, group[place].cost
        order = np.argsort(cost.mean((0, 1)), kind="stable")
        families.append(
            replace(
                first,
                settings=tuple(first.settings[at] for at in order),
                used=tuple(first.used[at] for at in order),
                credit=credit[..., order],
                cost=cost[..., order],
            )
        )
    return families


def _scorers(material: Material, side: Side) -> list[str]:
    """Names of verifiers; the model's own confidence is one."""
    there = [name for name in material.signals if not np.isnan(side.signals[name]).all()]
    return ["confidence" if name == "logprob" else name for name in there]


def _non_negative(side: Side, scorer: str) -> bool:
    """A weighted vote needs scores of at least 0."""
    return scorer == "confidence" or float(np.nanmin(side.signals[scorer])) >= 0


def _family(
    material: Material,
    side: Side,
    orders: NDArray[np.intp],
    name: str,
    settings: Sequence[tuple[str, dict[str, Any], int]],
    scorer: str | None,
    *,
    adaptive: bool = False,
) -> Family:
    rows = []
    for strategy, options, n in settings:
        credit, cost = outcomes(side, orders[..., :n], make_strategy(strategy, options), scorer)
        text = "&".join(f"{key}={value}" for key, value in options.items())
        rows.append((cost.mean(), f"{strategy}?{text}", n, credit, cost))
    rows.sort(key=lambda row: row[0])
    return Family(
        name=name,
        settings=tuple(row[1] for row in rows),
        used=tuple(row[2] for row in rows),
        credit=np.stack([row[3] for row in rows], -1),
        cost=np.stack([row[4] for row in rows], -1),
        adaptive=adaptive,
    )


def outcomes(side: Side, orders: NDArray[np.intp], strategy: Any, scorer: str | None) -> tuple[Floats, Floats]:
    """Credit and cost (problems, orders) of a strategy that sees the samples in the given orders.

    Args:
        scorer: "confidence" or the signal that is its verifier.
    """
    shape, n = orders.shape[:2], orders.shape[2]

    def flat(values: NDArray[Any]) -> NDArray[Any]:
        return along(values, orders).reshape(-1, n)

    logprobs = flat(side.signals["logprob"]) if "logprob" in side.signals else None
    scores = None
    if scorer == "confidence":
        assert logprobs is not None
        scores = np.exp(logprobs)
    elif scorer is not None:
        scores = flat(side.signals[scorer])
    drawn = Drawn(
        keys=flat(side.keys),
        tokens=flat(side.tokens),
        lengths=np.zeros((shape[0] * shape[1], n)),
        complete=flat(side.complete),
        logprobs=logprobs,
        scores=scores,
        verdicts=None,
        paths=flat(side.paths),
        texts=None,
        order=orders.reshape(-1, n),
    )
    chosen = strategy.replay(drawn)
    right = flat(side.correct)
    picked = np.take_along_axis(right, np.maximum(chosen.index, 0)[:, None], -1)[:, 0]
    spent = flat(side.first)[:, :1] + np.concatenate(
        [np.zeros((len(right), 1)), np.cumsum(flat(side.later)[:, 1:], -1)], -1
    )
    last = np.maximum(chosen.used - 1, 0)[:, None]
    cost = np.where(chosen.used > 0, np.take_along_axis(spent, last, -1)[:, 0], 0.0)
    credit = np.where(chosen.index >= 0, picked, False).astype(float)
    return credit.reshape(shape), cost.reshape(shape)
