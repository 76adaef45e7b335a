"""Clusters of continuous answers, where voting by equality means nothing: groups, their representatives and weights.

Source: Scaling Laws of Motion Forecasting and Planning, a technical report (2025); the abstract and an overview were
read, not the section on inference, so how samples are clustered is our design. Greedy suppression is the common
practice of object detection, from memory.

Clusters are numbered, -1 is none (an invalid answer, or one that was left over). The weight of a cluster is how often
the model says so, not how likely it is to be right. Units decide the clusters: scale what is measured before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]
_ROUNDING = 1e-12  # relative; what differs by less is equal


def gap_clusters(values: ArrayLike, delta: float) -> Labels:
    """Clusters (..., n) of numbers (..., n): sorted and cut at gaps wider than delta; numbered from the smallest value.

    With delta 0 they are the groups of equal answers. Neighbours hold on to each other, so a long chain of them is one
    cluster, and with more samples all of them are: then make delta smaller, or use `radius_clusters`.

    Args:
        values: what is not finite is in no cluster.
        delta: at least 0.
    """
    if not delta >= 0:
        raise ValueError(f"delta must be at least 0, not {delta}")
    values = np.asarray(values, float)
    values = np.where(np.isfinite(values), values, np.nan)
    order = np.argsort(values, axis=-1, kind="stable")  # NaN comes last
    ordered = np.take_along_axis(values, order, -1)
    gaps = np.diff(ordered, axis=-1, prepend=ordered[..., :1])
    labels = np.cumsum(gaps - delta > _ROUNDING * np.abs(ordered), axis=-1)
    clusters = np.empty(values.shape, dtype=np.intp)
    np.put_along_axis(clusters, order, labels, -1)
    return np.where(np.isnan(values), -1, clusters)


def radius_clusters(distances: ArrayLike, radius: float, k: int | None = None) -> Labels:
    """Clusters (n,) by greedy suppression: the sample with most neighbours within the radius takes them, and so on.

    Numbered in the order in which they were taken, the largest first. No member is further than the radius from the
    sample that took it, so that they do not chain. Ties go to the lower index.

    Args:
        distances: (n, n), symmetric; NaN to and from a sample that is in no cluster.
        radius: at least 0.
        k: most clusters, at least 1; what is left over is in none. None: no limit.
    """
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0, not {radius}")
    if k is not None and k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    near = np.asarray(distances, float) <= radius * (1 + 1e-9)  # a distance of two large numbers is rounded
    labels = np.full(len(near), -1, dtype=np.intp)
    left = near.diagonal().copy()
    for label in range(len(labels) if k is None else k):
        if not left.any():
            break
        centre = np.where(left, (near & left).sum(-1), -1).argmax()
        taken = near[centre] & left
        labels[taken] = label
        left &= ~taken
    return labels


def medoids(distances: ArrayLike, labels: ArrayLike) -> NDArray[np.intp]:
    """For each cluster, in order of its number, the index (clusters,) of the member nearest to all members together.

    It is an answer that exists. The mean of answers of several kinds is often none: between two lanes there is no road.
    Ties go to the lower index.

    Args:
        distances: (n, n).
        labels: (n,), -1 for none.
    """
    distances, labels = np.asarray(distances, float), np.asarray(labels, np.intp)
    medoids = []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        sums = distances[np.ix_(members, members)].sum(-1)
        medoids.append(members[np.flatnonzero(sums <= sums.min() * (1 + _ROUNDING))[0]])
    return np.array(medoids, dtype=np.intp)
