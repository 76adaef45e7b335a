"""A model asked whether a solution is right: how likely its next word is Yes and not No, or how often it writes Yes.

Source: the probability of Yes as in Kadavath et al. (2022), P(True), and Zhang et al. (2024), GenRM; votes over written
checks as in GenRM and in Zhao et al. (2025), GenPRM, from notes on the papers; thinking longer as in J1: Exploring
Simple Test-Time Scaling for LLM-as-a-Judge (2025), abstract read, the mechanism from memory. Prompts are ours. Differs:
both labels are scored, and Yes is normalised by their sum; a check that was cut off or has no verdict is dropped, not
one half; the judge is not trained to think longer, as J1 is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, MissingResource, NothingCameBack, PromptTooLong
from outthink.model import Draw, Model, Models
from outthink.rewards import Path
from outthink.together import each, together
from outthink.types import Candidate, Message, Problem

T = TypeVar("T")

_ANSWER = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\n"
    "Check the solution. Is its final answer correct? {reply}"
)
_STEPS = (
    "Question:\n{question}\n\nBeginning of a solution:\n{solution}\n\n"
    "Check the last step. Is everything correct so far? {reply}"
)
_LABEL = "Reply with Yes or No only."
_WRITE = "First go through it step by step, in a few sentences. Then end with one line: Verdict: Yes or Verdict: No"
_WAIT = "\n\nWait, let me check that again.\n\n"
_TEMPERATURE = 0.6  # that of GenPRM; at 0 all votes would be one vote
_MARKS = r"(?:[^\w\n]|_)*"  # Markdown, colons, quotes, full stops


@dataclass(frozen=True)
class Judge:
    """The share of Yes, in [0, 1], by the model in the role "judge", else the main model.

    Args:
        process: judge an unfinished solution so far, instead of a final answer.
        votes: written checks of each solution, whose verdicts are counted; 0 takes P(Yes) / (P(Yes) + P(No)) without
            writing, where the model can give the probability of a label, and else one written check.
        waits: how often a written check that has ended is made to go on, by a "Wait"; its last verdict counts, so that
            right ones can turn wrong, too. 0 leaves checks as they are.
    """

    process: bool = False
    votes: int = 0
    waits: int = 0

    def __post_init__(self) -> None:
        for name in ("votes", "waits"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")

    async def score(self, problem: Problem, paths: Sequence[Path], *, models: Models) -> list[float | None]:
        """One score per path, all in one batch; reading a path costs its length as prompt tokens."""
        judge = models.role("judge")
        if self.waits and "prefix" not in judge.powers:
            raise MissingResource(f"{judge.name} cannot go on with a text, so that it cannot be made to wait: waits=0.")
        if self.votes == 0 and self.waits == 0 and "labels" in judge.powers:
            prompts = await each(lambda path: (Message(content=self._prompt(problem, path, _LABEL)),), paths)
            lanes = [path[-1].address for path in paths]
            pairs = await judge.labels(problem, prompts, ("Yes", "No"), lanes)
            return [None if logprobs is None else yes_probability(*logprobs) for logprobs in pairs]
        checks = await each(lambda path: self._prompt(problem, path, _WRITE), paths)
        judged = [path[-1:] for path in paths]
        said = await verdicts(judge, problem, checks, judged, ("Yes", "No"), max(self.votes, 1), self.waits)
        return [votes.count("Yes") / len(votes) if votes else None for votes in said]

    def _prompt(self, problem: Problem, path: Path, reply: str) -> str:
        solution = "".join(segment.text for segment in path)
        return (_STEPS if self.process else _ANSWER).format(question=problem.question, solution=solution, reply=reply)


def yes_probability(yes: float, no: float) -> float:
    """The share of Yes in the mass of both labels, from their logprobs."""
    return 1.0 / (1.0 + math.exp(min(no - yes, 700.0)))


async def verdicts(
    judge: Model,
    problem: Problem,
    prompts: Sequence[str],
    judged: Sequence[tuple[Candidate, ...]],
    words: tuple[str, str],
    votes: int,
    waits: int = 0,
) -> list[list[str]]:
    """The verdicts of `votes` written checks for each prompt, all of them one batch; some or all may be missing.

    Args:
        judged, votes: as for `written`.
        words: the two verdicts there are.
        waits: how often each check is made to go on.

    Raises as `Model.sample`.
    """
    drawn = await written(judge, problem, prompts, judged, votes)
    for _ in range(waits):
        drawn = await _gone_on(judge.lane(*judged[0][0].address), problem, prompts, judged, drawn)
    whole = [(place, sample) for place, samples in enumerate(drawn) for sample in samples if sample.finish == "eos"]
    by_prompt: list[list[str]] = [[] for _ in prompts]
    for (place, _), word in zip(whole, await each(lambda one: verdict(judge.text(one[1]), words), whole), strict=True):
        if word is not None:
            by_prompt[place].append(word)
    return by_prompt


async def _gone_on(
    lane: Model,
    problem: Problem,
    prompts: Sequence[str],
    judged: Sequence[tuple[Candidate, ...]],
    drawn: Sequence[Sequence[Candidate]],
) -> list[list[Candidate]]:
    """The checks, each continued where it had ended and its continuation ends too; else as it was."""
    checks = [list(samples) for samples in drawn]
    places = [
        (at, number) for at, samples in enumerate(checks) for number, said in enumerate(samples) if said.finish == "eos"
    ]
    puts = await together(*(lane.inject(checks[at][number], _WAIT) for at, number in places))
    draws = [
        Draw(
            messages=(Message(content=prompts[at]),),
            after=put,
            parents=judged[at],
            temperature=0.0 if len(checks[at]) == 1 else _TEMPERATURE,
            aside=True,
        )
        for (at, _), put in zip(places, puts, strict=True)
    ]
    try:
        further = await lane.sample_each(problem, draws) if draws else []
    except (BudgetExhausted, NothingCameBack, PromptTooLong):
        return checks
    for (at, number), children in zip(places, further, strict=True):
        if children and children[0].finish == "eos":
            checks[at][number] = children[0]
    return checks


async def written(
    judge: Model,
    problem: Problem,
    prompts: Sequence[str],
    judged: Sequence[tuple[Candidate, ...]],
    votes: int = 1,
    *,
    temperature: float | None = None,
) -> list[list[Candidate]]:
    """Up to `votes` texts for each prompt, all of them one batch.

    Where a prompt does not fit the judge's context the longest are left out, so that it does not cost the others.

    Args:
        judged: the candidates that each prompt is about; the first one names the batch.
        temperature: None: 0 for a single text, else 0.6.

    Raises as `Model.sample`.
    """
    lane = judge.lane(*judged[0][0].address)
    if temperature is None:
        temperature = _TEMPERATURE if votes > 1 else 0.0
    left = list(range(len(prompts)))
    while True:
        draws = [
            Draw(
                n=votes,
                messages=(Message(content=prompts[at]),),
                parents=judged[at],
                temperature=temperature,
                aside=True,
            )
            for at in left
        ]
        try:
            drawn = await lane.sample_each(problem, draws)
            break
        except PromptTooLong:
            if len(left) == 1:
                raise
            left.remove(max(left, key=lambda at: len(prompts[at])))
    by_prompt: list[list[Candidate]] = [[] for _ in prompts]
    for at, samples in zip(left, drawn, strict=True):
        by_prompt[at] = samples
    return by_prompt


async def read_once(
    judge: Model,
    problem: Problem,
    prompts: Sequence[str],
    judged: Sequence[tuple[Candidate, ...]],
    read: Callable[[str], T | None],
) -> list[T | None]:
    """What `read` makes of what one text says for each prompt, all of them one batch; None where that is nothing.

    Where it makes nothing of a text, that prompt is sent a second time, at temperature 0.6.

    Args:
        judged: as for `written`.

    Raises as `Model.sample` where nothing came back the first time.
    """

    def reading_of(texts: Sequence[Candidate]) -> T | None:
        return read(spoken(texts[0].text)) if texts and texts[0].finish == "eos" else None

    said = await each(reading_of, await written(judge, problem, prompts, judged))
    left = [place for place, reading in enumerate(said) if reading is None]
    if left:
        try:
            again = [prompts[place] for place in left], [judged[place] for place in left]
            drawn = await written(judge, problem, *again, temperature=_TEMPERATURE)
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            return said
        for place, reading in zip(left, await each(reading_of, drawn), strict=True):
            said[place] = reading
    return said


def verdict(text: str, words: tuple[str, str]) -> str | None:
    """The word of the last line that is a verdict and nothing else, in any case and Markdown; None without one.

    What is thought is no verdict.
    """
    line = rf"^{_MARKS}verdict{_MARKS}({'|'.join(words)}){_MARKS}$"
    named = re.findall(line, spoken(text), re.IGNORECASE | re.MULTILINE)
    return next((word for word in words if named and word.lower() == named[-1].lower()), None)
