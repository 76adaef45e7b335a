"""Debate: n agents answer, then read each other's answers and revise their own for some rounds; at last they vote.

Source: Revisiting Multi-Agent Debate as Test-Time Scaling (2505.22960), abstract, two summaries and reviews read; its
prompts were not. Differs: the prompts are ours; answers that cannot be read are not shown; a tie goes to the answer
with most votes over all rounds; an agent whose revision failed keeps its last answer.

Pays: where several models of about equal strength differ; at equal tokens the source finds no general gain over a
vote, since every agent reads all answers in every round. Nor was there one with a 0.5B model: on sums 9 points
below the vote, on HumanEval 10 (docs/results/selection.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outthink.errors import BudgetExhausted, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.parallel.hedged_sampling import share_of
from outthink.strategies.prompting import added, between, need_shown, said_by
from outthink.together import each, together
from outthink.types import Candidate, Message, Problem

_SHOWN = "Agents answered this question as follows in the last round; some of them may be wrong.\n\n{answers}\n\n"
_REVISE = (
    "Look for errors in these answers, and use what is right in them. Then solve the question yourself and write one "
    "complete updated answer of your own, which ends in the form asked for above. Do not repeat the agents' answers."
)
_OWN = "You are agent {number}. "


def debate_prompt(
    problem: Problem, shown: Mapping[int, str], *, persona: str = "", own: int | None = None
) -> tuple[Message, ...]:
    """The question, the answers of the agents by their numbers, and what to do; the persona, which differs, is last.

    Args:
        shown: what each agent said, by its number from 1; none: the first round.
        own: the number of the agent that is asked, where it is told which answer is its own.
    """
    if not shown:
        return added(problem, persona) if persona else problem.messages
    who = "" if own is None else _OWN.format(number=own)
    asked = f"{_SHOWN.format(answers=between('agent', shown))}{who}{_REVISE}"
    return added(problem, f"{asked} {persona}" if persona else asked)


def debate_vote(rounds: Sequence[Sequence[str | None]]) -> tuple[int, int] | None:
    """(round, agent), from 0, whose answer wins: the majority of the last round in which an answer is valid.

    A tie goes to the answer with most votes over all rounds up to then, then to that of the first agent.

    Args:
        rounds: the agents' answers in each round; None does not vote.
    """
    for last in range(len(rounds) - 1, -1, -1):
        votes = Counter(key for key in rounds[last] if key is not None)
        if votes:
            total = Counter(key for keys in rounds[: last + 1] for key in keys if key is not None)
            first = {key: agent for agent, key in reversed([*enumerate(rounds[last])])}
            best = max(votes, key=lambda key: (votes[key], total[key], -first[key]))
            return last, first[best]
    return None


@dataclass(frozen=True, kw_only=True)
class Debate:
    """n agents; agent i is the model in the role "agent<i>", from 1, where there is one, else the main model.

    Args:
        n: agents (N); at least 1.
        rounds: with the first one (R); 1 is self-consistency.
        personas: instructions of the agents, by turns; none: all are asked the same, so that each round has one prompt.
        share: what agents read of each other: "full" texts or the "answer" alone.
        read_own: show agents their own last answer among the others. Without, each gets a prompt of its own, and one
            that has no other answer to read is not asked again.
        mark_own: tell each agent which answer is its own.
        stop: end as soon as all answers that can be read are equal; so a single agent never reviews itself.
    """

    votes: ClassVar[bool] = True  # equal answers are what it goes by

    n: int = 4
    rounds: int = 2
    personas: tuple[str, ...] = ()
    share: Literal["full", "answer"] = "full"
    read_own: bool = True
    mark_own: bool = False
    stop: bool = True

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "rounds"))
        need_shown(self.n * self.n * (self.rounds - 1), f"{self.n} agents and {self.rounds} rounds")
        if self.mark_own and not self.read_own:
            raise ValueError("mark_own needs read_own: what is not shown cannot be marked")

    @property
    def first(self) -> tuple[Draw, ...]:
        """How its first samples are drawn; with personas each prompt is another one."""
        return () if self.personas else (Draw(n=self.n),)

    async def run(self, problem: Problem, report: Report, *, model: Model, models: Models, meter: Meter) -> None:
        """Reports the vote after every round, with the agents in their order."""
        roles = [f"agent{number}" for number in range(1, self.n + 1)]
        voices = [role if models.has(role) else "model" for role in roles]
        by_role = {role: model if role == "model" else models.role(role) for role in dict.fromkeys(voices)}
        # the first round is drawn as any samples are, so that what is there already can be used
        came = await self._asked(problem, by_role, voices, [*range(self.n)], {}, {})
        agents = sorted(came)
        table = [[came[agent] for agent in agents]]
        self._vote(report, table)
        for number in range(2, self.rounds + 1):
            last = dict(zip(agents, table[-1], strict=True))
            shown = {agent: one for agent, one in last.items() if one.key is not None}
            if self.stop and len({one.key for one in shown.values()}) == 1:
                meter.notes.append(f"all answers of round {number - 1} that can be read agree")
                return
            asked = [agent for agent in agents if shown.keys() - (set() if self.read_own else {agent})]
            if not asked:
                meter.notes.append(f"there is nothing to read in round {number}")
                return
            lanes = {role: voice.lane("round", number) for role, voice in by_role.items()}
            try:
                came = await self._asked(problem, lanes, voices, asked, shown, last)
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"the debate ends before round {number}: {failure}")
                return
            table.append([came.get(agent, last[agent]) for agent in agents])
            self._vote(report, table)

    async def _asked(
        self,
        problem: Problem,
        lanes: dict[str, Model],
        voices: Sequence[str],
        asked: Sequence[int],
        shown: dict[int, Candidate],
        last: dict[int, Candidate],
    ) -> dict[int, Candidate]:
        """What the agents that are asked say, by agent; some may be missing. Raises if nothing came from any."""
        said = await said_by([*shown.values()])
        told = {agent: said[one.id] if self.share == "full" else one.answer or "" for agent, one in shown.items()}
        groups: dict[str, dict[tuple[str, int | None], list[int]]] = {role: {} for role in lanes}
        for agent in asked:
            groups[voices[agent]].setdefault(self._told_apart(agent, told), []).append(agent)

        def draw(agents: Sequence[int]) -> Draw:
            messages = self._messages(problem, agents[0], told)
            read = tuple(one for number, one in shown.items() if self.read_own or number != agents[0])
            return Draw(n=len(agents), messages=messages, parents=read)

        async def hear(role: str) -> dict[int, Candidate] | BudgetExhausted | NothingCameBack | PromptTooLong:
            alike = [*groups[role].values()]
            try:
                drawn = await lanes[role].sample_each(problem, await each(draw, alike))
            except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
                return failure
            came: dict[int, Candidate] = {}
            for agents, samples in zip(alike, drawn, strict=True):
                # a round after the first has requests of its own, whose children are its agents
                places = [int(one.address[-1]) for one in samples] if last else range(len(samples))
                came |= {agents[place]: one for place, one in zip(places, samples, strict=True)}
            return came

        heard = await together(*(hear(role) for role, alike in groups.items() if alike))
        came = {agent: one for by_agent in heard if isinstance(by_agent, dict) for agent, one in by_agent.items()}
        if not came:
            raise next(failure for failure in heard if not isinstance(failure, dict))
        return came

    def _persona(self, agent: int) -> str:
        return self.personas[agent % len(self.personas)] if self.personas else ""

    def _told_apart(self, agent: int, told: dict[int, str]) -> tuple[str, int | None]:
        """Equal for agents that have the same prompt, which is made once and whose children they are."""
        alone = bool(told) and (self.mark_own or not self.read_own)
        return self._persona(agent), agent if alone else None

    def _messages(self, problem: Problem, agent: int, told: dict[int, str]) -> tuple[Message, ...] | None:
        """The prompt of an agent; None: the problem's own."""
        persona = self._persona(agent)
        if not told and not persona:
            return None
        others = {number + 1: text for number, text in told.items() if self.read_own or number != agent}
        own = agent + 1 if self.mark_own and told else None
        return debate_prompt(problem, others, persona=persona, own=own)

    def _vote(self, report: Report, table: Sequence[Sequence[Candidate]]) -> None:
        keys = [[one.key for one in agents] for agents in table]
        won = debate_vote(keys)
        if won is None:
            report(table[-1], chosen=None, generation=len(table))
            return
        round_number, agent = won
        best = table[round_number][agent]
        report(table[-1], chosen=best, confidence=share_of(best, table[round_number]), generation=len(table))
