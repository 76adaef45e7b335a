"""Runs, traces and pools as they lie in files: what is in each by columns, and any line of it in full.

Of each line some numbers are kept in columns (about 100 bytes), for filters, sums and comparisons; the lines themselves
stay in their file. All of it is built while the file is read, a little at a time, and goes on as the file grows.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.jsonl import read as read_lines
from outthink.models.engine import Shape
from outthink.records.ends import TokenEnds
from outthink.records.kinds import Form, form_of
from outthink.records.runs import JOURNAL, RESULTS, RUN, SHAPES, Result, owned, read_settings
from outthink.records.traffic import FEEDBACK, PROBLEMS
from outthink.reports.reading import ReadReply, kind_of
from outthink.types import AnswerKind
from outthink.view.entries import EFLOPS, ListRow, entry_of, replies_of, result_or_none, row_of, token_ends
from outthink.view.lines import LineFile, SomeLines

UNITS = ("tokens", "seconds", "flops", EFLOPS, "usd")
"""Costs that are kept in columns."""

_ENOUGH = 200  # replies that say as what they were read
_SUFFIXES = (".jsonl", ".jsonl.gz")
_DEEPEST = 4  # folders below the one that was named
_QUIET = 900.0  # seconds without a result or a call after which a run is taken to have been stopped
_JOURNAL_MOST = 1 << 24  # bytes of a journal that are read for what is being solved


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Which problems of a recording are wanted, and in what order.

    Args:
        verdict: "right" (all credit), "wrong" (less), "ungraded" or "none" (no answer); empty: all.
        stopped, strategy: only those; empty: all.
        text: a part of the id.
        unit, least, most: bounds of a cost.
        differs: only those that another recording has with another credit or, where one is not graded, another answer.
        order: a unit, "credit", "nodes"; empty: as in the file. `down`: the largest first.
    """

    verdict: str = ""
    stopped: str = ""
    strategy: str = ""
    text: str = ""
    unit: str = "tokens"
    least: float = -math.inf
    most: float = math.inf
    differs: RecordFile | None = None
    order: str = ""
    down: bool = False


class Solving(Protocol):
    """Problems that are being solved now."""

    @property
    def version(self) -> int:
        """Changes whenever anything has happened."""
        ...

    def running(self, done: frozenset[int]) -> list[dict[str, Any]]:
        """Those that are not among the hashed ids `done`, with what they were charged."""
        ...

    def entry(self, problem: str) -> dict[str, Any] | None:
        """All of one of them; None where it is none."""
        ...


@dataclass(slots=True)
class _Columns:
    """One number of each line; texts as codes or as hashes."""

    credit: array[float] = field(default_factory=lambda: array("d"))
    nodes: array[int] = field(default_factory=lambda: array("L"))
    answered: array[int] = field(default_factory=lambda: array("B"))
    failed: array[int] = field(default_factory=lambda: array("B"))
    key: array[int] = field(default_factory=lambda: array("Q"))
    problem: array[int] = field(default_factory=lambda: array("Q"))
    stopped: array[int] = field(default_factory=lambda: array("H"))
    strategy: array[int] = field(default_factory=lambda: array("H"))
    costs: dict[str, array[float]] = field(default_factory=lambda: {unit: array("d") for unit in UNITS})
    ids: bytearray = field(default_factory=bytearray)
    id_ends: array[int] = field(default_factory=lambda: array("Q"))
    words: dict[str, dict[str, int]] = field(default_factory=lambda: {"stopped": {}, "strategy": {}})

    def add(self, row: ListRow) -> None:
        self.credit.append(math.nan if row.credit is None else row.credit)
        self.nodes.append(row.nodes)
        self.answered.append(row.answer is not None)
        self.failed.append(2 if row.damaged else row.error is not None)
        self.key.append(0 if row.key is None else hashed(row.key))
        self.problem.append(hashed(row.problem))
        for name, word in (("stopped", row.stopped), ("strategy", row.strategy)):
            codes = self.words[name]
            getattr(self, name).append(codes.setdefault(word, len(codes)) if len(codes) < 65535 else 0)
        for unit, column in self.costs.items():
            column.append(row.cost.get(unit, math.nan))
        self.ids += row.problem.encode(errors="replace")
        self.id_ends.append(len(self.ids))


def hashed(text: str) -> int:
    """64 bits that stand for a text; two texts of a million share them with odds of 1 to 37 million."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


def shapes_of(settings: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of models by role, as far as a run tells them."""
    told = settings.get(SHAPES)
    try:
        return {role: Shape(**shape) for role, shape in told.items()} if isinstance(told, dict) else {}
    except TypeError:
        return {}


