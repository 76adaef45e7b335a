"""Spaces of architectures for `archon`: the axes of Archon's search, and pipelines of stages as in AgentTTS.

Source: the six axes of Archon (2409.15254), and the budget of a stage of AgentTTS (2508.00890), by notes on both.
Differs: Archon's values are ours; of a pipeline's stages the first is a generator and the others are fusers, and a
stage's amount is its samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outthink.errors import UsageError
from outthink.learn.search import Point, SearchSpace
from outthink.strategies.collective.architecture import Component, Layers, calls, checked

SAMPLES = (1, 2, 3, 5, 10)
_FUSION_LAYERS = (0, 1, 2)
_FUSERS = (1, 2, 4)
_CRITICS = (0, 1)
_EVALUATORS = (0, 1)
_TOP_K = 5  # that a ranker keeps
_MOST_POINTS = 100_000
STAGE_SAMPLES = (1, 2, 3, 5, 8, 12, 16, 24, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchitectureSpace:
    """A space, and the layers that each allowed point of it stands for."""

    space: SearchSpace
    layers: Mapping[Point, Layers]


def archon_space(roles: Sequence[str], *, most_calls: int) -> ArchitectureSpace:
    """Archon's axes: generators, samples of each, fusion layers, fusers in each, critic and ranker, evaluator.

    Args:
        roles: of models, the strongest first: the first m generate, and the first one criticises, ranks, tests and
            fuses.
        most_calls: of an architecture on one problem.

    Raises UsageError where there is no role, or nothing is within the calls.
    """
    if not roles:
        raise UsageError("A search needs a model: give at least one role.")
    sizes = (len(roles), len(SAMPLES), len(_FUSION_LAYERS), len(_FUSERS), len(_CRITICS), len(_EVALUATORS))
    return _space(sizes, lambda point: _archon_layers(roles, point), lambda layers: float(calls(layers)), most_calls)


def _archon_layers(roles: Sequence[str], point: Point) -> Layers | None:
    """The layers of a point; None where it breaks a rule, or says the same as another one."""
    models, samples, fusions, fusers, critics, evaluator = point
    if _FUSION_LAYERS[fusions] < 2 and fusers:
        return None  # the last fusion layer always has one
    best = roles[0]
    layers = [[Component(type="generator", model=role, samples=SAMPLES[samples]) for role in roles[: models + 1]]]
    if _CRITICS[critics]:
        layers += [[Component(type="critic", model=best)], [Component(type="ranker", model=best, top_k=_TOP_K)]]
    for number in range(_FUSION_LAYERS[fusions]):
        last = number + 1 == _FUSION_LAYERS[fusions]
        layers.append([Component(type="fuser", model=best, samples=1 if last else _FUSERS[fusers])])
    if _EVALUATORS[evaluator]:
        layers += [
            [Component(type="unit_test_generator", model=best)],
            [Component(type="unit_test_evaluator", model=best)],
        ]
    try:
        return checked(layers)
    except UsageError:  # too many candidates in one prompt
        return None


def stage_budget(size: float, samples: int, *, prompt_to_answer: float, prompt_to_least: float = 1.0) -> float:
    """What a stage costs relative to one pass of the smallest model; a relative measure only.

    Args:
        size: of the model, in sizes of the smallest one (alpha).
        prompt_to_answer: tokens of the prompt by those of an answer (beta1), above 0.
        prompt_to_least: tokens of the prompt by those of the stage with the shortest one (beta2).
    """
    if samples < 1 or min(size, prompt_to_answer, prompt_to_least) <= 0:
        raise ValueError("a stage needs at least one sample, and sizes and ratios above 0")
    scaled = size * prompt_to_least
    return 2 * scaled * samples / prompt_to_answer + 2 * (scaled - 1)


def stage_space(
    sizes: Mapping[str, float], *, stages: int, passes: float = 1.0, prompt_to_answer: float = 1.0
) -> ArchitectureSpace:
    """Pipelines of a generator and fusers, each stage with one of the models and its samples.

    Args:
        sizes: of the models by role, such as billions of parameters; above 0.
        stages: at least 1.
        passes: the budget of all stages together, as samples of the largest model in each (`stage_budget`); above 0.
        prompt_to_answer: as for `stage_budget`.
    """
    if not sizes or min(sizes.values()) <= 0 or stages < 1:
        raise UsageError("A pipeline needs at least one stage, and a size above 0 of at least one model.")
    if not 0 < passes < math.inf:
        raise UsageError(f"passes must be a number above 0, not {passes}.")
    least = min(sizes.values())
    roles = sorted(sizes, key=lambda role: sizes[role])

    def cost_of(layers: Layers) -> float:
        return sum(
            stage_budget(sizes[layer[0].model] / least, layer[0].samples, prompt_to_answer=prompt_to_answer)
            for layer in layers
        )

    def layers_at(point: Point) -> Layers | None:
        kinds = ("generator", *(["fuser"] * (stages - 1)))
        made = [
            [Component(type=kind, model=roles[model], samples=STAGE_SAMPLES[amount])]  # type: ignore[arg-type]  # two of them
            for kind, model, amount in zip(kinds, point[::2], point[1::2], strict=True)
        ]
        try:
            return checked(made)
        except UsageError:
            return None

    one = stage_budget(sizes[roles[-1]] / least, 1, prompt_to_answer=prompt_to_answer)
    further = 2 * sizes[roles[-1]] / least / prompt_to_answer  # what each sample after the first costs
    most = stages * (one + (passes - 1) * further)
    axes = (len(roles), len(STAGE_SAMPLES)) * stages
    pairs = tuple((2 * place, 2 * place + 1) for place in range(stages))
    return _space(axes, layers_at, cost_of, most, pairs, (tuple(roles), STAGE_SAMPLES) * stages)


def _space(
    sizes: tuple[int, ...],
    layers_at: Callable[[Point], Layers | None],
    cost_of: Callable[[Layers], float],
    most: float,
    stages: tuple[tuple[int, int], ...] = (),
    values: tuple[tuple[Any, ...], ...] = (),
) -> ArchitectureSpace:
    """The points whose layers keep the rules and the budget."""
    if math.prod(sizes) > _MOST_POINTS:
        raise UsageError(f"That makes more than {_MOST_POINTS:,} settings: take fewer stages.")
    made = {point: layers_at(point) for point in itertools.product(*map(range, sizes))}
    costs = {point: cost_of(layers) for point, layers in made.items() if layers is not None}
    layers = {point: made_of for point, made_of in made.items() if made_of is not None and costs[point] <= most + 1e-9}
    if not layers:
        raise UsageError(f"No architecture is within {most:g}: the least one needs {min(costs.values()):g}.")
    return ArchitectureSpace(
        space=SearchSpace(
            sizes=sizes,
            allowed=layers.__contains__,
            cost=costs.__getitem__,
            stages=stages,
            values=values,
            most=most,
        ),
        layers=layers,
    )
