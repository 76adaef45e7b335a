"""Path summary: independent thoughts side by side, then one call that reads them all and writes the answer.

Source: the prompted form of Wen et al., ParaThinker (2025), whose abstract, repository and a note were read; that one
trains the model and shares the cache of all paths with the summary, so this has another name. Prompts are ours.
Differs: paths are cut in steps of `piece` tokens, so that speed decides nothing; nothing is summarised where all paths
have ended with one answer, or where there is one path.

Pays: where the model can tell good reasoning from bad when it reads; the summary reads all paths, which fusion of
answers does not. A 0.5B model cannot (docs/results/selection.md); numbers of the source are for trained models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from outthink.errors import BudgetExhausted, EngineError, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.strategies import Report, checks
from outthink.strategies.choosing import by_majority
from outthink.strategies.collective.threads import Thread
from outthink.together import each
from outthink.types import Candidate, Message, Problem

_SUMMARY = (
    "Here are {n} attempts at the problem below, written independently of each other:\n\n{paths}\n\n"
    "Compare them step by step and settle where they disagree. Then answer the problem in the form that it asks for:"
    "\n\n{task}"
)
_CUT = " (incomplete)"
_LETTERS = 96_000  # of all paths together that are shown, at most
_LEAST = 100  # letters of a path, below which showing it says nothing


def summary_prompt(problem: Problem, paths: Sequence[str], ended: Sequence[bool], keep: int) -> tuple[Message, ...]:
    """The problem's messages with the last `keep` letters of each path, in order, before the last one's text."""
    *before, last = problem.messages
    listed = "\n\n".join(
        f"Path {number}{'' if whole else _CUT}:\n{text.strip()[-keep:]}"
        for number, (text, whole) in enumerate(zip(paths, ended, strict=True), 1)
    )
    return (*before, replace(last, content=_SUMMARY.format(task=last.text, n=len(paths), paths=listed)))


@dataclass(frozen=True, kw_only=True)
class PathSummary:
    """n paths, then a summary by the model in the role "summarizer", else by the main model.

    Args:
        n: paths, written side by side; at least 1. One path is its own answer.
        finish: when so many paths have ended the others are cut where they are: 1 is first finish; 0: all go on to
            their end. Needs a model that can go on with a text.
        max_path: most tokens of a path; None: `max_tokens`.
        piece: tokens after which it is looked at which paths have ended.
        temperature: of the summary; at least 0.
    """

    n: int = 8
    finish: int = 0
    max_path: int | None = None
    piece: int = 128
    temperature: float = 0.0

    def __post_init__(self) -> None:
        checks.check(self, at_least_one=("n", "piece"), at_least_zero=("finish", "temperature"))
        if self.max_path is not None and self.max_path < 1:
            raise ValueError(f"max_path must be at least 1, not {self.max_path}")
        if self.finish > self.n:
            raise ValueError(f"finish must be at most n ({self.n}), not {self.finish}")

    @property
    def powers(self) -> frozenset[str]:
        """What the model must be able to do."""
        return frozenset({"prefix"} if self.finish else ())

    @property
    def at_once(self) -> int:
        """All paths."""
        return self.n

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn."""
        return () if self.finish else (Draw(n=self.n, max_tokens=self.max_path),)

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """The vote of the paths is reported first, and stands where no summary comes."""
        if self.finish and self.n > 1:
            ends = await self._raced(problem, model)
        else:
            ends = await model.sample(problem, self.n, max_tokens=self.max_path)
        chosen, share = by_majority(ends)
        report(ends, chosen=chosen, confidence=share)
        lengths = await each(lambda end: sum(part.tokens for part in model.path(end)), ends)
        summary = None
        agreed = all(end.complete for end in ends) and len({end.key for end in ends}) == 1 and ends[0].key is not None
        if self.n > 1 and not agreed:
            summary = await self._summary(problem, ends, model, models.role("summarizer"))
        if summary is not None:
            alike = sum(end.key == summary.key for end in ends) / len(ends)
            valid = summary.key is not None
            report([summary, *ends], chosen=summary if valid else chosen, confidence=alike if valid else share)
        written = Thread(
            tokens=0 if summary is None else summary.tokens,
            rounds=(tuple(Thread(tokens=length) for length in lengths),),
        )
        meter.notes.append(written.note())

    async def _raced(self, problem: Problem, model: Model) -> list[Candidate]:
        """The paths as they stand when enough of them have ended; all grow by a piece at a time."""
        left = (self.max_path or model.sampling.cap) - min(self.piece, self.max_path or model.sampling.cap)
        first = min(self.piece, self.max_path or model.sampling.cap)
        ends = await model.sample(problem, self.n, max_tokens=first)
        while left > 0 and sum(end.finish == "eos" for end in ends) < self.finish:
            going = [place for place, end in enumerate(ends) if end.finish == "length"]
            piece = min(self.piece, left)
            left -= piece
            draws = [Draw(after=ends[place], max_tokens=piece, lane=("path", place)) for place in going]
            if not draws:
                break
            try:
                drawn = await model.sample_fitting(problem, draws)
            except (BudgetExhausted, EngineError, PromptTooLong):
                break
            for place, children in zip(going, drawn, strict=True):
                ends[place] = children[0] if children else ends[place]
            if not any(drawn):
                break
        return ends

    async def _summary(
        self, problem: Problem, ends: Sequence[Candidate], model: Model, summarizer: Model
    ) -> Candidate | None:
        """One answer from all paths; where they do not fit, from the last part of each; None where none comes."""
        texts, ended = await each(model.text, ends), [end.finish == "eos" for end in ends]
        keep = _LETTERS // len(ends)
        while keep >= min(_LEAST, _LETTERS // len(ends)):
            messages = summary_prompt(problem, texts, ended, keep)
            draw = Draw(messages=messages, parents=tuple(ends), temperature=self.temperature)
            try:
                return (await summarizer.sample_each(problem, [draw]))[0][0]
            except PromptTooLong:
                keep = min(keep, max(map(len, texts))) // 2
            except (BudgetExhausted, EngineError):
                return None
        return None
