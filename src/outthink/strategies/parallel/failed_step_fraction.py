"""Failed-step fraction: a judge draws each trace as a graph, and that with the fewest abandoned ones wins.

Source: What Characterizes Effective Reasoning? Revisiting Length, Review, and Structure of CoT; abstract, an analysis
and reviews of it were read, its prompts were not. Differs: the prompt is ours and does not show the question; a graph
that is not one trace with one end is asked for again and then left out; a missing fraction ranks last; nothing is
asked where all answers are equal.

Pays: for long visible reasoning and a judge that reads well. A 0.5B judge never wrote a graph that could be read
(docs/results/selection.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from outthink.model import Model, Models
from outthink.rewards.judge import written
from outthink.strategies import Report
from outthink.strategies.choosing import by_best, by_majority
from outthink.strategies.parallel.dot import Graph, read_dot
from outthink.together import each
from outthink.types import Problem

_PROMPT = (
    "Here is somebody's reasoning:\n\n{trace}\n\n"
    "Draw it as a directed graph of its steps in Graphviz DOT. Number the steps 1, 2, 3 and so on in the order of the "
    "text. For every step write one line\n"
    'NUMBER [label="what it does, in a few words", status=STATUS]\n'
    "and for every step but the first one line with the step that it continues or branches off from\n"
    "NUMBER -> NUMBER\n"
    "STATUS is final for the one step that gives the final answer, failed for every step of a branch that was "
    "abandoned before it, and ok for all others. Do not judge whether the reasoning is right, only what was abandoned. "
    "Reply with one digraph and nothing else."
)
_NUMBER = re.compile(r"\D*(\d{1,6})")
_STATUSES = {"ok", "failed", "final"}


def failed_step_fraction(graph: str) -> float | None:
    """Failed steps / all steps of a graph in DOT, in [0, 1); None where it is not the graph of one trace.

    That graph has at least two steps, each with a status; every step but the first continues an earlier one (edges
    back to an earlier step, or to itself, are dropped); exactly one step is final, and steps that did not fail lead
    from the first one to it. Steps have the order of the numbers in their names, else that in which they are named.
    """
    drawn = read_dot(graph.rpartition("</think>")[2])
    if drawn is None:
        return None
    place = _places(drawn)
    status: dict[int, str] = {}
    for name, attributes in drawn.nodes.items():
        if "status" in attributes:
            status[place[name]] = attributes["status"].strip().lower()
    steps = sorted(set(place.values()))
    if len(steps) < 2 or len(status) < len(steps) or not set(status.values()) <= _STATUSES:
        return None
    before: dict[int, set[int]] = {step: set() for step in steps}
    for start, end in drawn.edges:
        if place[start] < place[end]:
            before[place[end]].add(place[start])
    ends = [step for step in steps if status[step] == "final"]
    first = steps[0]
    if len(ends) != 1 or any(not before[step] for step in steps if step != first):
        return None
    led = {first} if status[first] != "failed" else set()
    for step in steps:
        if status[step] != "failed" and before[step] & led:
            led.add(step)
    if ends[0] not in led:
        return None
    return list(status.values()).count("failed") / len(steps)


def _places(graph: Graph) -> dict[str, int]:
    """The place of each node among the steps; "S1" and "1" are one step, unless both of them have a status."""
    numbers = {name: _NUMBER.fullmatch(name) for name in graph.nodes}
    places = {name: int(number[1]) for name, number in numbers.items() if number is not None}
    described = [place for name, place in places.items() if "status" in graph.nodes[name]]
    if len(places) == len(graph.nodes) and len(set(described)) == len(described):
        return places
    return {name: place for place, name in enumerate(graph.nodes)}


@dataclass(frozen=True, kw_only=True)
class FailedStepFraction:
    """The sample with the lowest failed-step fraction, by the model in the role "judge", else by the main model.

    Args:
        n: samples drawn; at least 1. The paper uses 64.
        retries: how often a graph that cannot be read is asked for again.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    n: int = 8
    retries: int = 2

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, not {self.n}")
        if self.retries < 0:
            raise ValueError(f"retries must be at least 0, not {self.retries}")

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models) -> None:
        """The majority is reported first, then the best of the graphs so far; scores are 1 - the fraction."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        valid = [sample for sample in samples if sample.key is not None]
        if len({sample.key for sample in valid}) < 2:
            return
        # equal texts have one graph
        shown = {sample.text: sample for sample in reversed(valid)}
        asked = [sample for sample in valid if shown[sample.text] is sample]
        fractions: dict[str, float] = {}
        judge = models.role("judge")
        for attempt in range(1 + self.retries):
            left = [sample for sample in asked if sample.text not in fractions]
            if not left:
                return
            graphs = await written(
                judge,
                problem,
                [_PROMPT.format(trace=sample.text) for sample in left],
                [(sample,) for sample in left],
                temperature=judge.sampling.temperature if attempt else 0.0,  # 0 would say the same again
            )
            texts = [drawn[0].text if drawn and drawn[0].finish == "eos" else "" for drawn in graphs]
            for sample, fraction in zip(left, await each(failed_step_fraction, texts), strict=True):
                if fraction is not None:
                    fractions[sample.text] = fraction
            scores = [1 - fractions[sample.text] if sample.text in fractions else None for sample in samples]
            chosen, share = by_best(samples, scores)
            report(samples, chosen=chosen, scores=scores, confidence=share)
