"""The commands solve and strategies."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outthink.cli.given import given_kind, given_prices, given_sampling, given_strategy
from outthink.cli.options import (
    DEFAULT_MODEL,
    AnswerOption,
    BudgetOption,
    EmbedderOption,
    JsonOption,
    MaxTokensOption,
    ModelOption,
    PriceOption,
    PrmOption,
    RoleOption,
    SeedOption,
    StrategyOption,
    TemperatureOption,
    TemplateOption,
    TopPOption,
    VerifierOption,
)
from outthink.cli.running import Watcher, interruptible, opened_engines
from outthink.cli.shown import console, print_trace, trace_json
from outthink.errors import OutthinkError, UsageError

if TYPE_CHECKING:
    from outthink.types import Trace


def solve(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    strategy: StrategyOption = "self_consistency",
    model: ModelOption = DEFAULT_MODEL,
    budget: BudgetOption = None,
    verifier: VerifierOption = None,
    prm: PrmOption = None,
    embedder: EmbedderOption = None,
    role: RoleOption = None,
    answer: AnswerOption = None,
    prompt_template: TemplateOption = None,
    temperature: TemperatureOption = 0.8,
    top_p: TopPOption = 1.0,
    max_tokens: MaxTokensOption = 512,
    seed: SeedOption = 0,
    price: PriceOption = None,
    trace: Annotated[Path | None, typer.Option(help="Append the whole trace to this JSONL file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Solve one question: live progress, then the answer, what it cost and why it stopped."""
    from outthink.answers.asking import ask
    from outthink.driver import as_budget, solve_async

    chosen = given_strategy(strategy, context)
    problem = ask(
        sys.stdin.read() if question == "-" else question, answer=given_kind(answer), template=prompt_template
    )
    sampling, limits, priced = given_sampling(temperature, top_p, max_tokens), as_budget(budget), given_prices(price)

    if trace is not None:
        try:
            trace.open("a").close()  # before anything is paid for
        except OSError as cause:
            raise UsageError(f"Cannot write {trace}: {cause.strerror}; name a file in a folder that exists.") from None
    failure: OutthinkError | None = None
    with opened_engines(model, role, priced) as engines:
        watcher = None if as_json else Watcher()

        async def go(stop: asyncio.Event) -> Trace:
            try:
                return await solve_async(
                    problem,
                    chosen,
                    model=engines["model"],
                    models=engines,
                    verifier=verifier,
                    prm=prm,
                    embedder=embedder,
                    budget=limits,
                    sampling=sampling,
                    seed=seed,
                    stop=stop,
                    watch=watcher.start if watcher else None,
                )
            finally:
                if watcher:
                    watcher.stop()

        try:
            found = interruptible(go)
        except OutthinkError as error:
            if error.trace is None or not error.trace.calls:
                raise
            found, failure = error.trace, error  # it has the bill
    if trace is not None:
        with trace.open("a", encoding="utf-8") as file:
            file.write(found.to_json() + "\n")
    typer.echo(trace_json(found)) if as_json else print_trace(found)
    if failure is not None:
        raise failure
    if found.answer is None:
        raise typer.Exit(3)


def strategies(
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in docs/strategies.md.")] = False,
) -> None:
    """List the methods: hyperparameters, what they need, and their sources."""
    from outthink.strategies.listing import describe, markdown

    if as_markdown:
        typer.echo(markdown(), nl=False)
        return
    found = describe()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.table import Table

    table = Table("strategy", "what it does", "hyperparameters", "needs", box=None, pad_edge=False)
    for entry in found:
        parameters = " ".join(f"{name}={value!r}" for name, value in entry["hyperparameters"].items())
        table.add_row(entry["name"], entry["summary"], parameters, ", ".join(entry["needs"]))
    console().print(table)
