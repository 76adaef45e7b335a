"""Pools as the counts and matrices that laws are fitted to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outthink.cost.shapes import read_shape
from outthink.errors import Unidentified, UnknownName, UsageError
from outthink.models import catalog
from outthink.models.engine import Shape
from outthink.records.pools import PoolData, copies, need_fixed, read_pool, scored
from outthink.reports.analysis import short_names
from outthink.types import AnswerKind

Floats = NDArray[np.float64]


Counts = NDArray[np.intp]


SUBSAMPLES = 1000  # random orders of the samples of each problem, where a vote is computed


def same_problems(pools: Sequence[PoolData]) -> list[PoolData]:
    """The pools with the problems that all of them have, in the order of the first."""
    held = [{problem.id: problem for problem in pool.problems} for pool in pools]
    shared = [problem for problem in held[0] if all(problem in by_id for by_id in held)]
    if not shared:
        raise UsageError(f"{pools[0].path} and {pools[-1].path} have no problem in common.")
    return [
        dataclasses.replace(pool, problems=tuple(by_id[problem] for problem in shared))
        for pool, by_id in zip(pools, held, strict=True)
    ]


def distinct_parts(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin and end with."""
    words = [name.split("-") for name in names]
    if len(set(names)) < 2:
        return list(names)
    while len({parts[0] for parts in words}) == 1 and min(map(len, words)) > 1:
        words = [parts[1:] for parts in words]
    while len({parts[-1] for parts in words}) == 1 and min(map(len, words)) > 1:
        words = [parts[:-1] for parts in words]
    return ["-".join(parts) for parts in words]


def models_named(pools: Sequence[PoolData], given: Sequence[Path], *, memory: bool) -> tuple[list[str], list[Shape]]:
    """Names and shapes of the models of pools: as given, as recorded, or from the model's file in the cache.

    Args:
        memory: whether the shapes must say how much memory traffic there is.
    """
    if given and len(given) != len(pools):
        raise UsageError(f"Give --shape once for each pool, in their order: {len(pools)} times, not {len(given)}.")
    names, shapes = [], []
    for place, (name, path) in enumerate(short_names([pool.path for pool in pools])):
        model = pools[place].meta.get("model")
        recorded = pools[place].meta.get("shape") or {}
        file: Path | None = given[place] if given else None
        if file is None and isinstance(model, str) and model in catalog.entries():
            file = catalog.path(model)
        if file is None and not (recorded.get("kv_heads") if memory else recorded):
            raise UsageError(f"{path} does not say what shape its model has; give its .gguf or config.json by --shape.")
        shapes.append(read_shape(file) if file is not None else Shape(**recorded))
        if given and not isinstance(model, str):  # a config.json says no name, but its folder does
            model = given[place].stem if given[place].suffix == ".gguf" else given[place].resolve().parent.name
        names.append(model if isinstance(model, str) and model not in names else name)
    return names, shapes


def only(files: Sequence[Path], name: str) -> Path:
    """The one file of a law that takes one."""
    if len(files) > 1:
        raise UsageError(f"The law {name} takes one pool, not {len(files)}.")
    return files[0]


def independent(path: Path, *, answer: AnswerKind = "text", models: bool = False, until: bool = False) -> PoolData:
    """A pool of independent samples of one model; with `models` also one of each of several, or with `until` those that
    end with the last that had to be right."""
    if os.path.isdir(path):
        raise UsageError(f"{path} is a run directory; this law needs a pool (.jsonl or .jsonl.gz).")
    pool = read_pool(path, answer=answer)
    if pool.kind == "sequence":
        need_fixed(pool)
    if not until:
        need_fixed(pool)
    if pool.kind == "models" and not models:
        raise UsageError(f"{path} holds samples of several models; laws of samples are about those of one.")
    return pool


def judged(pool: PoolData, verifier: str | None) -> tuple[PoolData, str]:
    """The samples that a verifier has scored from 0 to 1, and the verifier's name."""
    if verifier is None:
        if len(pool.scorers) != 1:
            told = f"has verdicts by {', '.join(pool.scorers)}" if pool.scorers else "has no verdicts"
            raise UsageError(f"Say with --verifier whose verdicts are meant; {pool.path} {told}.")
        (verifier,) = pool.scorers
    if verifier not in pool.scorers:
        raise UnknownName(f"verifier in {pool.path}", verifier, pool.scorers or ["none"])
    pool = scored(pool, verifier)
    need_verdicts(pool, verifier)
    return pool, verifier


def need_verdicts(pool: PoolData, verifier: str) -> None:
    """Raises UsageError where a score of the verifier is no verdict from 0 to 1."""
    known = np.concatenate([problem.scores[verifier].ravel() for problem in pool.problems])
    known = known[~np.isnan(known)]
    if not ((known >= 0) & (known <= 1)).all():
        raise UsageError(f"{verifier} scores from {known.min():g} to {known.max():g}; verdicts are from 0 to 1.")


def remarks(pool: PoolData, name: str) -> list[str]:
    """What to be careful about with the samples of a pool."""
    told = []
    if pool.kind == "models":
        told.append(f"{name}: the samples are those of several models, so k samples are those of k of them at random.")
    if (copied := copies(pool)) is not None:
        told.append(f"{name}: {copied}")
    return told


def right_counts(pool: PoolData) -> tuple[Counts, Counts]:
    """How many samples each problem has, and how many of them are right."""
    n = np.array([len(problem.correct) for problem in pool.problems], dtype=np.intp)
    return n, np.array([int(problem.correct.sum()) for problem in pool.problems], dtype=np.intp)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Says of which file it is that it cannot identify a law."""
    try:
        yield
    except Unidentified as refusal:
        raise Unidentified(f"{name}: {refusal}") from refusal
