"""Solves the job of one request, like any other problem, with what the server shares among all of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from outthink.answers.reader import Reader
from outthink.cost.caps import whole_samples
from outthink.driver import solve_async
from outthink.meter import Meter
from outthink.models.engine import Engine
from outthink.resources.embedding import TextEmbedder
from outthink.rewards import Scorer
from outthink.sandbox.host import Sandbox
from outthink.server.job import Job
from outthink.server.metrics import Metrics
from outthink.types import Address, Call, Candidate, Trace

Listener = Callable[[tuple[Any, ...]], None]
"""Told what happens on the way: ("piece", address, piece), ("answer", segments), ("call", call)."""

# work on an answer that takes algebra to be compared: a fifth of what a run may take, since callers share two workers;
# who is cut off by it is compared as text
_READING = 1.0


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What requests share.

    Args:
        roles: engines of further roles, such as "judge".
        scorers: opened, by "verifier" and "prm".
        resources: further ones by name, as for `solve_async`.
    """

    roles: Mapping[str, Engine]
    scorers: Mapping[str, Scorer]
    embedder: TextEmbedder | None
    sandbox: Sandbox | None
    resources: Mapping[str, Any]
    reader: Reader = field(default_factory=lambda: Reader(_READING))


async def solved(
    job: Job, seconds: float, equipment: Equipment, metrics: Metrics, on_event: Listener | None = None
) -> Trace:
    """The trace of a job, which may take so many seconds; raises as `solve_async` does."""

    def listen(address: Address, piece: Mapping[str, Any]) -> None:
        said = (piece.get("delta") or piece.get("message") or {}).get("content")
        if said:
            job.heard.setdefault(address, []).append(said)
        if on_event is not None and job.choice.single:
            on_event(("piece", address, piece))

    def on_call(call: Call) -> None:
        metrics.call(call, job.owner)
        if job.on_call is not None:
            job.on_call(call)
        if on_event is not None and job.asked.wish.progress:
            on_event(("call", call))

    def on_fixed(segments: Sequence[Candidate]) -> None:
        if on_event is not None and not job.choice.single:  # then every sample is passed on as it is
            on_event(("answer", segments))

    def watch(meter: Meter) -> None:
        meter.shared = job.purse
        if job.dearness is not None:
            meter.dearness = job.dearness

    # an embedded engine has to turn tokens into text for those who listen, so only where it is wanted
    listens = job.engine.spec.fields is None or job.choice.single
    scorers = equipment.scorers
    trace = await solve_async(
        job.problem,
        job.choice.strategy,
        model=job.engine,
        models=equipment.roles,
        verifier=scorers["verifier"] if "verifier" in job.choice.scorers else None,
        prm=scorers["prm"] if "prm" in job.choice.scorers else None,
        embedder=equipment.embedder,
        budget=replace(job.budget, limits={**job.budget.limits, "seconds": seconds}),
        sampling=job.sampling,
        seed=secrets.randbits(31) if job.asked.seed is None else job.asked.seed & ((1 << 31) - 1),
        reader=equipment.reader,
        sandbox=equipment.sandbox,
        resources=equipment.resources,
        stop=job.stop,
        on_call=on_call,
        watch=watch,
        listen=listen if listens else None,
        on_fixed=on_fixed,
    )
    return renamed(job, trace)


def renamed(job: Job, trace: Trace) -> Trace:
    """Under the id that the caller is told, with the strategy as the caller knows it."""
    notes = trace.notes
    if job.cap is not None:
        told = (job.cap.sentence(), job.cap.cut_off(whole_samples(trace.candidates)))
        notes = (*notes, *(one for one in told if one is not None))
    return replace(trace, problem=job.ident, strategy=job.choice.named, notes=notes)
