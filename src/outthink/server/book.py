"""The file that says what each key has spent, shared by all processes that serve: SQLite, changed in transactions.

Source: escrow (O'Neil, The escrow transactional method, 1986), in the form of a demarcation: a process takes a part of
what is left before it uses it, and says later what of it was used. Differs: the part is what the calls that run or wait
may cost at most, and a little more only while many come.

For each limit in each window a process has one row: what it has charged, and what it has taken, which is never less
than the charged and the worst case of all that runs. So a process that dies has spent at most what it had taken, and
just that is charged then: nobody knows how much of it an upstream has made. It is taken for dead when it has not
written for a while; should it still live, what it then does is already charged.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outthink.errors import UsageError
from outthink.server.allowances import NOW

BEAT = 5.0
"""Seconds within which a process writes while anything of it runs."""
_DEAD = 4 * BEAT
_PATIENCE = 2.0  # seconds to wait for another process that writes
_SPARE = 1 / 16  # of what is left, the most that is taken beyond what is asked for
_ROUNDING = 1e-9  # as the meter's
_VERSION = 1
_KEPT = {"minute": 3600, "day": 400 * 86400}  # seconds after which windows are forgotten; months stay
_TABLES = """
CREATE TABLE IF NOT EXISTS spending (
    owner TEXT NOT NULL, unit TEXT NOT NULL, span TEXT NOT NULL, began INTEGER NOT NULL, process INTEGER NOT NULL,
    charged REAL NOT NULL, taken REAL NOT NULL,
    PRIMARY KEY (owner, unit, span, began, process)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS process (id INTEGER PRIMARY KEY, seen REAL NOT NULL);
"""

Place = tuple[str, str, str, int]
"""Of a limit in a window: the key's name, unit, span, and when it began."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What this process has to do with one limit in one window.

    Args:
        charged: for good.
        held: the worst case of what runs.
        spare: what would be good to have beyond what is asked for.
        begins: this process knows of nothing that it has had to do with it before.
    """

    limit: float
    charged: float
    held: float
    spare: float = 0.0
    begins: bool = False


@dataclass(frozen=True, slots=True)
class Covering:
    """How a limit stands after a round.

    Args:
        charged, taken: by all other processes.
        covered: what this one may charge and hold in all.
    """

    charged: float
    taken: float
    covered: float


@dataclass(frozen=True, slots=True)
class Settled:
    """What a round has brought.

    Args:
        died: this process was taken for dead before: all that it had taken is charged, and nothing else was done.
        granted: parts of each request, in order.
    """

    died: bool = False
    coverings: Mapping[Place, Covering] = field(default_factory=dict)
    granted: Sequence[int] = ()


def fits(room: float, limit: float, worst: float) -> float:
    """How many parts of this worst case fit where so much of a limit is left."""
    return math.inf if worst <= 0 else (room + limit * _ROUNDING) // worst


class Book:
    """The open file, for one thread at a time.

    Raises UsageError where it cannot be made or read, or is something else; its methods raise sqlite3.Error where the
    file cannot be read or written, and have then done nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = 0
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._begin()
            except BaseException:
                self._file.close()
                raise
        except OSError as cause:
            raise UsageError(f"Cannot write what keys spend to {path}: {cause.strerror}; name another file.") from None
        except sqlite3.OperationalError as cause:
            raise UsageError(f"Cannot write what keys spend to {path}: {cause}.") from None
        except sqlite3.DatabaseError:
            raise UsageError(
                f"{path} does not hold what keys have spent, or is damaged: move it away to begin with nothing spent."
            ) from None

    def _begin(self) -> None:
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")  # a process may die at any moment and nothing is lost
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        (tables,) = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version not in (0, _VERSION) or (tables and not version):
            raise sqlite3.DatabaseError
        self._file.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")

    def settle(
        self, portions: Mapping[Place, Portion], requests: Sequence[tuple[Mapping[Place, float], int]], now: float
    ) -> Settled:
        """Write what has been charged, take what is asked for as far as it is left, and give back the rest.

        Args:
            portions: of every limit that anything is asked of, and of others that have changed.
            requests: in order, each the worst case of a part of it, and the most parts. Of the same key the first one
                that gets nothing lets no other pass.
            now: seconds since 1970.
        """
        with self._transaction():
            if not self._here(now):
                return Settled(died=True)
            self._bury(now)
            for place, one in portions.items():
                if one.begins:  # a window that it had done with comes again where a clock is set back
                    self._charge(
                        "owner = ? AND unit = ? AND span = ? AND began = ? AND process = ?", (*place, self._process)
                    )
            others = {place: self._others(place) for place in portions}
            rooms = {place: one.limit - others[place][1] - one.charged - one.held for place, one in portions.items()}
            used = dict.fromkeys(portions, 0.0)
            granted, behind = [], set[str]()
            for worst, upto in requests:
                owners = {place[0] for place in worst}
                n = 0
                if not owners & behind:
                    left = (fits(rooms[at] - used[at], portions[at].limit, each) for at, each in worst.items())
                    n = max(0, int(min(upto, *left)))
                for place, each in worst.items():
                    used[place] += n * each
                if not n:
                    behind |= owners
                granted.append(n)
            coverings = {}
            for place, one in portions.items():
                charged, taken = others[place]
                spare = min(one.spare, (rooms[place] - used[place]) * _SPARE)
                covered = one.charged + one.held + used[place] + max(0.0, spare)
                coverings[place] = Covering(charged, taken, covered)
                self._file.execute(
                    "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET charged = excluded.charged, taken = excluded.taken",
                    (*place, self._process, one.charged, covered),
                )
        return Settled(coverings=coverings, granted=granted)

    def close(self) -> None:
        """Leave what this process has taken as charged, and close the file."""
        try:
            if self._process:
                with self._transaction():
                    self._merge(self._process)
        finally:
            self._file.close()

    def _here(self, now: float) -> bool:
        """Say that this process lives; False where it was taken for dead, and now has a new name."""
        before = self._process
        if before and self._file.execute("UPDATE process SET seen = ? WHERE id = ?", (now, before)).rowcount:
            return True
        self._process = secrets.randbits(62) + 1
        self._file.execute("INSERT INTO process VALUES (?, ?)", (self._process, now))
        return not before

    def _bury(self, now: float) -> None:
        # what was seen in a time to come was so before a clock was set back
        dead = self._file.execute(
            "SELECT id FROM process WHERE (seen < ? OR seen > ?) AND id <> ?", (now - _DEAD, now + _DEAD, self._process)
        ).fetchall()
        for (process,) in dead:
            self._merge(process)
        if dead:
            for span, kept in _KEPT.items():
                self._file.execute("DELETE FROM spending WHERE span = ? AND began < ?", (span, now - kept))

    def _merge(self, process: int) -> None:
        """Charge what a process had taken; what is limited only at any moment is free again."""
        self._charge("process = ?", (process,))
        self._file.execute("DELETE FROM process WHERE id = ?", (process,))

    def _charge(self, which: str, values: tuple[str | int, ...]) -> None:
        """Have rows of a process stand for nobody in particular, with all that was taken charged."""
        self._file.execute(
            "INSERT INTO spending SELECT owner, unit, span, began, 0, taken, taken FROM spending "
            f"WHERE {which} AND span <> ? ON CONFLICT DO UPDATE "
            "SET charged = charged + excluded.charged, taken = taken + excluded.taken",
            (*values, NOW),
        )
        self._file.execute(f"DELETE FROM spending WHERE {which}", values)

    def _others(self, place: Place) -> tuple[float, float]:
        charged, taken = self._file.execute(
            "SELECT total(charged), total(taken) FROM spending "
            "WHERE owner = ? AND unit = ? AND span = ? AND began = ? AND process <> ?",
            (*place, self._process),
        ).fetchone()
        return charged, taken

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self._process
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            self._process = before
            with contextlib.suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            raise


def check_spending(path: Path) -> None:
    """Raise UsageError where a book can surely not be opened; nothing is written."""
    if spent(path) or path.exists() or path.parent.is_dir():
        return
    raise UsageError(f"Cannot write what keys spend to {path}: there is no folder {path.parent}; name another file.")


def spent(path: Path) -> dict[Place, tuple[float, float]]:
    """What has been charged in each window by all processes, and what is charged or may be; empty without a file.

    Raises UsageError where it cannot be read.
    """
    try:
        if not path.exists() or not path.stat().st_size:  # such a file is begun with, too
            return {}
    except OSError as cause:
        raise UsageError(f"Cannot read what keys have spent in {path}: {cause.strerror}.") from None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
            rows = file.execute(
                "SELECT owner, unit, span, began, total(charged), total(taken) FROM spending GROUP BY 1, 2, 3, 4"
            ).fetchall()
    except sqlite3.Error as cause:
        raise UsageError(f"Cannot read what keys have spent in {path}: {cause}.") from None
    return {(owner, unit, span, began): (charged, taken) for owner, unit, span, began, charged, taken in rows}
