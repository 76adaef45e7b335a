"""A run of a benchmark as it was asked for by options, for all commands that carry some out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outthink.cli.given import given_strategy, task_name
from outthink.cli.options import (
    AnswerOptions,
    ModelOptions,
    ResourceOptions,
    SamplingOptions,
    StrategyOptions,
    TaskArgument,
    TaskOptions,
    TotalBudgetOption,
)
from outthink.names import file_name

if TYPE_CHECKING:
    from outthink.bench.run import Standing, Watching
    from outthink.models.engine import Engine, Price
    from outthink.reports.report import Summary
    from outthink.strategies import Strategy
    from outthink.tasks.example import Example
    from outthink.types import Sampling


@dataclass(frozen=True, kw_only=True)
class RunOrder:
    """A run of a benchmark as it was asked for, with nothing opened yet."""

    task: str
    how: StrategyOptions
    chosen: Strategy
    writer: ModelOptions
    helpers: ResourceOptions
    asked: AnswerOptions
    drawn: SamplingOptions
    taken: TaskOptions
    sampling: Sampling
    limits: str | None
    prices: dict[str, Price | str]
    total_budget: str | None

    def examples(self) -> list[Example]:
        """The problems; raises UsageError where there are none such."""
        examples: list[Example] = self.taken.examples(self.task, self.asked, self.drawn.seed)
        return examples

    def checks(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """What raises OutthinkError where something is not there that the run needs, by a name that runs can share."""
        from outthink.models import check_model
        from outthink.models.roles import MAIN, read_roles
        from outthink.resources.table import RESOURCES, bind
        from outthink.rewards.making import make_scorer
        from outthink.strategies.making import strategy_name

        for name in {MAIN: self.writer.model, **read_roles(self.writer.role)}.values():
            yield f"model {name}", partial(check_model, name)
        given = {role: written for role in ("verifier", "prm") if (written := getattr(self.helpers, role)) is not None}
        for role, written in given.items():
            yield f"{role} {written}", partial(make_scorer, written, process=role == "prm")
        there = {name for name, row in RESOURCES.items() if row.given} - {"verifier", "prm"}
        there |= {*given, *(text.partition("=")[0] for text in self.helpers.resource or ())}
        named = strategy_name(self.chosen)
        needs = partial(bind, self.chosen.run, dict.fromkeys(there), f"The strategy {named}")
        yield f"{named} with {sorted(there)}", needs

    @property
    def title(self) -> str:
        """Task, strategy and scorer."""
        scored = self.helpers.verifier or self.helpers.prm
        return file_name(f"{task_name(self.task)}-{self.how.strategy}" + (f"-{scored}" if scored else ""))

    async def carry_out(
        self,
        examples: list[Example],
        folder: Path,
        engines: Mapping[str, Engine],
        resources: Mapping[str, Any],
        *,
        on_progress: Callable[[Standing], None],
        watching: Watching | None = None,
        stop: asyncio.Event,
        shard: tuple[int, int] | None = None,
    ) -> Summary:
        """As `outthink.bench.run.bench`."""
        from outthink.bench.run import bench as run_bench

        return await run_bench(
            examples,
            self.chosen,
            store=folder,
            model=engines["model"],
            models=engines,
            verifier=self.helpers.verifier,
            prm=self.helpers.prm,
            embedder=self.helpers.embedder,
            resources=resources,
            budget=self.limits,
            total_budget=self.total_budget,
            sampling=self.sampling,
            seed=self.drawn.seed,
            task=self.task,
            shard=shard,
            concurrency=self.taken.concurrency,
            on_progress=on_progress,
            watching=watching,
            stop=stop,
        )


def order_of(
    context: typer.Context,
    task: TaskArgument,
    how: StrategyOptions,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: AnswerOptions,
    drawn: SamplingOptions,
    taken: TaskOptions,
    total_budget: TotalBudgetOption = None,
) -> RunOrder:
    """The order that these options are; raises UsageError where one cannot be read."""
    return RunOrder(
        task=task,
        how=how,
        chosen=given_strategy(how.strategy, context),
        writer=writer,
        helpers=helpers,
        asked=asked,
        drawn=drawn,
        taken=taken,
        sampling=drawn.sampling(),
        limits=how.limits(helpers.resource, writer.own),
        prices=writer.prices(),
        total_budget=total_budget,
    )
