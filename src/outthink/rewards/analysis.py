"""A judge that writes: an analysis of a step, programs that check it if wanted, and then the probability of Yes.

Source: Zhao et al., GenPRM: Scaling Test-Time Compute of Process Reward Models via Generative Reasoning (2025); the
authors' code was read, of the paper the abstract. Differs: this is not GenPRM, which is a trained model: any model
judges, by our prompts, without a system message. Its own earlier critiques are shown to it only where that is asked for
(`history`). Every program stands alone and runs in the sandbox. P(Yes) comes from a question of its own after the
analysis. A missing verdict is missing and not one half.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from outthink.answers.thoughts import spoken
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.rewards import Path
from outthink.rewards.judge import verdict, yes_probability
from outthink.together import each, together
from outthink.types import Candidate, Message, Problem

_STEP = "Question:\n{question}\n\nSolution so far:\n{before}\n\nNext step:\n{last}\n\n{task}"
_FIRST = "Question:\n{question}\n\nA solution follows, step by step."
_NEXT = "Next step:\n{last}"
_ANSWER = "Question:\n{question}\n\nProposed solution:\n{solution}\n\n{task}"
_ANALYSE = "Check it: write a short analysis."
_PROGRAM = (
    "Then write a short program that checks it and prints what it finds, complete in itself, in one ```python block, "
    "and stop there. You will be shown its output."
)
_OUTPUT = "Output of the program:\n{output}\n\n{task}"
_AGAIN = "Go on with the analysis. If it needs another program, write it in one ```python block and stop there."
_IS_STEP = "Is this step correct?"
_IS_ANSWER = "Is the final answer correct?"
_VERDICT = "{asked} End with one line: Verdict: Yes or Verdict: No"
_LABEL = "{asked} Reply with Yes or No only."
_BLOCK = re.compile(r"^```[ \t]*py[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_FENCE = "\n```\n"  # the end of a program
_TEMPERATURE = 0.6
_SHOWN = 1000  # characters of a program's output


@dataclass(frozen=True, kw_only=True)
class AnalysisScorer:
    """The mean of `votes` rewards in [0, 1], by the model in the role "judge", else the main model.

    A reward is P(Yes) / (P(Yes) + P(No)) after the analysis where the model can give the probability of a label, and
    else 1 or 0 by its written verdict.

    Args:
        process: judge the last step, given those before it, instead of a final answer.
        votes: analyses of each step (K); at least 1.
        pool: "mean" of their rewards, or the share of them that are at least 0.5 ("majority").
        code: most programs that one analysis may run, in the sandbox (3 in the paper's code); 0 is none.
        history: judge a step in one conversation with what was said about the steps before it, as GenPRM does: the user
            shows step t, the judge criticises it, and so on. Of several votes the first one with a verdict is kept, as
            in the authors' evaluation, and the others are forgotten; so an early mistake is carried on. The prompt only
            grows at its end, so an engine with a prefix cache reads it once; it is charged as it is read. False: the
            earlier steps are shown, without critiques.
        max_tokens: most tokens of one text of the judge (the paper's code allows 2,048); None: as many as for an
            answer.
    """

    process: bool = False
    votes: int = 1
    pool: Literal["mean", "majority"] = "mean"
    code: int = 0
    history: bool = False
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ValueError(f"votes must be at least 1, not {self.votes}")
        if self.code < 0:
            raise ValueError(f"code must be at least 0, not {self.code}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.history and not self.process:
            raise ValueError("history is of the steps before: use it as the PRM, or leave it out")

    @cached_property
    def _known(self) -> weakref.WeakKeyDictionary[Meter, dict[_Key, _Critique]]:
        """What was said, on each problem."""
        return weakref.WeakKeyDictionary()

    @property
    def score(self) -> Callable[..., Any]:
        """The coroutine function; it names the sandbox only where programs run."""
        return self._with_programs if self.code else self._without

    async def _without(
        self, problem: Problem, paths: Sequence[Path], *, models: Models, meter: Meter
    ) -> list[float | None]:
        return await self._rewards(problem, paths, models.role("judge"), None, meter)

    async def _with_programs(
        self, problem: Problem, paths: Sequence[Path], *, models: Models, meter: Meter, sandbox: MeteredSandbox
    ) -> list[float | None]:
        return await self._rewards(problem, paths, models.role("judge"), sandbox, meter)

    async def _rewards(
        self, problem: Problem, paths: Sequence[Path], judge: Model, sandbox: MeteredSandbox | None, meter: Meter
    ) -> list[float | None]:
        judge = judge.lane(*paths[0][-1].address)
        if self.history:
            return await self._in_turn(problem, paths, judge, sandbox, self._known.setdefault(meter, {}))
        at_once = _at_once(judge, sandbox)
        openings = await each(lambda path: (Message(content=self._prompt(problem, path, at_once)),), paths)
        critiques = await self._critiques(problem, openings, [path[-1] for path in paths], judge, sandbox)
        return [None if critique is None else critique.reward for critique in critiques]

    async def _in_turn(
        self,
        problem: Problem,
        paths: Sequence[Path],
        judge: Model,
        sandbox: MeteredSandbox | None,
        known: dict[_Key, _Critique],
    ) -> list[float | None]:
        """Step by step: those of all paths at one depth are one batch, and each sees what was said of those before."""
        asked, at_once = await each(_key, paths), _at_once(judge, sandbox)
        for depth in range(1, max(map(len, paths)) + 1):
            new = {_key(path[:depth]): path[:depth] for path in paths if len(path) >= depth}
            new = {key: path for key, path in new.items() if key not in known}
            if not new:
                continue
            openings = await each(lambda path: self._opening(problem, path, known, at_once), new.values())
            try:
                about = [path[-1] for path in new.values()]
                critiques = await self._critiques(problem, openings, about, judge, sandbox)
            except (BudgetExhausted, NothingCameBack, PromptTooLong):
                if not any(key in known for key in asked):
                    raise
                break
            known.update((key, said) for key, said in zip(new, critiques, strict=True) if said is not None)
        return [known[key].reward if key in known else None for key in asked]

    def _opening(
        self, problem: Problem, path: Path, known: dict[_Key, _Critique], at_once: bool
    ) -> tuple[Message, ...]:
        """The conversation so far and the next step; one of which nothing was said is shown with the one behind it."""
        talk: tuple[Message, ...] = ()
        shown: list[str] = [_FIRST.format(question=problem.question)]
        for depth, step in enumerate(path, 1):
            shown.append(_NEXT.format(last=step.text))
            if depth < len(path) and (said := known.get(_key(path[:depth]))) is not None:
                talk, shown = said.talk, []
        return (*talk, Message(content="\n\n".join([*shown, self._task(at_once)])))

    async def _critiques(
        self,
        problem: Problem,
        openings: Sequence[tuple[Message, ...]],
        about: Sequence[Candidate],
        judge: Model,
        sandbox: MeteredSandbox | None,
    ) -> list[_Critique | None]:
        """One batch of analyses, one for every round of programs and more analysis, and one of verdicts."""
        at_once = _at_once(judge, sandbox)
        draws = [self._draw(talk, (step,), n=self.votes) for talk, step in zip(openings, about, strict=True)]
        drawn = await judge.sample_fitting(problem, draws)
        analyses = [
            _Analysis(place=place, judged=about[place], talk=openings[place], said=said)
            for place, samples in enumerate(drawn)
            for said in samples
        ]
        if at_once:
            rewards = await each(lambda analysis: _written(analysis.said), analyses)
        else:
            if sandbox is not None:
                for left in reversed(range(self.code)):
                    await self._check(judge, problem, analyses, sandbox, left)
            rewards = await self._verdicts(judge, problem, analyses)
        of_place: list[list[tuple[_Analysis, float]]] = [[] for _ in openings]
        for analysis, reward in zip(analyses, rewards, strict=True):
            if reward is not None:
                of_place[analysis.place].append((analysis, reward))
        asked = self._ask(_VERDICT)

        def critique(said: Sequence[tuple[_Analysis, float]]) -> _Critique | None:
            if not said:
                return None
            analysis, reward = said[0]
            return _Critique(
                reward=pooled([reward for _, reward in said], self.pool), talk=analysis.closed(reward, asked, at_once)
            )

        return await each(critique, of_place)

    def _prompt(self, problem: Problem, path: Path, at_once: bool) -> str:
        before = "".join(step.text for step in path[:-1])
        task = self._task(at_once)
        if self.process:
            return _STEP.format(question=problem.question, before=before or "(nothing)", last=path[-1].text, task=task)
        return _ANSWER.format(question=problem.question, solution=before + path[-1].text, task=task)

    def _task(self, at_once: bool) -> str:
        return " ".join([_ANALYSE, *([_PROGRAM] if self.code else []), *([self._ask(_VERDICT)] if at_once else [])])

    def _ask(self, how: str) -> str:
        return how.format(asked=_IS_STEP if self.process else _IS_ANSWER)

    def _draw(self, talk: tuple[Message, ...], about: tuple[Candidate, ...], n: int = 1, stop: bool = True) -> Draw:
        return Draw(
            n=n,
            messages=talk,
            parents=about,
            stop=(_FENCE,) if stop and self.code else (),
            temperature=_TEMPERATURE,
            max_tokens=self.max_tokens,
            aside=True,
        )

    async def _check(
        self, judge: Model, problem: Problem, analyses: Sequence[_Analysis], sandbox: MeteredSandbox, left: int
    ) -> None:
        """Run the programs that were just written; where more may follow, let the judge go on with their output."""
        programs = await each(lambda analysis: None if analysis.output else analysis.program, analyses)
        written = [one for one, program in zip(analyses, programs, strict=True) if program is not None]
        outputs = await together(*(_output(sandbox, analysis) for analysis in written))
        for analysis, output in zip(written, outputs, strict=True):
            analysis.output = output
        if not left or not written:
            return
        draws = await each(
            lambda analysis: self._draw(analysis.answered(_AGAIN), (analysis.judged, analysis.said)), written
        )
        try:
            drawn = await judge.sample_fitting(problem, draws)
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            return  # the verdict follows what there is
        for analysis, draw, samples in zip(written, draws, drawn, strict=True):
            for said in samples:
                assert draw.messages is not None
                analysis.talk, analysis.said, analysis.output = draw.messages, said, ""

    async def _verdicts(self, judge: Model, problem: Problem, analyses: Sequence[_Analysis]) -> list[float | None]:
        if "labels" in judge.powers:
            prompts = await each(lambda analysis: analysis.answered(self._ask(_LABEL)), analyses)
            pairs = await judge.labels(problem, prompts, ("Yes", "No"))
            return [None if logprobs is None else yes_probability(*logprobs) for logprobs in pairs]
        draws = await each(
            lambda analysis: self._draw(
                analysis.answered(self._ask(_VERDICT)), (analysis.judged, analysis.said), stop=False
            ),
            analyses,
        )
        drawn = await judge.sample_fitting(problem, draws)
        return await each(lambda samples: _written(samples[0]) if samples else None, drawn)


def pooled(rewards: Sequence[float], pool: Literal["mean", "majority"]) -> float:
    """One reward of several: their mean, or the share of those that are at least 0.5."""
    values = rewards if pool == "mean" else [float(reward >= 0.5) for reward in rewards]
    return math.fsum(values) / len(values)


@dataclass(slots=True)
class _Analysis:
    """What the judge has said about a path.

    Args:
        place: of the path.
        judged: its last step.
        talk: the conversation before what the judge said last.
        output: of the program in that; empty where it has not been run.
    """

    place: int
    judged: Candidate
    talk: tuple[Message, ...]
    said: Candidate
    output: str = ""

    @property
    def program(self) -> str | None:
        """The first program that it has written last; what follows it was written without its output."""
        block = _BLOCK.search(spoken(self.said.text))
        return block and block[1]

    def answered(self, task: str) -> tuple[Message, ...]:
        """The conversation, with the output of the program where it was run, and what is to be done now."""
        text = spoken(self.said.text)
        block = _BLOCK.search(text)
        if self.output and block:
            text, task = text[: block.end()], _OUTPUT.format(output=self.output, task=task)
        return (*self.talk, Message(role="assistant", content=text), Message(content=task))

    def closed(self, reward: float, asked: str, at_once: bool) -> tuple[Message, ...]:
        """The conversation with all that was said; it ends with the verdict, also where that is a label's."""
        word = f"Verdict: {'Yes' if reward >= 0.5 else 'No'}"
        if at_once:
            return (*self.talk, Message(role="assistant", content=spoken(self.said.text)))
        if self.output and self.program is not None:
            return (*self.answered(asked), Message(role="assistant", content=word))
        text = f"{spoken(self.said.text).rstrip()}\n\n{word}"
        return (*self.talk, Message(role="assistant", content=text))


_Key = tuple[Any, ...]
"""The lane of a path, and the texts of its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Critique:
    """What was said about a step.

    Args:
        reward: of all votes.
        talk: the conversation up to it, of the first of them.
    """

    reward: float
    talk: tuple[Message, ...]


def _key(path: Path) -> _Key:
    return (path[-1].address[:-2], *(step.text for step in path))


def _at_once(judge: Model, sandbox: MeteredSandbox | None) -> bool:
    """Whether the verdict ends the analysis, without a question of its own."""
    return sandbox is None and "labels" not in judge.powers


async def _output(sandbox: MeteredSandbox, analysis: _Analysis) -> str:
    """What a program has written, or why it has not."""
    try:
        ran = await sandbox.run(f"{analysis.program}\n", lane=analysis.said.address)
    except EngineError:  # of the sandbox itself
        ran = None
    if ran is None:
        return "(it could not be run)"
    shown = ran.stdout.strip()[:_SHOWN] or "(none)"
    return shown if ran.error is None else f"{shown}\n{ran.error[:_SHOWN]}"


def _written(said: Candidate) -> float | None:
    """The verdict of a text that ended by itself; programs in it are no verdicts."""
    word = verdict(_BLOCK.sub("", said.text), ("Yes", "No")) if said.finish == "eos" else None
    return None if word is None else float(word == "Yes")
