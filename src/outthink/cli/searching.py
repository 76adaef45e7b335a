"""The command that searches an architecture for the strategy archon."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from outthink.cli.ordering import order_of
from outthink.cli.parsing import Command, Interrupted, group, takes_blocks
from outthink.cli.progress import Working
from outthink.cli.running import interruptible, opened_engines, opened_resources
from outthink.cli.shown import print_table
from outthink.errors import UsageError
from outthink.names import file_name
from outthink.reports.tables import text_table

if TYPE_CHECKING:
    from outthink.learn.architectures import ArchitectureSpace
    from outthink.reports.report import Summary
    from outthink.strategies.collective.architecture import Layers
    from outthink.tasks.example import Example

_LONGEST = 80  # letters of the name of a folder before its digest

archon_app = group("Architectures of several models, for the strategy archon.")


@archon_app.command("search", cls=Command)
@takes_blocks
def archon_search(
    context: typer.Context,
    task: TaskArgument,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    evaluations: Annotated[int, typer.Option(min=1, help="Architectures to try.")] = 20,
    by: Annotated[
        Literal["random", "tpe", "insights"],
        typer.Option(help="How the next one is chosen; tpe needs Optuna, insights needs --stages."),
    ] = "random",
    calls: Annotated[int, typer.Option(min=1, help="Most calls of an architecture on a problem.")] = 32,
    stages: Annotated[
        int, typer.Option(min=0, help="Search pipelines of so many stages instead: a model and its samples for each.")
    ] = 0,
    sizes: Annotated[str, typer.Option(help="With --stages, the size of each model: generator=0.5,large=7.")] = "",
    passes: Annotated[
        float, typer.Option(help="With --stages, the budget: so many samples of the largest model in each.")
    ] = 1.0,
    budget: BudgetOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .toml file to write.")] = Path("archon.toml"),
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs; what is in it is not run again.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search an architecture on one half of the problems, and measure it on the other.

    The models are those of --model and --role. `--strategy archon --config FILE` uses the file.
    """
    from outthink.jsonl import write_whole
    from outthink.learn.search import best_trial, searched
    from outthink.models.roles import GENERATOR, MAIN
    from outthink.strategies.collective.architecture import written, written_file
    from outthink.strategies.making import make_strategy

    writable_as(out, ".toml")
    how = StrategyOptions(strategy="archon", budget=budget)
    order = order_of(context, task, how, writer, helpers, asked, drawn, taken)
    examples = order.examples()
    say_doubts(examples)
    if len(examples) < 4:
        raise UsageError(f"There are {len(examples)} problems; a search needs at least 4, half of them to choose by.")
    validation, held_out = examples[::2], examples[1::2]
    folder = runs or Path("runs", file_name(f"archon-{task_name(task)}"))
    with (
        opened_resources(helpers.resource) as resources,
        opened_engines(writer.model, writer.role, order.prices) as engines,
        Working("Searching", unit="architectures") as bar,
    ):
        roles = [GENERATOR if role == MAIN else role for role in engines]

        async def measured(layers: Layers, part: list[Example], name: str, stop: asyncio.Event) -> Summary:
            chosen = make_strategy("archon", {"layers": written(layers)})
            summary = await dataclasses.replace(order, chosen=chosen).carry_out(
                part, folder / name / _folder(layers), engines, resources, on_progress=lambda standing: None, stop=stop
            )
            if stop.is_set() or summary.attempts < summary.planned:
                raise Interrupted("Problems are left: the same command goes on with them.")
            return summary

        async def go(stop: asyncio.Event) -> tuple[Any, ...]:
            ranked = (
                roles if stages else await _ranked(roles, lambda layers, name: measured(layers, validation, name, stop))
            )
            space = _space(ranked, stages, sizes, passes, calls)
            seen: dict[Layers, Summary] = {}

            async def evaluate(point: tuple[int, ...]) -> float | None:
                layers = space.layers[point]
                seen[layers] = await measured(layers, validation, "validation", stop)
                bar.tell(len(seen), evaluations)
                return seen[layers].accuracy if seen[layers].graded else None

            trials = await searched(space.space, evaluate, by=by, evaluations=evaluations, seed=drawn.seed)
            best = space.layers[best_trial(space.space, trials).point]
            return best, seen, await measured(best, held_out, "held-out", stop)

        best, seen, held = interruptible(go)
    write_whole(out, written_file(best, name=f"{by}, {len(seen)} evaluations, on {task_name(task)}"))
    if as_json:
        told = {"architecture": written(best), "evaluations": len(seen), "held_out": held.accuracy}
        validated = {written(layers): summary.accuracy for layers, summary in seen.items()}
        typer.echo(json.dumps({**told, "low": held.low, "high": held.high, "validation": validated}, indent=2))
        return
    print_table(
        text_table(
            ("architecture", "validation"),
            [(written(layers), f"{100 * summary.accuracy:.1f}%") for layers, summary in seen.items()],
        )
    )
    typer.echo(
        f"{written(best)}: {100 * held.accuracy:.1f}% ({100 * held.low:.1f} to {100 * held.high:.1f}) on "
        f"{held.graded} other problems"
    )
    typer.echo(f"{out}: use it as --strategy archon --config {out}")


async def _ranked(roles: Sequence[str], measured: Callable[[Layers, str], Awaitable[Summary]]) -> list[str]:
    """The roles, the one whose single answers are right most often first; a single one is not measured."""
    from outthink.strategies.collective.architecture import Component, checked

    if len(roles) == 1:
        return [*roles]
    alone = {role: await measured(checked([[Component(type="generator", model=role)]]), "alone") for role in roles}
    return sorted(roles, key=lambda role: -alone[role].accuracy)


def _space(roles: Sequence[str], stages: int, sizes: str, passes: float, calls: int) -> ArchitectureSpace:
    """What is searched."""
    from outthink.learn.architectures import archon_space, stage_space

    if not stages:
        return archon_space(roles, most_calls=calls)
    given: dict[str, float] = {}
    for part in sizes.split(",") if sizes else ():
        role, _, size = part.partition("=")
        try:
            given[role.strip()] = float(size)
        except ValueError:
            raise UsageError(f"Cannot read the size {part!r}; write --sizes ROLE=NUMBER, such as large=7.") from None
    if given.keys() != {*roles}:
        raise UsageError(
            f"--stages needs the size of each model: --sizes {','.join(f'{role}=SIZE' for role in roles)}."
        )
    return stage_space(given, stages=stages, passes=passes)


def _folder(layers: Layers) -> str:
    """A folder of its own for each architecture, by what it is."""
    from outthink.strategies.collective.architecture import written

    text = written(layers)
    return f"{file_name(text)[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
