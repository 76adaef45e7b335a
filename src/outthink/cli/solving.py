"""The commands solve and strategies."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outthink.cli import completing
from outthink.cli.given import given_question, given_strategy
from outthink.cli.options import (
    JsonOption,
    ModelOptions,
    QuestionArgument,
    QuestionOptions,
    QuestionStrategyOptions,
    ResourceOptions,
    SamplingOptions,
)
from outthink.cli.parsing import Interrupted, takes_blocks
from outthink.cli.running import Watcher, interruptible, opened_engines, opened_resources
from outthink.cli.shown import console, costs, note, print_json, print_table, print_trace, say_unasked, trace_json
from outthink.cli.viewing import ViewOption, beside
from outthink.errors import OutthinkError, UsageError

if TYPE_CHECKING:
    from outthink.meter import Meter
    from outthink.types import Trace


@takes_blocks
def solve(
    context: typer.Context,
    how: QuestionStrategyOptions,
    writer: ModelOptions,
    helpers: ResourceOptions,
    asked: QuestionOptions,
    drawn: SamplingOptions,
    question: QuestionArgument = None,
    trace: Annotated[Path | None, typer.Option(help="Append the whole trace to this JSONL file.")] = None,
    view: ViewOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer one question; what it cost, and why it stopped.

    The question's own words are the prompt, unless you say what its answer is like: --answer, --options, --schema or
    --tests. Live progress is shown on standard error. Ctrl-C stops and keeps the best answer so far.
    """
    from outthink.driver import solve_async
    from outthink.strategies.comparing import FREE, comparing

    problem = asked.problem(given_question(question))
    named = given_strategy(how.strategy, context)
    chosen = comparing(
        named,
        problem.answer,
        verifier=helpers.verifier is not None,
        fields=problem.fields,
    )
    sampling, limits, prices = drawn.sampling(), how.limits(helpers.resource, writer.own), writer.prices()

    if trace is not None:
        try:
            trace.open("a").close()  # before anything is paid for
        except OSError as cause:
            raise UsageError(f"Cannot write {trace}: {cause.strerror}; name a file in a folder that exists.") from None
    failure: OutthinkError | None = None
    with (
        opened_resources(helpers.resource) as resources,
        opened_engines(writer.model, writer.role, prices) as engines,
    ):
        watcher = Watcher(shown=not as_json)
        page = live = None
        if view:
            from outthink.strategies.making import strategy_data
            from outthink.view.live import LiveProblem
            from outthink.view.recordings import Shelf

            live = LiveProblem(
                problem,
                strategy_data(chosen),
                sampling,
                drawn.seed,
                {role: engine.spec.name for role, engine in engines.items()},
            )
            page = context.with_resource(beside(Shelf([], [live]), "#/r/0/p/0"))

        def watch(meter: Meter) -> None:
            watcher.start(meter)
            if live is not None:
                live.start(meter)

        async def go(stop: asyncio.Event) -> Trace:
            try:
                return await solve_async(
                    problem,
                    chosen,
                    model=engines["model"],
                    models=engines,
                    verifier=helpers.verifier,
                    prm=helpers.prm,
                    embedder=helpers.embedder,
                    resources=resources,
                    budget=limits,
                    sampling=sampling,
                    seed=drawn.seed,
                    stop=stop,
                    watch=watch,
                )
            finally:
                watcher.stop()

        try:
            outcome = interruptible(go)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Interrupted, without an answer. {costs(watcher.cost())}.") from None
        except OutthinkError as error:
            if error.trace is None or not error.trace.calls:
                raise
            outcome, failure = error.trace, error  # it has the bill
    if live is not None:
        live.finish(outcome)
    if trace is not None:
        try:
            with trace.open("a", encoding="utf-8") as file:
                file.write(outcome.to_json() + "\n")
        except OSError as cause:  # the answer is paid for: it is shown all the same
            failure = failure or OutthinkError(f"Cannot write the trace to {trace}: {cause.strerror}.")
    print_json(trace_json(outcome)) if as_json else print_trace(outcome, chat=problem.answer == "chat")
    if chosen is not named and how.strategy.partition("?")[0] != "auto" and any(FREE in one for one in outcome.notes):
        note("If the question has a short answer, say of which kind it is, as in --answer math: then they are counted.")
    say_unasked(engines.keys() - {call.role for call in outcome.calls})
    if page is not None and outcome.stopped != "cancelled":
        page.stay()
    if failure is not None:
        raise failure
    if outcome.stopped == "cancelled":
        raise Interrupted("Interrupted; what is shown is what was paid for until then.")
    if (outcome.text if problem.answer == "chat" else outcome.answer) is None:
        raise typer.Exit(3)


def strategies(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="Show this one, with its hyperparameters.", autocompletion=completing.strategies),
    ] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, as in docs/strategies.md.")] = False,
) -> None:
    """List the methods; with a NAME, its source and hyperparameters."""
    from outthink.strategies.listing import describe, describe_one, markdown

    if name is not None:
        entry = describe_one(name)
        typer.echo(json.dumps(entry, indent=2)) if as_json else _print_strategy(entry, _options_of_runs(context))
        return
    if as_markdown:
        typer.echo(markdown(), nl=False)
        return
    entries = describe()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.table import Table

    table = Table("strategy", "what it does", "needs", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry["name"], entry["summary"], ", ".join(entry["needs"]))
    print_table(table)
    typer.echo("\n`outthink strategies NAME` shows the source of one and its hyperparameters.")


def _options_of_runs(context: typer.Context) -> set[str]:
    """Options of the commands that run strategies, which are no hyperparameters."""
    commands: Mapping[str, Any] = context.find_root().command.commands  # type: ignore[attr-defined]  # of a group
    return {option for name in ("solve", "bench") for parameter in commands[name].params for option in parameter.opts}


def _print_strategy(entry: dict[str, Any], own: Collection[str]) -> None:
    width = max(20, min(console().width, 100))

    def paragraph(text: str, indent: str = "") -> None:
        typer.echo(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False))

    paragraph(f"{entry['name']}: {entry['summary']}")
    for title in ("source", "differs", "pays"):
        if entry[title]:
            colon = "" if entry[title].startswith("from ") else ":"
            paragraph(f"{title.capitalize()}{colon} {entry[title]}")
    needs = entry["needs"] + [f"a model that can do {power}" for power in entry["powers"]]
    paragraph(f"Needs: {', '.join(needs)} (? is optional)" if needs else "Needs nothing.")
    typer.echo("Hyperparameters:" if entry["hyperparameters"] else "It has no hyperparameters.")
    for name, default in entry["hyperparameters"].items():
        dashed = f"--{name.replace('_', '-')}"
        option = f"--strategy {entry['name']}?{name}=VALUE" if dashed in own else dashed
        typer.echo(f"  {option}  [default: {default!r}]")
        if entry["descriptions"].get(name):
            paragraph(entry["descriptions"][name], " " * 6)
