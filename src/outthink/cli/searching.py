"""The commands that search how several models work together: an architecture, a pipeline, or a graph."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from outthink.cli.given import task_name, writable_as
from outthink.cli.measuring import say_doubts
from outthink.cli.options import (
    AnswerOptions,
    BudgetOption,
    JsonOption,
    ModelOptions,
    ResourceOptions,
    SamplingOptions,
    StrategyOptions,
    TaskArgument,
    TaskOptions,
)
from outthink.cli.ordering import RunOrder, order_of
from outthink.cli.parsing import Command, Interrupted, group, takes_blocks
from outthink.cli.progress import Working
from outthink.cli.running import interruptible, opened_engines, opened_resources
from outthink.cli.shown import print_table
from outthink.errors import UsageError
from outthink.names import file_name
from outthink.reports.tables import text_table

if TYPE_CHECKING:
    from outthink.learn.architectures import ArchitectureSpace
    from outthink.learn.search import Propose
    from outthink.models.engine import Engine, Shape
    from outthink.reports.report import Summary
    from outthink.strategies.collective.answer_nodes import Nodes
    from outthink.strategies.collective.architecture import Layers
    from outthink.tasks.example import Example

AGENT = "agent"
"""The role of the model that proposes; it answers no question."""

_LONGEST = 80  # letters of the name of a folder before its digest
_PILOT = 10  # questions that each model answers alone before a search for a graph

search_app = group("Search how several models best work together.")

EvaluationsOption = Annotated[int, typer.Option(min=1, help="How many to try.")]
SizesOption = Annotated[
    str, typer.Option(help="Parameters of each model in billions, where they are not known: generator=0.5,large=7.")
]


@dataclass(frozen=True, kw_only=True)
class SearchedOptions:
    """What all searches are told."""

    block: ClassVar[bool] = True

    budget: BudgetOption = None
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The .toml file to write.")] = None
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs; what is in it is not run again.")] = None
    as_json: JsonOption = False


@dataclass
class Ledger:
    """What a search has spent, by its phases, whether it was paid for now or in an earlier run of the same command."""

    lines: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, phase: str, runs: int, cost: Mapping[str, float]) -> None:
        """So many runs, or calls of an agent, and what they cost together."""
        line = self.lines.setdefault(phase, {"runs": 0.0})
        units = {"tokens", "usd", "flops"} & cost.keys()
        for unit in [unit for unit in line if unit != "runs"] if line["runs"] else []:
            if unit not in units:
                del line[unit]  # it is not known of all
        for unit in sorted(units):
            if unit in line or not line["runs"]:
                line[unit] = line.get(unit, 0.0) + cost[unit]
        line["runs"] += runs

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each phase."""
        units = sorted({unit for line in self.lines.values() for unit in line} - {"runs"})
        return [
            (phase, f"{line['runs']:.0f}", *(f"{line[unit]:,.6g}" if unit in line else "" for unit in units))
            for phase, line in self.lines.items()
        ]

    def header(self) -> tuple[str, ...]:
        """Of the rows."""
        return ("spent on", "runs", *sorted({unit for line in self.lines.values() for unit in line} - {"runs"}))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs strategies on parts of the problems, each in a folder of its own, and keeps what they cost.

    Args:
        failures: why problems failed, of each run in which one did.
    """

    order: RunOrder
    folder: Path
    engines: Mapping[str, Engine]
    resources: Mapping[str, Any]
    stop: asyncio.Event
    ledger: Ledger
    seed: int
    failures: list[str] = field(default_factory=list)

    async def run(self, strategy: str, settings: Mapping[str, str], part: list[Example], phase: str) -> Summary:
        """Raises Interrupted where it was stopped before the end."""
        from outthink.records.runs import read_before, read_results
        from outthink.strategies.making import make_strategy

        chosen = make_strategy(strategy, settings)
        folder = self.folder / phase / _folder(",".join(settings.values()))
        engines = {role: engine for role, engine in self.engines.items() if role != AGENT}
        summary = await dataclasses.replace(self.order, chosen=chosen).carry_out(
            part,
            folder,
            engines,
            self.resources,
            on_progress=lambda standing: None,
            stop=self.stop,
        )
        if self.stop.is_set() or summary.attempts < summary.planned:
            raise Interrupted("Problems are left: the same command goes on with them.")
        lost = read_before(folder).lost  # to interruptions
        spent = {unit: amount * summary.attempts + lost.get(unit, 0.0) for unit, amount in summary.cost.items()}
        self.ledger.add(phase.partition("/")[0], summary.attempts, spent)
        if summary.errors:
            self.failures.append(next(result.error for result in read_results(folder) if result.error is not None))
        return summary

    @property
    def roles(self) -> list[str]:
        """Those whose models answer, as people call them."""
        from outthink.models.roles import GENERATOR, MAIN

        return [GENERATOR if role == MAIN else role for role in self.engines if role != AGENT]

    def engine(self, role: str) -> Engine:
        """Of a role, as people call it."""
        from outthink.models.roles import known_role

        return self.engines[known_role(role)]

    def talk(self) -> Any:
        """The agent: the model of its role, else the main one; its calls are in the ledger."""
        from outthink.learn.agents import talking
        from outthink.models.roles import MAIN

        def told(cost: Mapping[str, float]) -> None:
            self.ledger.add(AGENT, 1, cost)

        engine = self.engines.get(AGENT, self.engines[MAIN])
        return talking(engine, told, seed=self.seed, kept=self.folder / "agent.jsonl")


@search_app.command("archon", cls=Command)
@takes_blocks
def search_archon(
    context: typer.Context,
    task: TaskArgument,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    told: SearchedOptions,
    evaluations: EvaluationsOption = 20,
    by: Annotated[
        Literal["random", "tpe", "reinforce"], typer.Option(help="How the next one is chosen; tpe needs Optuna.")
    ] = "random",
    calls: Annotated[int, typer.Option(min=1, help="Most calls of an architecture on a problem.")] = 32,
) -> None:
    """Search layers of generators, critics, fusers and others.

    The search has one half of the problems; what it chooses is measured on the other. The models are those of --model
    and --role. `--strategy archon --config FILE` uses what is written.
    """
    from outthink.learn.architectures import archon_space
    from outthink.learn.proposing import proposer

    propose = proposer(by, drawn.seed)

    async def made(bench: Bench, validation: list[Example]) -> tuple[ArchitectureSpace, Propose]:
        return archon_space(await _ranked(bench, validation), most_calls=calls), propose

    order = order_of(context, task, StrategyOptions(strategy="archon", budget=told.budget), writer, helpers, asked,
                     drawn, taken)  # fmt: skip
    _layers_searched(order, told, "archon", by, evaluations, made)


@search_app.command("stages", cls=Command)
@takes_blocks
def search_stages(
    context: typer.Context,
    task: TaskArgument,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    told: SearchedOptions,
    sizes: SizesOption = "",
    evaluations: EvaluationsOption = 20,
    by: Annotated[
        Literal["random", "tpe", "reinforce", "insights", "agent"],
        typer.Option(help="How the next one is chosen; tpe needs Optuna, agent asks the model of the role agent."),
    ] = "insights",
    stages: Annotated[int, typer.Option(min=1, help="Stages of the pipeline.")] = 2,
    passes: Annotated[
        float, typer.Option(help="The budget: so many samples of the largest model in each stage.")
    ] = 1.0,
) -> None:
    """Search the model and the samples of each stage of a pipeline.

    The search has one half of the problems; what it chooses is measured on the other. The models are those of --model
    and --role; with --by agent the one of the role "agent" proposes, else the main one. `--strategy archon --config
    FILE` uses what is written.
    """
    from outthink.learn.agents import stage_agent
    from outthink.learn.architectures import stage_space
    from outthink.learn.proposing import proposer

    async def made(bench: Bench, validation: list[Example]) -> tuple[ArchitectureSpace, Propose]:
        parameters = {role: shape.parameters for role, shape in _shapes(bench, sizes).items()}
        space = stage_space(parameters, stages=stages, passes=passes)
        return space, stage_agent(bench.talk(), drawn.seed) if by == "agent" else proposer(by, drawn.seed)

    order = order_of(context, task, StrategyOptions(strategy="archon", budget=told.budget), writer, helpers, asked,
                     drawn, taken)  # fmt: skip
    _layers_searched(order, told, "stages", by, evaluations, made)


@search_app.command("graph", cls=Command)
@takes_blocks
def search_answer_graph(
    context: typer.Context,
    task: TaskArgument,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    told: SearchedOptions,
    evaluations: EvaluationsOption = 10,
    by: Annotated[
        Literal["random", "tpe", "reinforce", "agent"],
        typer.Option(help="How the next one is chosen; tpe needs Optuna, agent asks the model of the role agent."),
    ] = "random",
    nodes: Annotated[
        int, typer.Option(min=1, max=16, help="The budget: a row of so many nodes of the smallest model.")
    ] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Problems on which each graph is tried.")] = 3,
    end: Annotated[str, typer.Option(help="Role of the model that merges at the end; else that of the largest.")] = "",
    sizes: SizesOption = "",
) -> None:
    """Search a graph of calls that read each other's answers.

    The search has a third of the problems; the best few are compared on the second one, and the best of them is
    measured on the last one. The models are those of --model and --role; with --by agent the one of the role "agent"
    proposes, else the main one. `--strategy answer_graph --config FILE` uses what is written.
    """
    from outthink.learn.graph_search import GraphOrder, priced_mixes, search_graph
    from outthink.learn.proposing import proposer
    from outthink.strategies.collective.answer_nodes import written_nodes, written_nodes_file

    if by != "agent":
        proposer(by, drawn.seed)  # what it lacks is said before anything is paid for
    out = told.out or Path("graph.toml")
    how = StrategyOptions(strategy="answer_graph", budget=told.budget)
    order = order_of(context, task, how, writer, helpers, asked, drawn, taken)
    examples = _examples(order, 6, "a third of them")
    searching, fresh, held_out = (examples[place::3] for place in range(3))

    async def go(bench: Bench, bar: Working) -> _Outcome:
        shapes = _shapes(bench, sizes)
        largest = max(shapes, key=lambda role: shapes[role].parameters)
        if end and end not in shapes:
            raise UsageError(f"--end {end}: there is no model of this role; the roles are {', '.join(shapes)}.")
        priced_mixes(shapes, nodes)  # so that what is too large is refused before anything is paid for
        alone, task_tokens, answer_tokens = await _pilots(bench, searching[:_PILOT])
        wanted = GraphOrder(
            shapes=shapes, alone=alone, end=end or largest, nodes=nodes, task=task_tokens, answer=answer_tokens
        )

        async def measure(graph: Nodes, phase: str, number: int) -> float | None:
            size = 1 if phase == "pre-test" else batch
            places = [place % len(searching) for place in range(number * size, (number + 1) * size)]
            part = fresh if phase == "again" else [searching[place] for place in dict.fromkeys(places)]
            name = phase if phase == "again" else f"{phase}/{number + 1}"
            score = _score(await bench.run("answer_graph", {"nodes": written_nodes(graph)}, part, name))
            if phase == "search":
                bar.tell(number + 1, evaluations)
            return score

        best, trials, again = await search_graph(
            wanted,
            measure,
            by=by,
            talk=bench.talk() if by == "agent" else None,
            evaluations=evaluations,
            seed=drawn.seed,
        )
        held = await bench.run("answer_graph", {"nodes": written_nodes(best)}, held_out, "held-out")
        return _Outcome(
            best=written_nodes(best),
            file=written_nodes_file(best, name=_title(by, len(trials), order)),
            held=held,
            tried={written_nodes(graph): trial.score for graph, trial in trials},
            again={written_nodes(graph): score for graph, score in again},
        )

    _told(order, told, "graph", "answer_graph", out, go)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a search came to.

    Args:
        best, file: the best in its short form and as a file.
        held: the best on other problems.
        tried: what was tried with its score.
        again: what was compared in the end on problems of its own, where that is done, with its score there.
    """

    best: str
    file: str
    held: Summary
    tried: Mapping[str, float | None]
    again: Mapping[str, float | None] = field(default_factory=dict)


