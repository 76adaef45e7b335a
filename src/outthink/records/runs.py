"""The directory of one run, from which it goes on after a kill at any moment.

- run.json: what was asked; a run goes on only with the same settings.
- results.jsonl: one line per finished problem, on the disk before the problem counts as finished.
- journal.jsonl: every settled call, so that what an interrupted problem had cost is not forgotten.

A run of a benchmark has a list of problems. A run without an end, such as the recorded traffic of a server, has none:
its problems come as they come, each once, and nothing of it is begun anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from outthink import jsonl, types
from outthink.errors import OutthinkError, UsageError
from outthink.types import Call, Trace

SCHEMA = 1
"""Version of the files; a reader refuses another one."""

RUN, RESULTS, JOURNAL = "run.json", "results.jsonl", "journal.jsonl"

DOUBTS = "doubts"
"""What looked wrong with the questions when a run began, in its settings."""

SHAPES = "shapes"
"""The shapes of the models by role, where they are known, in the settings of a run."""

PROGRAM = "program"
"""The version of the program that began a run, in its settings."""

_TOLD = dict.fromkeys((DOUBTS, SHAPES, PROGRAM))  # settings that nobody asked for: a run with others is the same run


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Which action a server drew for a request whose caller had named none.

    Args:
        action: a strategy with its settings, as on the command line; OWN: what the server does anyway.
        chance: the probability with which it was drawn, in (0, 1].
    """

    action: str
    chance: float


OWN = "own"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One finished problem.

    Args:
        problem: its id.
        credit: 1 right, 0 wrong, between them partly right; None where it could not be graded.
        error: why nothing came back, for people; None where something did.
        trace: what happened; None only where nothing was even tried.
        ended: when a server had the answer, in seconds since the epoch; None: it was no server, or an earlier version.
        trial: what a server drew for it; None: nothing was drawn.
        credits: of each different answer by its key, where the trace has generations of answers.
        owner: the name of the key with which a server was asked; None: there was none. It ends the line, see `owned`.
    """

    problem: str
    credit: float | None
    error: str | None = None
    trace: Trace | None = None
    credits: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA
    ended: float | None = None
    trial: Trial | None = None
    owner: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What earlier attempts at a run have left.

    Args:
        done: ids of the finished problems.
        interrupted: problems that were begun and not finished; they begin anew.
        lost: what interrupted attempts were charged for work that is in no result (it is paid again), by unit.
    """

    done: frozenset[str] = frozenset()
    interrupted: int = 0
    lost: Mapping[str, float] = field(default_factory=dict)


