"""What a call costs, by unit: tokens, FLOPs and US dollars; seconds are measured, not computed."""

from __future__ import annotations

from collections.abc import Sequence

from outthink.models.engine import EngineSpec, Shape
from outthink.types import Usage


def flops(shape: Shape, usage: Usage) -> float:
    """Floating-point operations of one child: 2 per parameter and new token, and attention over what precedes it.

    Source: the 2P rule of Kaplan et al. (2020); attention adds 4 x layers x hidden per pair of tokens. An estimate,
    exact neither in embeddings (counted as matrix products) nor in vocabulary padding.
    """
    total = usage.prompt + usage.completion
    pairs = (total**2 - usage.cached**2) / 2
    return 2.0 * shape.parameters * usage.tokens + 4.0 * shape.layers * shape.hidden * pairs


def charge(spec: EngineSpec, usages: Sequence[Usage]) -> dict[str, float]:
    """The cost of a group of children by unit; a unit that is not known for this engine is left out."""
    cost = {"tokens": float(sum(usage.tokens for usage in usages))}
    if spec.shape is not None:
        cost["flops"] = sum(flops(spec.shape, usage) for usage in usages)
    if spec.price is not None:
        cost["usd"] = sum(spec.price.usd(usage) for usage in usages)
    return cost