def _layers_searched(
    order: RunOrder,
    told: SearchedOptions,
    what: str,
    by: str,
    evaluations: int,
    made: Callable[[Bench, list[Example]], Awaitable[tuple[ArchitectureSpace, Propose]]],
) -> None:
    """Search layers for the strategy archon on one half of the problems."""
    from outthink.learn.search import best_trial, searched
    from outthink.strategies.collective.architecture import written, written_file

    out = told.out or Path(f"{what}.toml")
    examples = _examples(order, 4, "half of them")
    validation, held_out = examples[::2], examples[1::2]

    async def go(bench: Bench, bar: Working) -> _Outcome:
        space, propose = await made(bench, validation)
        tried: dict[str, float | None] = {}

        async def evaluate(point: tuple[int, ...]) -> float | None:
            layers = written(space.layers[point])
            tried[layers] = _score(await bench.run("archon", {"layers": layers}, validation, "validation"))
            bar.tell(len(tried), evaluations)
            return tried[layers]

        trials = await searched(space.space, evaluate, propose, evaluations=evaluations)
        best: Layers = space.layers[best_trial(space.space, trials).point]
        held = await bench.run("archon", {"layers": written(best)}, held_out, "held-out")
        file = written_file(best, name=_title(by, len(trials), order))
        return _Outcome(best=written(best), file=file, held=held, tried=tried)

    _told(order, told, what, "archon", out, go)


