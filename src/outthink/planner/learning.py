"""Learns from a server's recorded traffic: what each drawn action is worth, and a plan from the fullest draws.

Source: none of its own; estimates are those of `planner.logged`, plans those of `planner.make`. Differs: a request that
drew the most samples tells what every rule that stops earlier would have done, so a plan is fitted on those alone, on
which a right answer is known. Where the share that explores has changed, they are thinned so that all count alike.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from outthink.answers.reader import Reader
from outthink.jsonl import write_whole
from outthink.maths.intervals import Estimate
from outthink.planner.cases import Material, cases
from outthink.planner.fit import fit_policy
from outthink.planner.logged import LoggedRequest
from outthink.planner.plan import Plan
from outthink.planner.policy import Policy
from outthink.planner.simulate import Simulator
from outthink.records.runs import Result, read_results
from outthink.records.traffic import read_feedback
from outthink.reports.feedback import feedback_credits
from outthink.rng import generator
from outthink.tasks.example import Example
from outthink.tasks.grading import grade
from outthink.types import AnswerKind, Problem, Trace

LEAST = 40
"""Requests with a full draw and a right answer, below which no plan is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedTraffic:
    """What recorded traffic has to teach.

    Args:
        requests: with a drawn action and a judged answer; unjudged: those with a drawn action alone.
        most: the action that draws the most samples; None: none was drawn.
        rows: of a pool of its requests of which a right answer is known, as `records.pools` reads them.
        thinned: how many more there were, left out so that all count alike.
        others: how many were left out as of another model or another temperature than most.
    """

    requests: tuple[LoggedRequest, ...]
    unjudged: int
    most: str | None
    rows: tuple[dict[str, Any], ...]
    thinned: int
    others: int


def read_traffic(
    runs: Sequence[Path],
    *,
    golds: Mapping[str, Sequence[str]] | None = None,
    answer: AnswerKind = "chat",
    unit: str = "tokens",
    since: float = -math.inf,
    seed: int = 0,
) -> LearnedTraffic:
    """The requests of recorded runs for which an action was drawn.

    Args:
        golds: right answers by problem; those that callers told count, too.
        since: seconds since the epoch; earlier requests are left out.
    """
    known: dict[str, tuple[str, ...]] = {name: tuple(right) for name, right in (golds or {}).items()}
    full: list[tuple[Result, float]] = []
    requests: list[LoggedRequest] = []
    unjudged = 0
    for run in runs:
        credits = feedback_credits(run, answer)
        said = read_feedback(run.parent)
        for result in read_results(run):
            trial, trace = result.trial, result.trace
            if trial is None or trace is None or (result.ended or 0.0) < since:
                continue
            word = said.get(result.problem)
            if word is not None and word.answer is not None and word.owner == result.owner:
                known.setdefault(result.problem, (word.answer,))
            credit = credits.get(result.problem) if result.credit is None else result.credit
            spent = trace.cost.get(unit)
            if credit is None or spent is None:
                unjudged += 1
            else:
                requests.append(
                    LoggedRequest(
                        problem=result.problem,
                        action=trial.action,
                        chance=trial.chance,
                        credit=credit,
                        cost=spent,
                        prompt=float(_prompt(trace)),
                        ended=result.ended or 0.0,
                    )
                )
            if trial.action.startswith("self_consistency?n="):
                full.append((result, trial.chance))
    sizes = {result.trial.action: _size(result.trial.action) for result, _ in full if result.trial}
    most = max(sizes, key=lambda action: sizes[action], default=None)
    whole = [
        (result, chance)
        for result, chance in full
        if result.trial and result.trial.action == most and result.problem in known and _samples(result, sizes[most])
    ]
    # a plan is for one model and one way of sampling
    common = Counter(_drawn_as(result) for result, _ in whole).most_common(1)
    alike = [one for one in whole if _drawn_as(one[0]) == common[0][0]]
    others = len(whole) - len(alike)
    whole = alike
    kept = [whole[place] for place in thinned([1 / chance for _, chance in whole], generator(seed))]
    rows = asyncio.run(_rows(kept, known, answer))
    return LearnedTraffic(
        requests=tuple(requests),
        unjudged=unjudged,
        most=most,
        rows=tuple(rows),
        thinned=len(whole) - len(kept),
        others=others,
    )


