"""What work costs: tokens, FLOPs and dollars of every call here; bytes and seconds in the modules beside it.

    flops.py        operations of calls, of pretraining, and the exchange between the two
    kinetics.py     memory traffic beside the operations (eFLOPs)
    latency.py      seconds
    calibration.py  the latency of one engine on one machine, as measured by `outthink calibrate`
    price.py        dollars from published prices or a file
    shapes.py       the shape of a model from its file

The meter needs tokens, FLOPs and dollars of every call; only that is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence

from outthink.cost.flops import flops
from outthink.models.engine import EngineSpec
from outthink.types import Budget, Usage

__all__ = ["charge", "flops", "worth"]


def charge(spec: EngineSpec, usages: Sequence[Usage]) -> dict[str, float]:
    """The cost of a group of children by unit; a unit that is not known for this engine is left out."""
    cost = {"tokens": float(sum(usage.tokens for usage in usages))}
    if spec.shape is not None:
        cost["flops"] = sum(flops(spec.shape, usage) for usage in usages)
    if spec.price is not None:
        cost["usd"] = sum(spec.price.usd(usage) for usage in usages)
    for usage in usages:
        for unit, amount in usage.further.items():
            cost[unit] = cost.get(unit, 0.0) + amount
    return cost


def worth(text: str) -> tuple[float, str]:
    """What a right answer is worth, and in which unit, from "0.05usd"; ValueError where it cannot be read."""
    limits = Budget.parse(text).limits
    if len(limits) != 1 or "seconds" in limits:
        raise ValueError(f"value_of_correct must be one amount of usd, tokens or flops, not {text!r}")
    ((unit, value),) = limits.items()
    return value, unit
