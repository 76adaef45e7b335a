"""Edges that cut values into parts of equal size.

Source: textbook.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def quantile_edges(ease: ArrayLike, bins: int) -> tuple[float, ...]:
    """Edges that cut the values into parts of equal size, where ties allow; fewer where many are equal."""
    values = np.asarray(ease, dtype=float).ravel()
    values = values[~np.isnan(values)]
    if values.size == 0 or bins < 2:
        return ()
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return tuple(float(edge) for edge in edges if values.min() < edge)