def _examples(order: RunOrder, least: int, share: str) -> list[Example]:
    examples = order.examples()
    say_doubts(examples)
    if len(examples) < least:
        raise UsageError(f"There are {len(examples)} problems; a search needs at least {least}, {share} to choose by.")
    return examples


def _title(by: str, evaluations: int, order: RunOrder) -> str:
    return f"{by}, {evaluations} evaluations, on {task_name(order.task)}"


def _told(
    order: RunOrder,
    told: SearchedOptions,
    what: str,
    strategy: str,
    out: Path,
    go: Callable[[Bench, Working], Awaitable[_Outcome]],
) -> None:
    """Search, write the file, and say what was tried, what it came to, and what it has cost."""
    from outthink.jsonl import write_whole

    writable_as(out, ".toml")
    folder = told.runs or Path("runs", file_name(f"{what}-{task_name(order.task)}"))
    ledger = Ledger()
    with (
        opened_resources(order.helpers.resource) as resources,
        opened_engines(order.writer.model, order.writer.role, order.prices) as engines,
        Working("Searching", unit="evaluations") as bar,
    ):

        async def running(stop: asyncio.Event) -> _Outcome:
            bench = Bench(
                order=order,
                folder=folder,
                engines=engines,
                resources=resources,
                stop=stop,
                ledger=ledger,
                seed=order.drawn.seed,
            )
            try:
                outcome = await go(bench, bar)
                if _score(outcome.held) is None:
                    raise UsageError("What was chosen could not be measured on other problems.")
            except UsageError as cause:
                raise UsageError(" ".join((str(cause), *bench.failures[:1]))) from None
            return outcome

        outcome = interruptible(running)
    write_whole(out, outcome.file)
    held = outcome.held
    if told.as_json:
        summed = {
            "best": outcome.best,
            "evaluations": len(outcome.tried),
            "held_out": held.accuracy,
            "low": held.low,
            "high": held.high,
            "tried": outcome.tried,
            **({"again": outcome.again} if outcome.again else {}),
            "spent": ledger.lines,
        }
        typer.echo(json.dumps(summed, indent=2))
        return
    columns = {"right": outcome.tried, **({"right in the end": outcome.again} if outcome.again else {})}
    names = dict.fromkeys(name for scores in columns.values() for name in scores)
    rows = [(name, *(_share(scores.get(name)) for scores in columns.values())) for name in names]
    print_table(text_table(("tried", *columns), rows))
    print_table(text_table(ledger.header(), ledger.rows()))
    typer.echo(
        f"{outcome.best}: {100 * held.accuracy:.1f}% ({100 * held.low:.1f} to {100 * held.high:.1f}) on "
        f"{held.graded} other problems"
    )
    typer.echo(f"{out}: use it as --strategy {strategy} --config {out}")


