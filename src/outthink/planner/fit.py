"""Learns a policy from recorded samples: the vote, what each action is worth, what it costs.

Source: fitted stopping from recorded paths (regression of what continuing brought on what was seen, as in Longstaff and
Schwartz 2001, from memory). Differs: every action is regressed by itself, on the answer it leads to, and looked at
again after its first part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outthink.planner.cases import Cases, Material, Side, cases
from outthink.planner.estimate import Estimate, Scale, fit_estimate
from outthink.planner.evidence import Floats, Vote, leaders
from outthink.planner.policy import Action, Policy, Rate, State

_ROWS = 24_000  # of one regression; more rows of the same problems say hardly more
_PROBLEMS = 1_000  # by which the vote is chosen
_STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # coefficients tried, in standard deviations of the signal
_COPIES = (0.0, -1.0, -6.0)  # a copy of an earlier text weighs as much as another sample, a third, or nothing
_TARGETS = (0.0, 0.7, 1.4, 2.1, 3.0)  # a sample of the dearer model is worth up to 20 votes


def fit_vote(material: Material) -> Vote:
    """The vote whose leader is right most often, over several numbers of samples; the weakest of equals.

    One signal after the other, twice, because there are few and their strengths hardly depend on each other.
    """
    part = (
        material
        if len(material.ids) <= _PROBLEMS
        else material.select(np.linspace(0, len(material.ids) - 1, _PROBLEMS).astype(int))
    )
    vote = Vote(
        coefficients={},
        centres={name: _known_mean(part.model.signals[name]) for name in material.signals},
    )
    alone: list[State] = [(n, 0) for n in (2, 4, 8, 16, 32) if n <= part.model.samples] or [(part.model.samples, 0)]
    both: list[State] = []
    if part.target is not None:
        both = [(m, n) for m in (1, 4, 8) for n in (1, 2, 4) if m <= part.model.samples and n <= part.target.samples]
    chosen = dict.fromkeys(material.signals, 0.0)
    for _ in range(2 if len(material.signals) > 1 else 1):
        for name in material.signals:
            deviation = float(np.nanstd(part.model.signals[name]))
            if not deviation > 0:
                continue
            tried = [{**chosen, name: strength / deviation} for strength in _STRENGTHS]
            votes = [Vote(coefficients=one, centres=vote.centres) for one in tried]
            chosen = tried[_best([_accuracy(part, one, alone) for one in votes])]
    once = [Vote(coefficients=chosen, centres=vote.centres, copy=weight) for weight in _COPIES]
    vote = once[_best([_accuracy(part, one, alone) for one in once])]
    if both:
        dear = [replace(vote, target=weight) for weight in _TARGETS]
        vote = dear[_best([_accuracy(part, one, both) for one in dear])]
    return vote


def fit_policy(material: Material, *, seed: int = 0) -> tuple[Policy, Cases]:
    """The policy, and the cases it was fitted on."""
    vote = fit_vote(material)
    all_cases = cases(material, vote)
    problems, orders = all_cases.credit[(0, 0)].shape
    number = np.repeat(np.arange(problems), orders)
    rng = np.random.default_rng([seed, 91])
    every = [state for state in all_cases.states if sum(state)]
    scale = Scale.from_features(_rows(all_cases, all_cases.credit, rng, number)[0])

    def estimate(outcomes: Mapping[State, Floats]) -> Estimate:
        features, right, owner = _rows(all_cases, outcomes, rng, number)
        return fit_estimate(scale.standard(features), right, owner)

    actions = []
    small = sorted({drawn for drawn, dear in all_cases.states if dear == 0 and drawn})
    for n in small:
        before = [state for state in all_cases.states if state[1] == 0 and state[0] < n]
        actions.append(Action(kind="sample", n=n, right=estimate(dict.fromkeys(before, all_cases.credit[n, 0]))))
    for n in sorted({dear for _, dear in all_cases.states if dear}):
        before = [state for state in all_cases.states if state[1] < n]
        actions.append(
            Action(kind="target", n=n, right=estimate({state: all_cases.credit[(state[0], n)] for state in before}))
        )
    for run in material.runs:
        credit = np.broadcast_to(run.credit[:, None], (problems, orders))
        before = [state for state in all_cases.states if state[1] == 0]
        actions.append(
            Action(
                kind="run",
                run=run.name,
                right=estimate(dict.fromkeys(before, credit)),
                cost=float(np.nanmean(run.cost)),
            )
        )
    policy = Policy(
        signals=material.signals,
        vote=vote,
        scale=scale,
        now=estimate({state: all_cases.credit[state] for state in every}),
        actions=tuple(actions),
        rates=tuple(_rate(side, material.prompt) for side in (material.model, material.target) if side is not None),
    )
    return policy, all_cases


def _rows(
    all_cases: Cases,
    outcomes: Mapping[State, Floats],
    rng: np.random.Generator,
    number: NDArray[np.intp],
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Features, outcome and problem of rows drawn from states with an outcome (problems, orders) each."""
    share = max(1, _ROWS // len(outcomes))
    features, right, owner = [], [], []
    for state, outcome in outcomes.items():
        rows = _sampled(rng, len(number), share)
        features.append(all_cases.features[state].reshape(len(number), -1)[rows])
        right.append(outcome.ravel()[rows])
        owner.append(number[rows])
    return np.concatenate(features), np.concatenate(right), np.concatenate(owner)


def _sampled(rng: np.random.Generator, size: int, most: int) -> NDArray[np.intp]:
    return np.arange(size) if size <= most else rng.choice(size, most, replace=False)


def _accuracy(material: Material, vote: Vote, states: Sequence[State]) -> float:
    right = 0.0
    for piece in material.pieces():
        for state in states:
            right += piece.credit(state, leaders(piece.seen(state), vote)).mean(1).sum()
    return right / (len(states) * len(material.ids))


def _best(accuracies: Sequence[float]) -> int:
    """The first of those that nothing beats by more than rounding."""
    return next(place for place, value in enumerate(accuracies) if value >= max(accuracies) - 1e-9)


def _rate(side: Side, prompt: Floats) -> Rate:
    reading = side.first[:, 0] - side.later[:, 0]
    length = float(np.mean(prompt))
    return Rate(
        prompt=float(reading.mean()) / max(length, 1.0),
        completion=float(side.later.sum() / max(side.tokens.sum(), 1.0)),
        tokens=float(side.tokens.mean()),
        prompt_tokens=length,
    )


def _known_mean(values: Floats) -> float:
    return 0.0 if np.isnan(values).all() else float(np.nanmean(values))
