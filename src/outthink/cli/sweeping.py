"""The command sweep."""

from __future__ import annotations

import asyncio
import functools
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from outthink.cli.measuring import say_doubts
from outthink.cli.options import JsonOption
from outthink.cli.ordering import RunOrder, order_of
from outthink.cli.parsing import HyperparameterCommand, takes_blocks
from outthink.cli.progress import Working, duration
from outthink.cli.running import interruptible, opened_engines, opened_resources
from outthink.cli.shown import note, one_line, print_json, print_table, printable
from outthink.errors import OutthinkError, UsageError

if TYPE_CHECKING:
    from outthink.bench.forecast import Forecast, Pace
    from outthink.bench.run import Standing
    from outthink.bench.sweep import Sweep, SweepCell
    from outthink.models.engine import Engine
    from outthink.tasks.example import Example

_parser = typer.Typer()
_parser.command("bench", cls=HyperparameterCommand)(takes_blocks(order_of))


@dataclass(kw_only=True)
class _Run:
    """A cell and how far it is."""

    cell: SweepCell
    order: RunOrder
    folder: Path
    mistakes: tuple[str, ...] = ()
    total: int = 0
    done: int = 0
    errors: int = 0
    predicted: Forecast | None = None
    reason: str = ""

    @property
    def left(self) -> int:
        return max(self.total - self.done, 0)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        known = self.predicted
        return {
            "run": self.cell.title,
            "folder": str(self.folder),
            "command": self.cell.command(self.folder.parent),
            "problems": self.total,
            "done": self.done,
            "failed": self.errors,
            "error": self.reason or None,
            "cost_per_problem": None if known is None else known.cost,
            "unit": None if known is None else known.unit,
            "source": None if known is None else known.source,
            "seconds_per_problem": None if known is None else known.seconds,
        }


