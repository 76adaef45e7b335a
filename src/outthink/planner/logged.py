"""What each action of a server is worth, from requests for which actions were drawn with logged chances.

Source: doubly robust off-policy estimates (Dudik et al. 2011), as in `maths.offpolicy`; normal intervals. Differs:
predictions are cross-fitted ridge regressions on the length of the prompt; intervals of gains hold for all actions at
once (Bonferroni), so that the best of them may be picked; an action with few effective requests has none.

It holds for requests like those that somebody has judged. Where callers judge only what annoys them, it is of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from outthink.maths.intervals import Estimate
from outthink.maths.offpolicy import doubly_robust, effective_size, propensity_weights
from outthink.records.runs import OWN

CLIP = 1000.0
"""The largest weight: one request in a thousand of an action is enough."""

_FOLDS = 5
_FEW = 30.0  # effective requests of an action, below which a normal interval would say too much
_RIDGE = 1.0
_LEVEL = 0.95
_ALARM = 2.576  # standard errors of a change, which come by chance once in a hundred times

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedRequest:
    """One request whose action was drawn, and whose answer somebody has judged.

    Args:
        chance: of its action. credit: in [0, 1]. cost: in one unit. prompt: its tokens. ended: seconds since the epoch.
    """

    problem: str
    action: str
    chance: float
    credit: float
    cost: float
    prompt: float
    ended: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ActionValue:
    """What would have been if all requests had got one action.

    Args:
        requests: that got it; effective: as many equally weighted ones tell as much.
        clipped: share of them whose weight was cut.
        accuracy, cost: doubly robust means with 95% intervals, each for itself; NaN bounds for few requests.
        gain: accuracy - price * cost, less that of what the server does; its intervals hold for all actions at once.
    """

    action: str
    requests: int
    effective: float
    clipped: float
    accuracy: Estimate
    cost: Estimate
    gain: Estimate


def action_values(requests: Sequence[LoggedRequest], *, price: float = 0.0, clip: float = CLIP) -> list[ActionValue]:
    """Every action that was drawn, what the server does first.

    Args:
        price: of one unit of cost, in right answers.

    Raises ValueError where there are no requests.
    """
    if not requests:
        raise ValueError("there are no requests")
    names = [OWN, *sorted({one.action for one in requests} - {OWN}, key=_by_size)]
    logged = np.array([one.chance for one in requests])
    taken = np.array([names.index(one.action) for one in requests])
    credit, cost = np.array([one.credit for one in requests]), np.array([one.cost for one in requests])
    prompt = np.log1p([one.prompt for one in requests])
    folds = np.array([blake2b(one.problem.encode(), digest_size=1).digest()[0] % _FOLDS for one in requests])
    right = _predicted(credit, taken, len(names), prompt, folds, most=1.0)
    spent = _predicted(cost, taken, len(names), prompt, folds, most=math.inf)
    values, weights = [], []
    for place in range(len(names)):
        weight = propensity_weights(taken == place, logged, clip)
        weights.append(weight)
        pairs = ((credit, right[:, place]), (cost, spent[:, place]))
        values.append([doubly_robust(seen, weight, one, one) for seen, one in pairs])
    rivals = max(len(names) - 1, 1)
    told = []
    for name, (accurate, costly), weight in zip(names, values, weights, strict=True):
        gained = accurate - values[0][0] - price * (costly - values[0][1])
        enough = min(effective_size(weight), effective_size(weights[0])) >= _FEW
        told.append(
            ActionValue(
                action=name,
                requests=int((weight > 0).sum()),
                effective=effective_size(weight),
                clipped=float(np.mean(1 / logged[weight > 0] > clip)) if (weight > 0).any() else 0.0,
                accuracy=_estimate(accurate, effective_size(weight) >= _FEW),
                cost=_estimate(costly, effective_size(weight) >= _FEW),
                gain=_estimate(gained, enough, rivals),
            )
        )
    return told


def best(values: Sequence[ActionValue]) -> ActionValue:
    """The action with the largest gain among those that surely have one; what the server does where none has."""
    sure = [value for value in values if value.gain[1] > 0]
    return max(sure, key=lambda value: value.gain[0], default=values[0])


def changes(requests: Sequence[LoggedRequest]) -> list[str]:
    """What differs between the earlier and the later half of what the server does, in words.

    Each of the two sentences comes by chance once in a hundred times.
    """
    own = sorted((one for one in requests if one.action == OWN), key=lambda one: one.ended)
    half = len(own) // 2
    if half < _FEW:
        return []
    said = []
    for what, values in (("accuracy", [one.credit for one in own]), ("cost", [one.cost for one in own])):
        earlier, later = np.array(values[:half]), np.array(values[half:])
        error = math.sqrt(earlier.var(ddof=1) / len(earlier) + later.var(ddof=1) / len(later))
        if abs(later.mean() - earlier.mean()) > _ALARM * error:
            said.append(
                f"the mean {what} was {earlier.mean():.4g} in the earlier half and {later.mean():.4g} in the later"
            )
    return said


def _predicted(
    seen: Floats, taken: NDArray[np.intp], actions: int, prompt: Floats, folds: NDArray[np.intp], most: float
) -> Floats:
    """(requests, actions) predictions by what stands in other folds."""
    predicted = np.empty((len(seen), actions))
    for fold in range(_FOLDS):
        here, others = folds == fold, folds != fold
        mean = seen[others].mean() if others.any() else 0.0
        for action in range(actions):
            known = others & (taken == action)
            predicted[here, action] = np.clip(_line(prompt[known], seen[known], prompt[here], mean), 0.0, most)
    return predicted


def _line(at: Floats, values: Floats, wanted: Floats, mean: float) -> Floats:
    """A ridge regression on one number; the mean of all actions counts as one more request."""
    middle = at.mean() if len(at) else 0.0
    level = (values.sum() + mean) / (len(values) + 1)
    slope = ((at - middle) * (values - level)).sum() / (((at - middle) ** 2).sum() + _RIDGE)
    return np.asarray(level + slope * (wanted - middle), dtype=float)


def _estimate(values: Floats, enough: bool, rivals: int = 1) -> Estimate:
    mean = float(values.mean())
    if not enough or len(values) < 2:
        return mean, math.nan, math.nan
    wide = NormalDist().inv_cdf(1 - (1 - _LEVEL) / (2 * rivals)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean, mean - wide, mean + wide


def _by_size(action: str) -> tuple[str, int, str]:
    name, _, number = action.rpartition("=")
    return (name, int(number), action) if number.isdecimal() else (action, 0, action)
