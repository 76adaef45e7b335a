"""Failed-step fraction: a judge draws each trace as a graph, and that with the fewest abandoned steps wins.

Source: What Characterizes Effective Reasoning? Revisiting Length, Review, and Structure of CoT; abstract, an analysis
and reviews of it were read, its prompts were not. Differs: the prompt is ours and does not show the question; a graph
that is not one trace with one end is asked for again and then left out; a missing fraction ranks last; nothing is
asked where all answers are equal. Ours: the weighted vote; the proxy, which finds abandoned branches by the words that
open and reject them; abandoned branches are removed by the proxy and the trace is written on behind what is left.

Pays: for long visible reasoning and a judge that reads well. A 0.5B judge never wrote a graph that could be read
(docs/results/selection.md). The proxy needs a model that says when it gives up a way, as those that think do; short
answers have no such words, and then it is the majority.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rewards.judge import written
from outthink.strategies import Report, checks
from outthink.strategies.choosing import by_best, by_majority, by_weighted_vote
from outthink.strategies.parallel.dot import Graph, read_dot
from outthink.strategies.thinking import begin
from outthink.together import each
from outthink.types import Candidate, Problem

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
_OPENS = re.compile(
    r"[ \t]*(?:(?:but|so|hmm|wait|ok(?:ay)?|well)\b[^\w\n]*)*"
    r"(?:alternatively|another (?:approach|way|idea|method)|let(?:'s| me| us) try"
    r"|(?:let me|i(?:'ll| will)) start over)\b",
    re.IGNORECASE,
)
"""How a paragraph begins that opens a branch."""
_REJECTS = re.compile(
    r"\b(?:(?:this|that) (?:does not|doesn't|did not|didn't|will not|won't|cannot|can't) (?:work|be right|be correct)"
    r"|(?:this|that)(?:'s| is) (?:wrong|not right|not correct|incorrect|impossible|a dead end)|scrap (?:this|that)"
    r"|a contradiction|contradicts)\b",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n\s*\n")
_NUMBER = re.compile(r"\D*(\d{1,6})")
_STATUSES = {"ok", "failed", "final"}


def failed_step_fraction(graph: str) -> float | None:
    """Failed steps / all steps of a graph in DOT, in [0, 1); None where it is not the graph of one trace.

    That graph has at least two steps, each with a status; every step but the first continues an earlier one (edges
    back to an earlier step, or to itself, are dropped); exactly one step is final, and steps that did not fail lead
    from the first one to it. Steps have the order of the numbers in their names, else that in which they are named.
    """
    drawn = read_dot(spoken(graph))
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


def failed_branches(text: str) -> list[tuple[int, int]]:
    """Where the abandoned branches of a trace begin and end, in characters; found by its words, in linear time.

    A branch goes from a paragraph that opens it ("Alternatively, ...", "Let me try ...") to the next one that does, and
    has failed where a rejection ("This doesn't work", "a contradiction") stands in it. What comes before the first
    opening is a branch, too. The last one leads to the answer, so of it only what goes up to the paragraph that
    rejects it has failed.
    """
    paragraphs = [0, *(match.end() for match in _PARAGRAPH.finditer(text))]
    starts = [place for place in paragraphs if place == 0 or _OPENS.match(text, place)]
    failed = [(start, end) for start, end in itertools.pairwise(starts) if _REJECTS.search(text, start, end)]
    rejections = [match.end() for match in _REJECTS.finditer(text, starts[-1])]
    last = next((place for place in paragraphs if rejections and place >= rejections[-1]), None)
    return failed if last is None or last == len(text) else [*failed, (starts[-1], last)]


def proxy_fraction(text: str) -> float:
    """Characters in abandoned branches / all characters, in [0, 1)."""
    return sum(end - start for start, end in failed_branches(text)) / max(len(text), 1)


def pruned(text: str) -> str | None:
    """A trace up to the end of its last abandoned branch, without any of them; None where it has none."""
    failed = failed_branches(text)
    kept = [text[end:start] for (_, end), (start, _) in itertools.pairwise([(0, 0), *failed])]
    return "".join(kept) if failed else None


@dataclass(frozen=True, kw_only=True)
class FailedStepFraction:
    """The sample with the lowest failed-step fraction, or a vote weighted by it.

    Args:
        n: samples drawn; at least 1. The paper uses 64.
        signal: what tells the fraction: a "graph" by the model in the role "judge", else by the main model; or the
            "proxy" without any model: the share of characters in branches that the text itself rejects.
        selector: "best" takes the sample with the lowest fraction, of equals the shortest; "vote" gives each sample's
            answer the weight 1 - fraction.
        removal: write samples with abandoned branches, as the proxy finds them, anew from the end of the last of these,
            without them; the new ones take the place of the old. Needs a model that can go on with a text.
        retries: how often a graph that cannot be read is asked for again.
    """

    n: int = 8
    signal: Literal["graph", "proxy"] = "graph"
    selector: Literal["best", "vote"] = "best"
    removal: bool = False
    retries: int = 2

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("n",), at_least_zero=("retries",))

    @property
    def as_asked(self) -> bool:
        """Whether every answer is a sample of the problem's own messages."""
        return not self.removal

    @property
    def powers(self) -> frozenset[str]:
        """What the model must be able to do."""
        return frozenset({"prefix"} if self.removal else ())

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """The majority is reported first, then the choice by the fractions so far; scores are 1 - the fraction."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        if self.removal:
            samples = await self._regrown(problem, samples, model, meter)
            chosen, share = by_majority(samples)
            report(samples, chosen=chosen, confidence=share)
        whole = await each(model.text, samples)  # one that was written on begins with what was left of it
        if self.signal == "proxy":
            shares = await each(proxy_fraction, whole)
            self._choose(report, samples, [1 - share for share in shares])
            return
        if len({sample.key for sample in samples if sample.key is not None}) < 2:
            return
        # equal texts have one graph
        asked = {text: one for text, one in reversed([*zip(whole, samples, strict=True)]) if one.key is not None}
        fractions: dict[str, float] = {}
        judge = models.role("judge")
        for attempt in range(1 + self.retries):
            left = [text for text in reversed(asked) if text not in fractions]
            if not left:
                return
            graphs = await written(
                judge,
                problem,
                [_PROMPT.format(trace=text) for text in left],
                [(asked[text],) for text in left],
                temperature=judge.sampling.temperature if attempt else 0.0,  # 0 would say the same again
            )
            said = [drawn[0].text if drawn and drawn[0].finish == "eos" else "" for drawn in graphs]
            for text, fraction in zip(left, await each(failed_step_fraction, said), strict=True):
                if fraction is not None:
                    fractions[text] = fraction
            scores = [1 - fractions[text] if text in fractions else None for text in whole]
            self._choose(report, samples, scores)

    def _choose(self, report: Report, samples: Sequence[Candidate], scores: Sequence[float | None]) -> None:
        by_scores = by_best if self.selector == "best" else by_weighted_vote
        chosen, share = by_scores(samples, scores)
        report(samples, chosen=chosen, scores=scores, confidence=share)

    async def _regrown(
        self, problem: Problem, samples: Sequence[Candidate], model: Model, meter: Meter
    ) -> list[Candidate]:
        """The samples, those with abandoned branches written on without them; what failed stays as it was."""
        texts = await each(pruned, [sample.text for sample in samples])
        places = [place for place, text in enumerate(texts) if text is not None]
        draws = []
        for place in places:
            lane = ("model", "pruned", place)
            start = await begin(model, meter, texts[place] or "", lane, samples[place]) if texts[place] else None
            draws.append(Draw(after=start, parents=() if start else (samples[place],), lane=("regrown", place)))
        regrown = dict(enumerate(samples))
        if draws:
            with contextlib.suppress(BudgetExhausted, EngineError, PromptTooLong):
                drawn = await model.sample_fitting(problem, draws)
                regrown |= {place: children[0] for place, children in zip(places, drawn, strict=True) if children}
        return list(regrown.values())
