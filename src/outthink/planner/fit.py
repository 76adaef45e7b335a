"""Learns a policy from recorded samples: the vote, what each action is worth, what it costs.

Source: fitted stopping from recorded paths (regression of what continuing brought on what was seen, as in Longstaff and
Schwartz 2001, from memory). Differs: every number of samples has a regression of its own, of what going on gains over
stopping; an action is looked at again after its first part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from outthink.planner.cases import Cases, Material, Side, cases
from outthink.planner.estimate import Scale, fit_estimate, fit_prospect
from outthink.planner.evidence import Floats, Vote, leaders
from outthink.planner.policy import Action, Policy, Rate, Stage, Start, State
from outthink.planner.simulate import Simulator, price_grid
from outthink.rng import generator

_ROWS = 16_000  # of one regression; more rows of the same problems say hardly more
_PROBLEMS = 1_000  # by which the vote is chosen
_STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # coefficients tried, in standard deviations of the signal
_COPIES = (0.0, -1.0, -6.0)  # a copy of an earlier text weighs as much as another sample, a third, or nothing
_STARTS = 17  # prices at which what is done first is compared
_EVIDENCE = (
    2.5  # standard errors by which a vote has to beat the plain one; several are tried, so one in fifty is wrong
)
_TARGETS = (0.0, 0.7, 1.4, 2.1, 3.0)  # a sample of the dearer model is worth up to 20 votes


def fit_vote(material: Material) -> Vote:
    """The vote whose leader is right most often, over several numbers of samples, as far as there is evidence for it.

    The majority is left only for what is better by more than `_EVIDENCE` standard errors of the paired difference, and
    of all that are as good as the best within one standard error it is the weakest.
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
    actions = _actions(material, all_cases.states)
    number, rng = np.repeat(np.arange(problems), orders), generator(seed, 91)
    runs = {run.name: np.broadcast_to(run.credit[:, None], (problems, orders)) for run in material.runs}

    def drawn_from(states: Sequence[State]) -> list[tuple[State, NDArray[np.intp]]]:
        return [(state, _sampled(rng, len(number), max(1, _ROWS // len(states)))) for state in states]

    def values(rows: Sequence[tuple[State, NDArray[np.intp]]], outcome: Callable[[State], Floats]) -> Floats:
        return np.concatenate([outcome(state).reshape(len(number), -1)[chosen] for state, chosen in rows])

    def after(action: Action, state: State) -> Floats:
        if action.kind == "run":
            return runs[action.run]
        return all_cases.credit[(action.n, 0) if action.kind == "sample" else (state[0], action.n)]

    scale = Scale.from_features(values(drawn_from(all_cases.states[1:]), all_cases.features.__getitem__))
    stages = []
    for drawn, dear in dict.fromkeys((-1 if dear else drawn, dear) for drawn, dear in all_cases.states):
        rows = drawn_from([state for state in all_cases.states if state[1] == dear and drawn in (-1, state[0])])
        units = scale.standard(values(rows, all_cases.features.__getitem__))
        owner = np.concatenate([number[chosen] for _, chosen in rows])
        right = values(rows, all_cases.credit.__getitem__)[:, 0]
        prospects = []
        for kind in ("sample", "target", "run"):
            able = [place for place in _open(actions, drawn, dear) if actions[place].kind == kind]
            gains = [values(rows, partial(after, actions[place]))[:, 0] - right for place in able]
            if gains:
                prospects.append(fit_prospect(units, np.stack(gains, -1), owner, able))
        now = fit_estimate(units, right, owner) if drawn or dear else None
        stages.append(Stage(drawn=drawn, dear=dear, now=now, prospects=tuple(prospects)))
    policy = Policy(
        signals=material.signals,
        vote=vote,
        scale=scale,
        actions=tuple(actions),
        stages=tuple(stages),
        starts=(),
        rates=tuple(_rate(side, material.prompt) for side in (material.model, material.target) if side is not None),
    )
    return replace(policy, starts=_starts(policy, all_cases, material)), all_cases


def _starts(policy: Policy, all_cases: Cases, material: Material) -> tuple[Start, ...]:
    """Of each kind that is there, by simulation; where there is one only, nothing has to be compared."""
    first = [place for place, action in enumerate(policy.actions) if action.kind == "run" or action.n == 1]
    prices = price_grid(policy.rates, points=_STARTS if len(first) > 1 else 2)
    starts = []
    for place in first:
        start = Start(action=place, prices=tuple(prices), right=(0.0,) * len(prices), cost=(0.0,) * len(prices))
        if len(first) > 1:
            simulator = Simulator(replace(policy, starts=(start,)), all_cases, material)
            outcomes = [simulator.at(price) for price in prices]
            start = replace(
                start,
                right=tuple(float(outcome.credit.mean()) for outcome in outcomes),
                cost=tuple(float(outcome.cost.mean()) for outcome in outcomes),
            )
        starts.append(start)
    return tuple(starts)


def _actions(material: Material, states: Sequence[State]) -> list[Action]:
    samples = sorted({drawn for drawn, _ in states if drawn})
    dear = sorted({more for _, more in states if more})
    return [
        *(Action(kind="sample", n=n) for n in samples),
        *(Action(kind="target", n=n) for n in dear),
        *(Action(kind="run", run=run.name, cost=float(np.nanmean(run.cost))) for run in material.runs),
    ]


def _open(actions: Sequence[Action], drawn: int, dear: int) -> list[int]:
    """Positions of the actions that are there: once the target has been asked, only it is asked further."""
    return [
        place
        for place, action in enumerate(actions)
        if (action.kind == "target" and action.n > dear)
        or (not dear and (action.kind == "run" or (action.kind == "sample" and action.n > drawn)))
    ]


def _sampled(rng: np.random.Generator, size: int, most: int) -> NDArray[np.intp]:
    return np.arange(size) if size <= most else rng.choice(size, most, replace=False)


def _accuracy(material: Material, vote: Vote, states: Sequence[State]) -> Floats:
    """(problems,) mean over orders and states."""
    parts = []
    for piece in material.pieces():
        right = [piece.credit(state, leaders(piece.seen(state), vote)).mean(1) for state in states]
        parts.append(np.mean(right, 0))
    return np.concatenate(parts)


def _best(accuracies: Sequence[Floats]) -> int:
    """The first that is the best but for one standard error, if that is above the very first by more than chance."""
    best = max(range(len(accuracies)), key=lambda place: float(accuracies[place].mean()))
    if _above(accuracies[best], accuracies[0]) <= _EVIDENCE:
        return 0
    return next(place for place, one in enumerate(accuracies) if _above(accuracies[best], one) <= 1.0)


def _above(one: Floats, other: Floats) -> float:
    """By how many standard errors one is better on the same problems; 0 where they are equal."""
    off = one - other
    return float(off.mean() / max(off.std() / np.sqrt(len(off)), 1e-9))


def _rate(side: Side, prompt: Floats) -> Rate:
    reading = side.first[:, 0] - side.later[:, 0]
    length = 0.0 if np.isnan(prompt).all() else float(np.nanmean(prompt))
    return Rate(
        prompt=float(reading.mean()) / max(length, 1.0),
        completion=float(side.later.sum() / max(side.tokens.sum(), 1.0)),
        tokens=float(side.tokens.mean()),
        prompt_tokens=length,
    )


def _known_mean(values: Floats) -> float:
    return 0.0 if np.isnan(values).all() else float(np.nanmean(values))