class RecordFile:
    """One file of results, traces or samples.

    Args:
        name: what the page calls it.
        path: the file with its lines.
        settings: what was asked, for a run.
        total: problems that were asked for, where that is known.
        warning: what is wrong around the file.
        solving: what is being solved for it in this process.
        owner: only lines of this owner are there, and nothing is told of where they lie; None: all are.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        settings: Mapping[str, Any] | None = None,
        total: int | None = None,
        warning: str | None = None,
        solving: Solving | None = None,
        owner: str | None = None,
    ) -> None:
        self.name = name
        self.path = path
        self.settings = dict(settings or {})
        self.total = total
        self.shapes = shapes_of(self.settings)
        self.form: Form | None = "results" if settings is not None else None
        self.error: str | None = None
        self._warning = warning
        self.known = 0
        """Lines of which the columns tell."""
        self.version = 0
        """Changes whenever anything else does."""
        self._owner = owner
        self._file = LineFile(path) if owner is None else SomeLines(path, lambda line: owned(line, owner))
        self._columns = _Columns()
        self._kind: AnswerKind | None = None
        self._solving = solving
        self._solved = 0 if solving is None else solving.version

    def __len__(self) -> int:
        return len(self._file)

    def advance(self, seconds: float) -> bool:
        """Read on for at most about so long; whether there is more to read now. A failure is in `error`."""
        before = (len(self._file), self.known, self.error, self._file.unfinished)
        try:
            if self._file.grow():
                self._columns, self.known, self._kind = _Columns(), 0, None
            self.error = None
            if self.form is None and len(self._file):
                self.form = form_of(self._file.line(0))
                if self.form is None:
                    self.error = f"{self.path} holds neither results, nor traces, nor a pool of samples."
        except UsageError as cause:
            self.error = str(cause)
        until = time.perf_counter() + seconds
        while self.form is not None and self.known < len(self._file) and time.perf_counter() < until:
            try:
                row = row_of(self.form, self._file.line(self.known), self.shapes)
            except (UsageError, IndexError) as cause:
                self.error = str(cause)
                break
            self._columns.add(row)
            self.known += 1
        solved = 0 if self._solving is None else self._solving.version
        if (before, self._solved) != ((len(self._file), self.known, self.error, self._file.unfinished), solved):
            self.version += 1
        self._solved = solved
        return self.form is not None and self.error is None and self.known < len(self._file)

    def close(self) -> None:
        """Free what the file took."""
        self._file.close()

    def described(self) -> dict[str, Any]:
        """What the list of recordings shows, as JSON data."""
        columns, n = self._columns, self.known
        credit = self.column("credit")
        graded = credit[~np.isnan(credit)]
        notes = [] if self._warning is None else [self._warning]
        if damaged := int((np.array(columns.failed[:n]) == 2).sum()):
            first = int(np.flatnonzero(np.array(columns.failed[:n]) == 2)[0]) + 1
            notes.append(f"Lines that cannot be read: {damaged}, the first one is line {first}; all others are shown.")
        if self._file.unfinished and self.form is not None:
            written = "is still being written, or was" if self._fresh() else "was"
            notes.append(f"The last line is unfinished: it {written} cut off.")
        return {
            "name": self.name,
            "path": str(self.path) if self._owner is None else "",
            "form": self.form,
            "error": self.error if self._owner is None or self.error is None else "It cannot be read now.",
            "notes": notes,
            "state": self._state(bool(damaged)),
            "settings": {name: value for name, value in self.settings.items() if name != "problems"},
            "total": self.total,
            "lines": len(self._file),
            "known": n,
            "version": self.version,
            "graded": len(graded),
            "accuracy": float(graded.mean()) if len(graded) else None,
            "unanswered": int(n - sum(columns.answered[:n])),
            "failed": int((np.array(columns.failed[:n]) == 1).sum()),
            "cost": {unit: self.mean(unit) for unit in UNITS},
            "stopped": self._counts("stopped"),
            "strategies": self._counts("strategy"),
        }

    def _state(self, damaged: bool) -> str:
        """ "damaged", "writing", "unfinished" (nobody has written for a while) or "whole"."""
        if self.error is not None or self._warning is not None or damaged:
            return "damaged"
        if self.total is None or len(self._file) >= self.total:
            return "whole"
        return "writing" if self._fresh() else "unfinished"

    def _fresh(self) -> bool:
        """Whether somebody has written here of late, results or calls."""
        written = 0.0
        for path in (self.path, self.path.parent / JOURNAL):
            with contextlib.suppress(OSError):
                written = max(written, path.stat().st_mtime)
        return time.time() - written < _QUIET

    def mean(self, unit: str) -> float | None:
        """The mean cost of a problem; None where it is not known of all of them."""
        amounts = self.column(unit)
        return float(amounts.mean()) if len(amounts) and not np.isnan(amounts).any() else None

    def column(self, name: str) -> NDArray[Any]:
        """A number of every line that is known: credit, nodes, key, problem, or a cost by its unit."""
        columns = self._columns
        values = columns.costs[name] if name in columns.costs else getattr(columns, name)
        return np.array(values[: self.known], dtype=np.dtype(values.typecode))

    def chosen(self, query: Query) -> NDArray[np.intp]:
        """The numbers of the lines that are wanted, in order, among those that are known."""
        n = self.known
        wanted = np.ones(n, dtype=bool)
        credit = self.column("credit")
        if query.verdict == "right":
            wanted &= credit >= 1
        elif query.verdict == "wrong":
            wanted &= credit < 1
        elif query.verdict == "ungraded":
            wanted &= np.isnan(credit)
        elif query.verdict == "none":
            wanted &= self.column("answered") == 0
        for name, word in (("stopped", query.stopped), ("strategy", query.strategy)):
            if word:
                wanted &= self.column(name) == self._columns.words[name].get(word, 65535)
        if query.unit in UNITS and (query.least > -math.inf or query.most < math.inf):
            amounts = self.column(query.unit)
            wanted &= (amounts >= query.least) & (amounts <= query.most)
        if query.differs is not None:
            wanted &= self.differing(query.differs)
        if query.text:
            wanted &= self._with_text(query.text)
        lines = np.flatnonzero(wanted)
        if query.order in ("credit", "nodes", *UNITS):
            values = self.column(query.order)[lines].astype(float)
            lines = lines[np.argsort(-values if query.down else values, kind="stable")]
        elif query.down:
            lines = lines[::-1]
        return lines

    def places(self, other: RecordFile) -> NDArray[np.intp]:
        """For each line of this recording the line of the same problem in another one; -1 where there is none."""
        there, here = other.column("problem"), self.column("problem")
        if not len(there):
            return np.full(len(here), -1)
        order = np.argsort(there, kind="stable")
        place = np.searchsorted(there[order], here).clip(max=len(there) - 1)
        return np.where(there[order[place]] == here, order[place], -1)

    def differing(self, other: RecordFile) -> NDArray[np.bool_]:
        """Which lines another recording has with another credit or, where one is ungraded, another answer."""
        places = self.places(other)
        there = places >= 0
        if not there.any():
            return there
        mine, its = self.column("credit"), other.column("credit")[places]
        graded = ~np.isnan(mine) & ~np.isnan(its)
        answers = self.column("key") != other.column("key")[places]
        differing: NDArray[np.bool_] = there & np.where(graded, mine != its, answers)
        return differing

    def rows(self, lines: Sequence[int]) -> list[dict[str, Any]]:
        """What a list shows of these lines."""
        if self.form is None:
            return []
        return [row_of(self.form, self._file.line(line), self.shapes).shown(line) for line in lines]

    def problem(self, line: int) -> str:
        """The id of the problem on a line that is known."""
        ends = self._columns.id_ends
        return self._columns.ids[ends[line - 1] if line else 0 : ends[line]].decode(errors="replace")

    def entry(self, line: int) -> dict[str, Any]:
        """All of one line; raises UsageError where it cannot be read or there is none."""
        if self.form is None or not 0 <= line < len(self._file):
            raise UsageError(f"{self.name} has no line {line + 1}.")
        return {"line": line, **entry_of(self.form, self._file.line(line), self.kind())}

    def results(self) -> Iterator[Result]:
        """The results on the lines that can be read, of a run or of traces."""
        for line in range(len(self._file)):
            if self.form is not None and (result := result_or_none(self.form, self._file.line(line))) is not None:
                yield result

    def replies(self) -> Iterator[ReadReply]:
        """The complete replies on the lines that can be read."""
        for line in range(len(self._file)):
            if self.form is not None:
                yield from replies_of(self.form, self._file.line(line))

    async def ends(self, line: int, tokens: TokenEnds) -> dict[str, list[int]]:
        """Where in their texts the tokens of the candidates on a line end, by candidate."""
        return {} if self.form is None else await token_ends(self.form, self._file.line(line), tokens)

    def kind(self) -> AnswerKind:
        """As what the answers were read: the kind under which most of the first replies are read again."""
        if self._kind is None:
            self._kind = kind_of(list(islice(self.replies(), _ENOUGH)))
        return self._kind

    def live(self, problem: str) -> dict[str, Any]:
        """All of a problem that is being solved now, or of its line where it has just been finished.

        Raises UsageError where it is neither.
        """
        lines = np.flatnonzero(self.column("problem") == hashed(problem))
        if len(lines):
            return self.entry(int(lines[-1]))
        entry = None if self._solving is None else self._solving.entry(problem)
        if entry is None:
            raise UsageError("This problem is not being solved, and has not been.")
        return entry

    def running(self) -> list[dict[str, Any]]:
        """Problems that were begun and are not finished, with what they were charged.

        Those that are solved in this process can be looked at; of others the journal of the run tells.
        """
        if self._owner is not None:
            return []
        if self._solving is not None:
            return self._solving.running(frozenset(self.column("problem").tolist()))
        journal = self.path.parent / JOURNAL
        if self.path.name != RESULTS or (self.total is not None and len(self._file) >= self.total):
            return []
        try:
            if journal.stat().st_size > _JOURNAL_MOST:
                return []
            done = set(self.column("problem").tolist())
            begun: dict[str, dict[str, float]] = {}
            for _, line in read_lines(journal):
                if hashed(line["problem"]) not in done:
                    spent = begun.setdefault(line["problem"], {})
                    for unit, amount in line["cost"].items():
                        spent[unit] = spent.get(unit, 0.0) + amount
        except (OSError, UsageError, KeyError, TypeError):
            return []
        return [{"problem": problem, "cost": cost} for problem, cost in begun.items()]

    def _counts(self, name: str) -> dict[str, int]:
        counts = np.bincount(self.column(name), minlength=1)
        words = list(self._columns.words[name].items())
        return {word: int(counts[code]) for word, code in words if word and code < len(counts)}

    def _with_text(self, text: str) -> NDArray[np.bool_]:
        wanted = np.zeros(self.known, dtype=bool)
        part, ids, ends = text.encode(), bytes(self._columns.ids), self._columns.id_ends
        place = ids.find(part)
        while place >= 0:
            line = bisect_right(ends, place)
            if line >= self.known:
                break
            if place + len(part) <= ends[line]:
                wanted[line] = True
                place = ids.find(part, ends[line])
            else:  # the end of one id and the beginning of the next
                place = ids.find(part, place + 1)
        return wanted


class Shelf:
    """All recordings that were named, and those that come into the folders that were.

    Args:
        paths: run directories, pools, files of traces, or folders with such.
        live: further ones that are in no file.
        solving: what is being solved for the runs.
        owner: only what this owner of a server's key has asked is shown; None: everything.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        live: Sequence[Any] = (),
        solving: Solving | None = None,
        owner: str | None = None,
    ) -> None:
        self._owner = owner
        self.recordings: list[Any] = list(live)
        self._solving = solving
        self._paths = list(paths)
        self._there: set[Path] = set()
        self.look()

    def look(self) -> bool:
        """Take in what is new in the folders; whether there was anything."""
        before = len(self.recordings)
        for path in self._paths:
            if path.exists():  # else it may come
                self._take(path, 0)
        return len(self.recordings) > before

    def close(self) -> None:
        """Free what the recordings took."""
        for recording in self.recordings:
            recording.close()

    def _take(self, path: Path, depth: int) -> None:
        if path.is_dir():
            if (path / RUN).is_file():
                self._run(path)
                return
            if depth > _DEEPEST:
                return
            traffic = (path / "served" / RUN).is_file()  # its questions are in the traces, too
            for inside in sorted(path.iterdir()):
                if traffic and inside.name in (PROBLEMS, FEEDBACK):
                    continue
                if not inside.name.startswith(".") and (inside.is_dir() or inside.name.endswith(_SUFFIXES)):
                    self._take(inside, depth + 1)
        elif path not in self._there and self._owner is None:
            if depth and path.name in (RESULTS, JOURNAL) and not path.stat().st_size:
                return  # a run that is just being made
            self._add(path, RecordFile(_name(path), path))

    def _run(self, folder: Path) -> None:
        results = folder / RESULTS
        if results in self._there:
            return
        try:
            settings = read_settings(folder)
            if self._owner is not None:  # the rest tells of the server
                told = {"strategy": settings.get("strategy")}
                self._add(results, RecordFile(_name(folder), results, told, owner=self._owner))
                return
            problems = settings.get("problems")
            place, shards = settings.get("shard") or (0, 1)
            total = None if problems is None else len(problems[place::shards])
            self._add(results, RecordFile(_name(folder), results, settings, total, solving=self._solving))
        except (UsageError, TypeError, ValueError) as cause:
            if self._owner is None:  # its results may be whole all the same
                self._add(results, RecordFile(_name(folder), results, warning=str(cause)))

    def _add(self, path: Path, recording: RecordFile) -> None:
        self._there.add(path)
        names = {other.name for other in self.recordings}
        if recording.name in names:
            recording.name = str(recording.path)
        self.recordings.append(recording)


def _name(path: Path) -> str:
    """The last two parts of a path, without what pools end in."""
    parts = path.resolve().parts[-2:]
    return "/".join(parts).removesuffix(".gz").removesuffix(".jsonl").lstrip("/")