def sweep(
    file: Annotated[Path, typer.Argument(help="A TOML file with tasks, models, strategies and seeds.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the runs, what is left of them, and what that will cost.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Carry out many runs from one file.

    They are its strategies x models x seeds x tasks. The same command goes on with what an earlier one has left,
    however it ended. A run that fails does not end the others.
    """
    from outthink.bench.sweep import read_sweep

    command: Any = typer.main.get_command(_parser)
    repeated = frozenset(option.name for option in command.params if getattr(option, "multiple", False))
    planned = read_sweep(file, repeated=repeated)
    orders = [(cell, _order(command, cell)) for cell in planned.cells]
    wrong = [(cell.title, order) for cell, order in orders if isinstance(order, str)]
    runs = [
        _Run(cell=cell, order=order, folder=cell.folder(planned.out))
        for cell, order in orders
        if not isinstance(order, str)
    ]
    loaded: dict[str, list[Example] | OutthinkError] = {}
    checked: dict[str, str | None] = {}
    with Working("Checking models and tasks, and what is done", unit="runs") as standing:
        for place, run in enumerate(runs):
            standing.tell(place, len(runs))
            _look(run, _examples(run.order, loaded))
            if run.left or run.mistakes:  # of a run that is done nothing is needed
                _check(run, checked)
            wrong += [(run.cell.title, mistake) for mistake in run.mistakes]
    if wrong and (not dry_run or len(runs) < len(orders)):
        _refuse(file, wrong, len(orders))
    _predict(planned, runs)
    if not dry_run:
        try:
            _carry_out(runs, loaded)
        finally:
            _tell(planned, runs, as_json)
        if any(run.left or run.reason for run in runs):
            raise typer.Exit(1)
        return
    if as_json:
        print_json({"out": str(planned.out), "runs": [run.plain() for run in runs]})
        return
    _print_plan(runs)
    if wrong:
        _refuse(file, wrong, len(orders))


def _refuse(file: Path, wrong: Sequence[tuple[str, str]], runs: int) -> NoReturn:
    """Tell every mistake once, and raise UsageError."""
    titles: dict[str, list[str]] = {}
    for title, mistake in wrong:
        titles.setdefault(mistake, []).append(title)
    told = [
        f"{first}{f' and {len(others)} more' if others else ''}: {mistake}"
        for mistake, (first, *others) in titles.items()
    ]
    if len(told) == 1:
        raise UsageError(told[0])
    for line in told:
        note(one_line(line))
    raise UsageError(
        f"{len(dict(wrong))} of the {runs} runs of {file} cannot be carried out; nothing was spent. Mend what is named."
    )


def _check(run: _Run, checked: dict[str, str | None]) -> None:
    """Whether what a run needs is there, as far as that is known before it begins; each thing is looked for once."""
    for name, check in run.order.checks():
        if name not in checked:
            try:
                check()
                checked[name] = None
            except OutthinkError as cause:
                checked[name] = str(cause)
    told = (checked[name] for name, _ in run.order.checks())
    run.mistakes += tuple(mistake for mistake in told if mistake is not None)
    run.reason = " ".join(run.mistakes) or run.reason


def _order(command: Any, cell: SweepCell) -> RunOrder | str:
    """The cell's options, read as `outthink bench` reads them; why it refuses them."""
    try:
        with command.make_context("sweep", cell.words()) as context:
            order: RunOrder = command.invoke(context)
            return order
    except (UsageError, typer.BadParameter) as cause:
        return cause.format_message() if isinstance(cause, typer.BadParameter) else str(cause)


def _examples(order: RunOrder, loaded: dict[str, list[Example] | OutthinkError]) -> list[Example] | OutthinkError:
    """The problems of a run, loaded once for all runs that have the same; an error where they cannot be."""
    seed = order.drawn.seed if order.task.startswith("gym:") else 0
    name = repr((order.task, order.taken, order.asked, seed))
    if name not in loaded:
        try:
            examples = order.examples()
            say_doubts(examples)
            loaded[name] = examples
        except OutthinkError as failure:
            loaded[name] = failure
    return loaded[name]


def _look(run: _Run, examples: list[Example] | OutthinkError) -> None:
    """How many problems a run has, and how many are done."""
    from outthink.records.runs import RUN, read_before, read_settings

    if isinstance(examples, OutthinkError):
        run.mistakes = (str(examples),)
        return
    run.total = len(examples)
    if not (run.folder / RUN).exists():
        return
    try:
        read_settings(run.folder)
        run.done = len(read_before(run.folder).done)
    except Exception as failure:  # whatever is wrong with what is there, the other runs go on
        run.reason = f"{run.folder} cannot be gone on with: {_told(failure)}"


def _predict(planned: Sweep, runs: Sequence[_Run]) -> None:
    """What a problem of each run will cost, as far as something tells."""
    from outthink.bench.forecast import forecast
    from outthink.cost.calibration import Calibration
    from outthink.driver import as_budget
    from outthink.planner.plan import Plan
    from outthink.records.runs import read_results
    from outthink.reports.report import summary

    plan = None if planned.plan is None else Plan.open(planned.plan)
    calibration = None if planned.calibration is None else Calibration.open(planned.calibration)
    unfinished = {run.cell.method() for run in runs if run.left}
    measured: dict[str, Mapping[str, float]] = {}
    for run in runs:
        try:
            if run.done and run.cell.method() in unfinished - measured.keys():  # of one seed; all of them may be many
                measured[run.cell.method()] = summary(read_results(run.folder)).cost
        except OutthinkError as failure:
            run.reason = run.reason or str(failure)
    for run in runs:
        try:
            run.predicted = forecast(
                run.order.chosen,
                model=run.order.writer.model,
                budget=as_budget(run.order.limits, None),
                measured=measured.get(run.cell.method()),
                plan=plan,
                calibration=calibration,
            )
        except OutthinkError as failure:  # a plan of its own that cannot be read, which the run itself will say, too
            run.reason = run.reason or str(failure)


def _print_plan(runs: Sequence[_Run]) -> None:
    """The runs as a table, and the sum of what is known."""
    from rich.table import Table
    from rich.text import Text

    from outthink.planner.quote import amount

    shown = Table("run", "problems", "done", "cost of the rest", "known by", "at most", box=None, pad_edge=False)
    for column in (*shown.columns[1:4], shown.columns[5]):
        column.justify = "right"
    costs: dict[str, float] = {}
    unknown = 0
    for run in runs:
        known = run.predicted
        if known is None and run.left:
            unknown += 1
        elif known is not None:
            costs[known.unit] = costs.get(known.unit, 0.0) + known.cost * run.left
        seconds = None if known is None or known.seconds is None else known.seconds * run.left
        shown.add_row(
            Text(one_line(run.cell.title)),
            str(run.total),
            str(run.done),
            "-" if known is None else f"{amount(known.cost * run.left)} {known.unit}",
            "-" if known is None else known.source,
            "-" if seconds is None else duration(seconds),
        )
    print_table(shown)
    left = sum(run.left for run in runs)
    total = " and ".join(f"{amount(cost)} {unit}" for unit, cost in costs.items())
    expected = f", about {total}" if total else ""
    missing = f"; of {unknown} runs nothing tells the cost" if unknown else ""
    typer.echo(f"{len(runs)} runs, {left:,} problems left{expected}{missing}.")
    for run in runs:
        if run.reason and not run.mistakes:  # which are told at the end, each once
            note(f"{run.cell.title}: {run.reason}")
    typer.echo("\nThe same, one by one:")
    for run in runs:
        typer.echo(printable(shlex.join(run.cell.command(run.folder.parent))))


def _carry_out(runs: Sequence[_Run], loaded: dict[str, list[Example] | OutthinkError]) -> None:
    """All runs, one after the other; a model is opened once for all that follow each other with it."""
    from outthink.bench.forecast import Pace

    waiting = [run for run in runs if not run.reason and not _is_complete(run, _examples(run.order, loaded))]
    costs = {run.cell.method(): run.predicted.cost for run in runs if run.predicted and run.predicted.unit == "tokens"}
    pace = Pace([(run.cell.method(), run.left) for run in waiting], costs, clock=time.monotonic)
    total, before = sum(run.total for run in runs), sum(run.done for run in runs)

    def words() -> str:
        seconds, guessed = pace.left()
        if seconds is None:
            return "how long is left is not known yet"
        return f"about {duration(seconds)} left" + (f", guessed for {guessed} runs" if guessed else "")

    with Working("sweep", unit="problems", left=words) as bar:

        def tell(run: _Run) -> None:
            number = len(runs) - len(waiting) + waiting.index(run) + 1
            bar.tell(sum(one.done for one in runs), total, f"run {number} of {len(runs)}, {run.cell.title}")

        for group in _groups(waiting):
            order = group[0].order
            try:
                with (
                    opened_resources(order.helpers.resource) as resources,
                    opened_engines(order.writer.model, order.writer.role, order.prices) as engines,
                ):
                    carry = functools.partial(_group, group, waiting, loaded, engines, resources, pace, tell)
                    interrupted = interruptible(carry)
            except KeyboardInterrupt:
                interrupted = True
            except Exception as failure:  # of what is opened: the runs with it fail, and no others
                interrupted = False
                for run in group:
                    run.reason = run.reason or (_told(failure) if run.left else "")
                    pace.begin(waiting.index(run))
                    pace.end()  # which is not waited for
            if interrupted:
                now = sum(run.done for run in runs) - before
                raise KeyboardInterrupt(
                    f"Interrupted; {now} problems were finished now. Run the same command again to go on."
                )


async def _group(
    group: Sequence[_Run],
    waiting: Sequence[_Run],
    loaded: dict[str, list[Example] | OutthinkError],
    engines: dict[str, Engine],
    resources: dict[str, Any],
    pace: Pace,
    tell: Callable[[_Run], None],
    stop: asyncio.Event,
) -> bool:
    """The runs of one model; whether they were interrupted."""
    for run in group:
        examples = _examples(run.order, loaded)
        assert not isinstance(examples, OutthinkError)

        def progress(standing: Standing, run: _Run = run) -> None:
            run.done = standing.done
            run.reason = run.reason or standing.left or ""
            pace.tell(run.left)
            tell(run)

        pace.begin(waiting.index(run))
        try:
            summary = await run.order.carry_out(
                examples, run.folder, engines, resources, on_progress=progress, stop=stop
            )
            run.done = summary.attempts
            run.errors = summary.errors
            if not run.left:
                run.reason = ""
        except Exception as failure:  # one run that fails, however it does, must not end the others
            run.reason = _told(failure)
        finally:
            pace.end()
        if stop.is_set():
            return True
    return False


def _is_complete(run: _Run, examples: list[Example] | OutthinkError) -> bool:
    """Whether all of it is done, and it is still what is asked for; else the run itself says what differs."""
    from outthink.bench.run import ids, prompts_digest
    from outthink.records.runs import read_settings

    if isinstance(examples, OutthinkError) or run.left or not run.total:
        return False
    settings = read_settings(run.folder)
    same = settings.get("prompts") == prompts_digest(example.problem for example in examples)
    return bool(settings.get("problems") == ids(examples) and same)


def _groups(runs: Sequence[_Run]) -> Iterator[list[_Run]]:
    """Runs that follow each other with the same models; one with resources of its own is alone."""
    group: list[_Run] = []
    for run in runs:
        if group and (run.order.helpers.resource or _models(run) != _models(group[0])):
            yield group
            group = []
        group.append(run)
    if group:
        yield group


def _models(run: _Run) -> Any:
    order = run.order
    return order.writer.model, order.writer.role, order.prices, order.helpers.resource


def _told(failure: Exception) -> str:
    return str(failure) if isinstance(failure, OutthinkError) else f"{type(failure).__name__}: {failure}"


def _tell(planned: Sweep, runs: Sequence[_Run], as_json: bool) -> None:
    """What has become of the runs."""
    if as_json:
        print_json({"out": str(planned.out), "runs": [run.plain() for run in runs]})
    finished = [run for run in runs if not run.left and not run.reason]
    if not as_json:
        typer.echo(f"{len(finished)} of {len(runs)} runs are finished; `outthink report {planned.out}` compares them.")
    for run in runs:
        if run.errors:
            note(f"{run.cell.title}: on {run.errors} problems nothing came back.")
        if run.reason:
            note(f"{run.cell.title} failed: {run.reason}")