def _share(score: float | None) -> str:
    from outthink.reports.analysis import worded

    return "" if score is None else worded(score, "share")


def _score(summary: Summary) -> float | None:
    """The share that was right; None where nothing was graded, or no problem could be tried."""
    return summary.accuracy if summary.graded and summary.errors < summary.attempts else None


async def _ranked(bench: Bench, validation: list[Example]) -> list[str]:
    """The roles, the one whose single answers are right most often first; a single one is not measured."""
    if len(bench.roles) == 1:
        return bench.roles
    alone = {role: await _alone(bench, role, validation) for role in bench.roles}
    return sorted(bench.roles, key=lambda role: -alone[role].accuracy)


async def _alone(bench: Bench, role: str, part: list[Example]) -> Summary:
    """Single answers of a model."""
    return await bench.run("answer_graph", {"nodes": f"assistant@{role}"}, part, "alone")


async def _pilots(bench: Bench, part: list[Example]) -> tuple[dict[str, float], int, int]:
    """What each model gets right alone, and mean tokens of a task and of an answer."""
    alone = {role: await _alone(bench, role, part) for role in bench.roles}
    read = [one.tokens.get("prompt", 0.0) + one.tokens.get("cached", 0.0) for one in alone.values()]
    written = [one.tokens.get("completion", 0.0) for one in alone.values()]
    scores = {role: one.accuracy if one.graded else 0.0 for role, one in alone.items()}
    return scores, max(1, round(sum(read) / len(read))), max(1, round(sum(written) / len(written)))


