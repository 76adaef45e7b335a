"""A small model with `auto` against a larger one, greedy and by self-consistency, at equal FLOPs and equal eFLOPs.

    python benchmarks/exchange.py SMALL.jsonl LARGE.jsonl --small MODEL --large MODEL [--greedy RUN] [--run RUN]
        [--scores RUN] [--answer math]

The pools hold samples of the same questions by both models; --greedy is a run of the larger one at temperature 0, --run
another strategy of the small one (such as codet), --scores its verifier. What the larger one costs sets the budgets;
`auto` is fitted on the other folds for each of them. Attention reads the prompt's keys and values once for each sample;
parameters are taken to be read for a large batch. Intervals are 90%, over questions, paired.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from outthink.cost.kinetics import INTENSITIES, recorded
from outthink.cost.shapes import read_shape
from outthink.maths.intervals import mean_and_interval
from outthink.models import catalog
from outthink.models.engine import EngineSpec, Shape
from outthink.planner.cases import Material, RecordedRun, Side
from outthink.planner.evidence import Floats
from outthink.planner.fixed import families
from outthink.planner.recordings import read
from outthink.planner.trust import LEVEL
from outthink.planner.validate import validate
from outthink.records.runs import read_results


def eflops(side: Side, prompt: Floats, shape: Shape, intensity: float) -> Side:
    """The same samples, costing eFLOPs."""
    each = recorded(shape, prompt[:, None], side.tokens[..., None]).eflops(intensity)
    reading = recorded(shape, prompt[:, None], np.zeros((*side.tokens.shape, 1))).eflops(0.0)
    return replace(side, first=each, later=each - reading)


def row(name: str, cost: float, credit: Floats, baseline: Floats) -> str:
    accuracy, low, high = mean_and_interval(credit, level=LEVEL)
    difference, least, most = mean_and_interval(credit - baseline, least=-1.0, level=LEVEL)
    return (
        f"| {name} | {cost:.3g} | {100 * accuracy:.1f}% ({100 * low:.1f} to {100 * high:.1f}) | "
        f"{100 * difference:+.1f} ({100 * least:+.1f} to {100 * most:+.1f}) |"
    )


def compare(small: Material, large: Material, greedy: tuple[Floats, Floats] | None, unit: str) -> None:
    vote = next(family for family in families(large) if family.name == "self_consistency")
    points = [
        (setting, float(vote.cost[..., place].mean()), vote.credit[..., place].mean(1))
        for place, setting in enumerate(vote.settings)
    ]
    if greedy is not None:
        points.insert(0, ("greedy", float(greedy[1].mean()), greedy[0]))
    validation = validate(small, [cost for _, cost, _ in points])
    own = next(family for family in validation.families if family.name == "self_consistency")
    print(f"\nEqual {unit}, {len(small.ids)} questions\n")
    print("| what | mean cost | right (90%) | less the larger model (90%) |\n| --- | --- | --- | --- |")
    for (setting, cost, credit), point in zip(points, validation.points, strict=True):
        print(row(f"larger: {setting}", cost, credit, credit))
        print(row("small: auto", float(point.cost.mean()), point.credit, credit))
        alone = own.at(cost)
        if alone is not None:
            print(row("small: self_consistency", min(cost, float(own.cost.mean((0, 1))[-1])), alone, credit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", type=Path, nargs=2)
    for name in ("--small", "--large"):
        parser.add_argument(name, required=True)
    for name in ("--greedy", "--run", "--scores"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--answer", default="text")
    given = parser.parse_args()
    shapes = {}
    for role, name in (("small", given.small), ("large", given.large)):
        file = catalog.path(name)
        assert file is not None, f"outthink models pull {name}"
        shapes[role] = read_shape(file)
    runs = [] if given.run is None else [given.run]

    def specs(role: str) -> dict[str, EngineSpec]:
        return {"model": EngineSpec(name=getattr(given, role), shape=shapes[role])}

    options = {"unit": "flops", "answer": given.answer}
    small = read([given.pools[0], *runs], scores=given.scores, specs=specs("small"), **options).material
    large = read([given.pools[1]], specs=specs("large"), **options).material
    common = [name for name in small.ids if name in set(large.ids)]
    small = small.select(np.array([small.ids.index(name) for name in common]))
    large = large.select(np.array([large.ids.index(name) for name in common]))

    def run_of(folder: Path, shape: Shape, intensity: float | None) -> tuple[Floats, Floats]:
        credit, cost = {}, {}
        for result in read_results(folder):
            if result.trace is None:
                continue
            credit[result.problem] = float(result.credit or 0.0)
            if intensity is None:
                cost[result.problem] = result.trace.cost["flops"]
                continue
            usage = [call.charged for call in result.trace.calls if call.charged.tokens]
            lengths = [(call.prompt, [call.completion]) for call in usage]
            cost[result.problem] = sum(float(recorded(shape, *load).eflops(intensity)) for load in lengths)
        return np.array([credit[name] for name in common]), np.array([cost[name] for name in common])

    for intensity in (None, *INTENSITIES):
        one, other = small, large
        if intensity is not None:
            cost = run_of(given.run, shapes["small"], intensity)[1]
            recost = [RecordedRun(name=run.name, credit=run.credit, cost=cost)
                      for run in small.runs]  # fmt: skip
            one = replace(
                small, model=eflops(small.model, small.prompt, shapes["small"], intensity), runs=tuple(recost)
            )
            other = replace(large, model=eflops(large.model, large.prompt, shapes["large"], intensity))
        greedy = None if given.greedy is None else run_of(given.greedy, shapes["large"], intensity)
        compare(one, other, greedy, "FLOPs" if intensity is None else f"eFLOPs at {intensity:g} FLOPs a byte")


if __name__ == "__main__":
    main()