def thinned(weights: Sequence[float], rng: np.random.Generator) -> list[int]:
    """Positions that stay where each stays with a chance in proportion to its weight, the largest one always: an
    unweighted sample of what the weighted ones stand for."""
    if not weights:
        return []
    given = np.asarray(weights, dtype=float)
    return np.flatnonzero(rng.random(len(given)) < given / given.max()).tolist()


def plan_gain(material: Material, old: Plan, *, price: float, seed: int = 0) -> Estimate:
    """What a plan that is fitted anew gains over an old one: accuracy - price * cost, with its 95% interval.

    Each half of the problems is answered by the plan that was fitted on the other half, and by the old one.

    Raises UsageError, as `fit_policy`, where there are too few problems.
    """
    halves = generator(seed, 92).permutation(len(material.ids)) % 2
    gained = np.empty(len(material.ids))
    for half in (0, 1):
        policy, _ = fit_policy(material.select(halves != half), seed=seed)
        there = material.select(halves == half)
        gained[halves == half] = _worth(policy, there, price) - _worth(old.policy, there, price)
    mean = float(gained.mean())
    wide = NormalDist().inv_cdf(0.975) * float(gained.std(ddof=1)) / math.sqrt(len(gained))
    return mean, mean - wide, mean + wide


def replace_plan(path: Path, new: Plan) -> None:
    """Put a plan in the place of another one, which stays as FILE.previous; whole at every moment. A server that
    follows the file takes it for the next request."""
    write_whole(path.with_name(path.name + ".previous"), path.read_text(encoding="utf-8"))
    write_whole(path, new.to_json())


def _worth(policy: Policy, material: Material, price: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(problems,) accuracy - price * cost, mean over orders."""
    outcome = Simulator(policy, cases(material, policy.vote), material).at(price)
    return np.asarray(outcome.credit.mean(1) - price * outcome.cost.mean(1))


def _drawn_as(result: Result) -> tuple[str, float, float]:
    trace = result.trace
    assert trace is not None
    return trace.resources.get("model", ""), trace.sampling.temperature, trace.sampling.top_p


def _prompt(trace: Trace) -> int:
    return next((call.charged.prompt for call in trace.calls if call.kind == "sample"), 0)


def _size(action: str) -> int:
    number = action.rpartition("=")[2]
    return int(number) if number.isdecimal() else 0


def _samples(result: Result, size: int) -> bool:
    """Whether all samples that were to be drawn are there."""
    trace = result.trace
    return trace is not None and sum(one.address[0] == "model" for one in trace.candidates) == size


async def _rows(
    kept: Sequence[tuple[Result, float]], golds: Mapping[str, tuple[str, ...]], answer: AnswerKind
) -> list[dict[str, Any]]:
    reader = Reader()
    rows = []
    try:
        for result, _ in kept:
            trace = result.trace
            assert trace is not None
            example = Example(Problem(id=result.problem, messages=(), answer=answer), golds[result.problem])
            samples = [
                {
                    "text": one.text,
                    "tokens": one.tokens,
                    "logprobs": None if one.logprobs is None else list(one.logprobs),
                    "finish": one.finish,
                    "answer": one.answer,
                    "key": one.key,
                    "correct": await grade(example, one.answer, reader) >= 1,
                }
                for one in trace.candidates
                if one.address[0] == "model"
            ]
            told = {"temperature": trace.sampling.temperature, "top_p": trace.sampling.top_p}
            rows.append(
                {
                    "id": result.problem,
                    "prompt_tokens": _prompt(trace),
                    "samples": samples,
                    "meta": {"model": trace.resources.get("model", ""), "sampling": told},
                }
            )
    finally:
        await reader.close()
    return rows