class Store:
    """The one writer of a run directory; use it as a context manager.

    Args:
        folder: made where it does not exist.
        settings: what was asked, as JSON data with "problems" (ids in order; None for a run without an end) and
            whatever else must not change.
        private: what is made is for its owner alone: the folder (mode 700) and the files (mode 600).
        shared: as for `jsonl.Appender`.

    Raises UsageError where another process writes there, where the run was started with other settings, and where a
    file is damaged; OutthinkError where nothing can be written.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, private: bool = False, shared: bool = False
    ) -> None:
        self._folder = folder
        self._mode = 0o600 if private else 0o666
        self._failure: OutthinkError | None = None
        try:
            folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        except OSError as cause:
            raise UsageError(f"Cannot make the folder {folder}: {cause.strerror}.") from cause
        self._results = jsonl.Appender(folder / RESULTS, mode=self._mode, shared=shared)
        try:
            self._journal = jsonl.Appender(folder / JOURNAL, mode=self._mode, shared=shared)
            self._check(settings)
            self.before = Before() if settings["problems"] is None else read_before(folder)
            """What earlier attempts have left; nothing where a run has no end, since nothing of it is begun anew."""
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def record(self, *results: Result, sync: bool = True) -> None:
        """Keep finished problems for good; without `sync` a power failure can take them away until `sync` is called.

        Raises OutthinkError where these, or an earlier line of the journal, could not be written; then none of them is.
        """
        lines = (_adapter().dump_json(result, exclude=_unused(result)).decode() for result in results)
        self._results.append("\n".join(lines), sync=sync)
        if self._failure is not None:
            raise self._failure

    def sync(self) -> None:
        """Let all results so far outlive a power failure; raises OutthinkError where that fails."""
        self._results.sync()

    def journal(self, problem: str, call: Call) -> None:
        """Note a settled call of a problem; a failure is kept for `record`, since the meter must not be disturbed."""
        used = {"prompt": call.charged.prompt, "cached": call.charged.cached, "completion": call.charged.completion}
        line = {"problem": problem, "address": call.address, "cost": dict(call.cost), "charged": used}
        try:
            # not synced: it costs milliseconds a call, and only a power failure could take the line away
            self._journal.append(json.dumps(line), sync=False)
        except OutthinkError as failure:
            self._failure = failure

    def close(self) -> None:
        """Let another writer have the directory; calling it twice is fine."""
        for file in (self._results, getattr(self, "_journal", None)):
            if file is not None:
                file.close()

    def _check(self, settings: Mapping[str, Any]) -> None:
        asked = json.loads(json.dumps({"schema": SCHEMA, **settings}, default=repr))
        if not any((self._folder / name).stat().st_size for name in (RESULTS, JOURNAL)):
            # nothing was paid for: ask anew
            jsonl.write_whole(self._folder / RUN, json.dumps(asked, indent=1) + "\n", mode=self._mode)
            return
        different = differences({**read_settings(self._folder), **_TOLD}, {**asked, **_TOLD})
        if different:
            raise UsageError(
                f"The run in {self._folder} has other settings ({'; '.join(different)}): "
                "ask for the same again, or give another folder."
            )


def is_pool(path: Path) -> bool:
    """Whether a path is named as a pool is, and not as a run directory or a folder with some."""
    return path.name.endswith((".jsonl", ".jsonl.gz"))


def runs_in(folder: Path) -> list[Path]:
    """The run directories in a folder, at any depth, by name (2 before 10); the folder alone if it is one or has none.

    What is wrong with one that is none is said by what reads it.
    """
    if os.path.exists(folder / RUN) or not os.path.isdir(folder):
        return [folder]

    def numbers_apart(path: Path) -> list[tuple[int, str]]:
        return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]+)", str(path))]

    return sorted({file.parent for file in folder.rglob(RUN)}, key=numbers_apart) or [folder]


def read_settings(folder: Path) -> dict[str, Any]:
    """What was asked of the run in `folder`; raises UsageError where there is none, or one of another version."""
    try:
        settings: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        inside = runs_in(folder)
        if inside != [folder]:
            raise UsageError(f"{folder} holds runs and is none; name one, such as {inside[0]}.") from cause
        raise UsageError(f"There is no run in {folder}; name the folder that bench has written.") from cause
    except OSError as cause:
        raise UsageError(f"The run in {folder} cannot be read: {cause.strerror}.") from cause
    except ValueError as cause:
        raise UsageError(f"{folder / RUN} is damaged: {cause}.") from cause
    if settings.get("schema") != SCHEMA:
        raise UsageError(f"{folder} has version {settings.get('schema')}, this program reads version {SCHEMA}.")
    return settings


def strategy_named(settings: Mapping[str, Any]) -> str:
    """The name of the strategy in the settings of a run; servers write a bare name where nothing more is to be told."""
    strategy = settings.get("strategy")
    return str(strategy["name"] if isinstance(strategy, Mapping) else strategy)


def read_before(folder: Path) -> Before:
    """What has been done so far, and lost; raises UsageError where a line is damaged or repeated."""
    paid: dict[str, dict[str, float]] = {}
    for _, line in jsonl.read(folder / JOURNAL):
        _add(paid.setdefault(line["problem"], {}), line["cost"])
    done: set[str] = set()
    for number, line in jsonl.read(folder / RESULTS):
        problem = line["problem"]
        if problem in done:
            raise UsageError(f"Line {number} of {folder / RESULTS} repeats the problem {problem!r}: remove it.")
        done.add(problem)
        if problem in paid and line["trace"]:
            for call in line["trace"]["calls"]:
                _add(paid[problem], call["cost"], -1)
    lost: dict[str, float] = {}
    for cost in paid.values():
        # rounding aside this is never negative, unless a power failure took lines off the journal
        _add(lost, {unit: max(amount, 0.0) for unit, amount in cost.items()})
    return Before(done=frozenset(done), interrupted=len(paid.keys() - done), lost=lost)


def read_results(folder: Path) -> Iterator[Result]:
    """The finished problems of a run, also while it is being written, in the order in which they finished.

    Raises UsageError where there is no run or a line is damaged.
    """
    read_settings(folder)
    path = folder / RESULTS
    for number, line in jsonl.read(path):
        try:
            yield result_of(line)
        except UsageError as cause:
            raise UsageError(f"Line {number} of {path} {cause}") from cause.__cause__


def result_of(line: Mapping[str, Any]) -> Result:
    """The result that a line of a run holds; raises UsageError with the end of a sentence about it."""
    trace = line.get("trace")
    if line.get("schema") != SCHEMA or (trace and trace.get("schema") != types.SCHEMA):
        raise UsageError("was written by another version of this program.")
    try:
        result: Result = _adapter().validate_python(line)
    except ValueError as cause:
        raise UsageError("is damaged: repair it, or remove that line.") from cause
    return result


def result_from_json(line: bytes) -> Result:
    """As `result_of`, of a line as it is in the file, which is faster; ValueError where it is no JSON object."""
    try:
        result: Result = _adapter().validate_json(line)
    except ValueError:
        pass  # it may be of another version
    else:
        if result.schema == SCHEMA and (result.trace is None or result.trace.schema == types.SCHEMA):
            return result
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    return result_of(row)


def differences(there: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, one phrase each, by dotted names."""
    if isinstance(there, dict) and isinstance(now, dict):
        keys = [*there, *(key for key in now if key not in there)]
        return [
            phrase
            for key in keys
            for phrase in differences(there.get(key), now.get(key), f"{name}.{key}" if name else key)
        ]
    if there == now:
        return []
    if isinstance(there, list) and isinstance(now, list):
        if len(there) != len(now):
            return [f"{name}: {len(there)} there, {len(now)} now"]
        place = next(place for place, pair in enumerate(zip(there, now, strict=True)) if pair[0] != pair[1])
        return [f"{name}: number {place + 1} is {there[place]!r} there, {now[place]!r} now"]
    return [f"{name} is {there!r} there, {now!r} now"]