def _shapes(bench: Bench, sizes: str) -> dict[str, Shape]:
    """The shapes of the models by role: as the engines know them, or by their sizes, without attention."""
    from outthink.models.engine import Shape

    if sizes:
        given = _sizes(sizes, bench.roles)
        return {role: Shape(parameters=round(size * 1e9)) for role, size in given.items()}
    shapes = {role: bench.engine(role).spec.shape for role in bench.roles}
    if unknown := [role for role, shape in shapes.items() if shape is None]:
        raise UsageError(
            f"The size of the model of {unknown[0]} is not known: give --sizes "
            f"{','.join(f'{role}=SIZE' for role in shapes)}."
        )
    return {role: shape for role, shape in shapes.items() if shape is not None}


def _sizes(text: str, roles: Sequence[str]) -> dict[str, float]:
    """The size of each model, in billions of parameters."""
    given: dict[str, float] = {}
    for part in text.split(",") if text else ():
        role, _, size = part.partition("=")
        try:
            given[role.strip()] = float(size)
        except ValueError:
            raise UsageError(f"Cannot read the size {part!r}; write --sizes ROLE=NUMBER, such as large=7.") from None
    if given.keys() != {*roles} or not all(0 < size < 1e6 for size in given.values()):
        raise UsageError(f"Give the size of each model, above 0: --sizes {','.join(f'{role}=SIZE' for role in roles)}.")
    return given


def _folder(text: str) -> str:
    """A folder of its own for each setting, by what it is."""
    return f"{file_name(text)[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
