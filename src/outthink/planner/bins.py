"""Difficulty bins: cut questions by a few samples, and look up the compute-optimal strategy of each bin and budget.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally" (quantile bins, cross-validated choice) and Liu et
al. 2025, "Can 1B LLM Surpass 405B LLM?" (absolute bins); read as LaTeX text and in released code. Differs: difficulty
is measured on the samples that the chosen strategy goes on from, whose cost is part of every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import UsageError
from outthink.planner.cases import Material
from outthink.planner.evidence import Floats, Vote, evidence, feature_names
from outthink.planner.fixed import Family

_WITHIN = 1 + 1e-9  # times the budget; what costs exactly that is affordable

Difficulty = Literal["agreement", "entropy", "length", "logprob", "verifier", "oracle"]
ABSOLUTE = (0.1, 0.5)
"""Pass rates between hard, medium and easy."""
NOT_AFFORDABLE = "not affordable"
"""What a table shows where even the cheapest setting costs more than the budget."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BinChoice:
    """The choice for one bin and budget.

    Args:
        setting: such as "self_consistency?n=8"; with "target:" for the dearer model.
        accuracy, cost: means where it was chosen; of other folds than it was chosen on, in a validated table.
    """

    setting: str
    accuracy: float
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Bins of difficulty and what to do in them.

    Args:
        difficulty: what the number is that is cut; larger is easier.
        probe: samples it is measured on.
        edges: between bins, from the hardest to the easiest; ascending.
        budgets: most mean cost of a problem, the probe included.
        cells: (bins, budgets). Where nothing is affordable it is the cheapest setting, which costs more.
    """

    difficulty: Difficulty
    probe: int
    edges: tuple[float, ...]
    budgets: tuple[float, ...]
    cells: tuple[tuple[BinChoice, ...], ...]

    def bin(self, ease: ArrayLike) -> NDArray[np.intp]:
        """(...,) the bin of each ease; a value on an edge belongs to the easier one."""
        return np.asarray(np.searchsorted(np.array(self.edges), np.asarray(ease, dtype=float), side="right"))


def affordable(choice: BinChoice, budget: float) -> bool:
    """Whether a cell holds what its budget affords."""
    return choice.cost <= budget * _WITHIN


def absolute_edges(easiness: ArrayLike, pass_rates: ArrayLike) -> tuple[float, ...]:
    """Edges on the scale of what is seen, so that bins are as large as the shares of such pass rates really are.

    What is seen of a question, such as the agreement of its samples, is no pass rate: of samples that agree most may be
    wrong. So the hardest bin holds as many as have pass rates below the first of `ABSOLUTE`, those that look hardest,
    as nearly as ties allow; and so on. For pass rates themselves these are `ABSOLUTE`.

    Args:
        easiness: (problems, orders) as they look.
        pass_rates: (problems,) of the same problems; for fitting only, like all that is known of right answers.
    """
    seen, rates = np.asarray(easiness, dtype=float), np.asarray(pass_rates, dtype=float)
    if np.array_equal(seen, np.broadcast_to(rates[:, None], seen.shape)):
        return ABSOLUTE
    values, counts = np.unique(seen[~np.isnan(seen)], return_counts=True)
    if not values.size:
        return ABSOLUTE
    # an edge at a value puts all below it into the harder bin; one beyond the last puts everything there
    below = np.concatenate([[0.0], counts.cumsum() / counts.sum()])
    cuts = np.append(values, np.nextafter(values[-1], np.inf))
    wanted = [float((rates < edge).mean()) for edge in ABSOLUTE]
    return tuple(float(cuts[np.abs(below - share).argmin()]) for share in wanted)


def ease(material: Material, difficulty: Difficulty, probe: int) -> Floats:
    """(problems, orders) how easy each problem looks after `probe` samples; with "oracle" how easy it is.

    Raises UsageError where the pool lacks what it is measured by.
    """
    if difficulty == "oracle":
        shape = material.orders.shape[:2]
        return np.broadcast_to(material.model.correct.mean(1)[:, None], shape)
    seen = material.seen((probe, 0))
    if difficulty == "length":
        return np.asarray(-seen.tokens.mean(-1))
    if difficulty in ("agreement", "entropy"):
        summary = evidence(seen, Vote(), (), target=False)
        if difficulty == "agreement":
            return summary.share
        return -summary.features[..., feature_names((), target=False).index("entropy")]
    names = ["logprob"] if difficulty == "logprob" else [name for name in material.signals if name != "logprob"]
    if not names or names[0] not in seen.signals:
        raise UsageError(f"The pool has no {difficulty} to measure difficulty by; choose agreement, entropy or length.")
    values = seen.signals[names[0]]
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1))


def fill(
    options: Sequence[Family], easiness: Floats, probing: Floats, table: Table, probe: int
) -> tuple[Table, NDArray[np.intp]]:
    """The table with the best affordable setting of every cell, and for each (bin, budget) its number among `flat`.

    Ties go to what is cheaper. Where nothing is affordable it is the cheapest, which is then not what the budget buys
    (`affordable`).

    Args:
        easiness: (problems, orders) ease.
        probing: (problems, orders) cost of the probe, for settings that do not go on from it.
    """
    names, credit, cost = flat(options, probing, probe)
    bins = table.bin(easiness)
    cells, numbers = [], np.zeros((len(table.edges) + 1, len(table.budgets)), dtype=np.intp)
    for row in range(len(table.edges) + 1):
        here = bins == row
        line = []
        for column, budget in enumerate(table.budgets):
            accuracy = credit[here].mean(0) if here.any() else credit.mean((0, 1))
            spent = cost[here].mean(0) if here.any() else cost.mean((0, 1))
            within = spent <= budget * _WITHIN
            if not within.any():
                within = spent <= spent.min() * _WITHIN
            best = accuracy[within].max()
            chosen = min(np.flatnonzero(within & (accuracy >= best - 1e-9)), key=lambda at: float(spent[at]))
            numbers[row, column] = chosen
            line.append(BinChoice(setting=names[chosen], accuracy=float(accuracy[chosen]), cost=float(spent[chosen])))
        cells.append(tuple(line))
    filled = Table(
        difficulty=table.difficulty, probe=table.probe, edges=table.edges, budgets=table.budgets, cells=tuple(cells)
    )
    return filled, numbers


def flat(options: Sequence[Family], probing: Floats, probe: int) -> tuple[list[str], Floats, Floats]:
    """All settings of all families that begin with the probe or do not need it: names, credit and cost (P, R, s).

    A strategy of the model draws the probe's samples anyway; one of the target, and a run, pays for them in addition.
    """
    names, credit, cost = [], [], []
    for family in options:
        for place, label in enumerate(family.labels()):
            other = family.name.startswith("target:") or family.used[place] == 0
            if not other and family.used[place] < probe:
                continue
            names.append(label)
            credit.append(family.credit[..., place])
            spent = family.cost[..., place]
            cost.append(spent + probing if other else np.maximum(spent, probing))
    return names, np.stack(credit, -1), np.stack(cost, -1)