def merge(folders: Sequence[Path], out: Path) -> None:
    """Join the finished shards of one run in `out`, as if it had been run in one piece.

    Raises UsageError, and makes nothing, where `out` is there already, settings differ, a shard is missing or given
    twice, or a shard has unfinished problems.
    """
    if os.path.exists(out):
        raise UsageError(f"{out} is there already: give a folder that does not exist.")
    if not folders:
        raise UsageError("Name the folders of the shards.")
    first = read_settings(folders[0])
    whole = {**first, "shard": None}
    places: dict[int, Path] = {}
    for folder in folders:
        asked = read_settings(folder)
        if asked["shard"] is None:
            raise UsageError(f"The run in {folder} is whole already, not a shard.")
        place, shards = asked["shard"]
        different = differences({**first, "shard": first["shard"][1], **_TOLD}, {**asked, "shard": shards, **_TOLD})
        if different:
            raise UsageError(f"{folders[0]} and {folder} are not of one run ({'; '.join(different)}).")
        if place in places:
            raise UsageError(f"{places[place]} and {folder} are both shard {place}/{shards}: leave one out.")
        places[place] = folder
    missing = [f"{place}/{shards}" for place in range(shards) if place not in places]
    if missing:
        raise UsageError(f"These shards are missing: {', '.join(missing)}.")

    lines: dict[str, str] = {}
    for place, folder in sorted(places.items()):
        for number, line in jsonl.read(folder / RESULTS):
            if line["problem"] in lines:
                raise UsageError(f"Line {number} of {folder / RESULTS} repeats the problem {line['problem']!r}.")
            lines[line["problem"]] = json.dumps(line, separators=(",", ":"))
        wanted = whole["problems"][place::shards]
        absent = [problem for problem in wanted if problem not in lines]
        if absent:
            raise UsageError(f"{folder} has {len(absent)} unfinished problems (first {absent[0]!r}): resume it first.")
    part = out.with_name(out.name + ".part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        journal = [json.dumps(line) for folder in places.values() for _, line in jsonl.read(folder / JOURNAL)]
        for name, content in ((RESULTS, [lines[problem] for problem in whole["problems"]]), (JOURNAL, journal)):
            jsonl.write_whole(part / name, "".join(line + "\n" for line in content))
        jsonl.write_whole(part / RUN, json.dumps(whole, indent=1) + "\n")
        part.rename(out)
        jsonl.sync_folder(out.parent)
    except OSError as cause:
        raise OutthinkError(f"Cannot write {out}: {cause.strerror}.") from cause


def _add(total: dict[str, float], cost: Mapping[str, float], sign: int = 1) -> None:
    for unit, amount in cost.items():
        total[unit] = total.get(unit, 0.0) + sign * amount


def owned(line: bytes, owner: str) -> bool:
    """Whether a line of results ends with this owner; what stands in its trace, which others wrote, cannot feign it."""
    return line.rstrip(b"\r\n").endswith(b',"owner":' + json.dumps(owner).encode() + b"}")


def _unused(result: Result) -> dict[str, Any]:
    """Fields that few methods fill, where none of the trace is filled: they would be most of its lines."""
    empty: dict[str, Any] = {name: True for name in ("ended", "trial", "owner") if getattr(result, name) is None}
    if not result.credits:
        empty["credits"] = True
    if result.trace is None:
        return empty
    candidates, calls = result.trace.candidates, result.trace.calls
    unused = {"observed"} if not any(candidate.observed for candidate in candidates) else set()
    unused |= {"problem"} if all(candidate.problem is None for candidate in candidates) else set()
    counted = any(call.charged.further or call.seen.further for call in calls)
    fields: dict[str, Any] = {} if counted else {"seen": {"further"}, "charged": {"further"}}
    fields |= {name: True for name in ("after", "sampling") if all(getattr(call, name) is None for call in calls)}
    plain = all(answered.generation is None for answered in result.trace.rounds)
    return {
        **empty,
        "trace": {
            "candidates": {"__all__": unused},
            "calls": {"__all__": fields} if fields else {},
            "rounds": {"__all__": {"generation", "usage"}} if plain else {},
            "prompts": {"__all__": {"__all__": {"sent"}}},
        },
    }


@lru_cache
def _adapter() -> Any:
    from pydantic import TypeAdapter  # here, because importing pydantic is slow

    return TypeAdapter(Result)
