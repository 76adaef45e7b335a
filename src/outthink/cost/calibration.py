"""A calibration: how long requests take on one engine and one machine, as measured, as fitted, and how wrong that is.

Source: our own; the interval is the quantile of split conformal prediction (Vovk et al. 2005), from memory. Differs:
where there are too few checks for the level asked for, it is the level that they reach.

The file is JSON that a person can read: `measured` holds every request that was timed, one a line; `fitted` what was
computed from those with the use "fit"; `checked` how far that is off on those with the use "check", which the fit has
not seen.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from outthink.cost.latency import Latency, TimedRequest, fit
from outthink.errors import Unidentified, UsageError

SCHEMA = 1
"""Version of the file; a reader refuses another one."""

LEVEL = 0.9
_FEWEST = 3  # checks without which nothing could be said about the error

_FORMULA = (
    "seconds = fixed + linear I + quadratic I^2 + (n - 1) (each + again I) + the sum over steps of "
    "step + sample max(0, n - free) + context n L; n samples, I prompt tokens, L tokens before the step"
)
_INTERVAL = "a request takes from 1 / spread to spread times what is fitted, with the probability `level`"

Use = Literal["fit", "check"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """How long a request takes.

    Args:
        low, high: the interval, whose level is the calibration's.
        extrapolated: it is larger than anything that was measured, so that the interval need not hold.
    """

    estimate: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A timed request and what it was used for."""

    timed: TimedRequest
    use: Use


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The latency of an engine; `made` from measurements or `open`ed from a file.

    Args:
        engine: its name.
        date: when it was measured, ISO 8601.
        machine: facts of the machine that measured, and of the software.
        spread: a request takes from 1 / spread to spread times the estimate, at least 1.
        level: with this probability, if requests are like the checks.
    """

    engine: str
    date: str
    machine: Mapping[str, Any]
    rows: tuple[Row, ...]
    latency: Latency
    spread: float
    level: float

    @classmethod
    def made(cls, engine: str, date: str, machine: Mapping[str, Any], rows: Sequence[Row]) -> Calibration:
        """Fit the rows for fitting, and measure the error on those for checking.

        Raises Unidentified where there are too few of either.
        """
        latency = fit([row.timed for row in rows if row.use == "fit"])
        factors = sorted(math.exp(abs(math.log(ratio))) for ratio in _ratios(latency, rows))
        if len(factors) < _FEWEST:
            raise Unidentified(f"A calibration needs at least {_FEWEST} checks; there are {len(factors)}.")
        place = min(math.ceil((len(factors) + 1) * LEVEL), len(factors))
        return cls(
            engine=engine,
            date=date,
            machine=machine,
            rows=tuple(rows),
            latency=latency,
            spread=factors[place - 1],
            level=place / (len(factors) + 1),
        )

    @property
    def most(self) -> int:
        """The most samples that were measured side by side; more than these are taken to wait for each other."""
        return max(row.timed.samples for row in self.rows)

    @property
    def longest(self) -> int:
        """The most tokens, of prompt and completion, that a measured sample had."""
        return max(row.timed.prompt + max(row.timed.lengths) for row in self.rows)

    def seconds(self, prompt: int, completion: int, n: int = 1) -> Seconds:
        """How long n samples of one prompt take, each `completion` tokens long.

        Where their lengths differ, give the longest: the request takes as long as that one.
        """
        if prompt < 0 or completion < 0 or n < 1:
            raise ValueError("tokens must be at least 0, and n at least 1")
        whole, rest = divmod(n, self.most)
        estimate = float(self.latency.prefill(prompt) + self.latency.further(prompt, n))
        for size, times in ((self.most, whole), (rest, 1)):
            if size and times:
                estimate += times * float(self.latency.decode(prompt, completion, size))
        return Seconds(
            estimate=estimate,
            low=estimate / self.spread,
            high=estimate * self.spread,
            extrapolated=n > self.most or prompt + completion > self.longest,
        )

    def samples(self, seconds: float, prompt: int, completion: int) -> int:
        """The most samples whose interval ends within `seconds`; 0 where not even one does.

        Never more than were measured side by side, however much time there is.
        """
        fitting, beyond = 0, self.most + 1
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            if self.seconds(prompt, completion, middle).high <= seconds:
                fitting = middle
            else:
                beyond = middle
        return fitting

    def knee(self, share: float = 0.1, context: int = 128) -> int | None:
        """The batch size at which one more sample makes a step longer by more than `share` of a step of one sample.

        Args:
            context: tokens before each sample.

        None where no size that was measured is that large.
        """
        one = float(self.latency.step_seconds(1, context))
        for size in range(1, self.most):
            more = float(self.latency.step_seconds(size + 1, context) - self.latency.step_seconds(size, context))
            if more > share * one:
                return size
        return None

    def text(self) -> str:
        """The file's text."""
        ratios = iter(_ratios(self.latency, self.rows))
        measured = [
            {
                "samples": row.timed.samples,
                "prompt": row.timed.prompt,
                "completion": _short(row.timed.lengths),
                **({"reread": row.timed.reread} if row.timed.reread else {}),
                "seconds": row.timed.seconds,
                "use": row.use,
                **({"measured over fitted": round(next(ratios), 4)} if row.use == "check" else {}),
            }
            for row in self.rows
        ]
        parts: dict[str, Any] = {
            "schema": SCHEMA,
            "engine": self.engine,
            "date": self.date,
            "machine": dict(self.machine),
            "measured": measured,
            "fitted": {"is": _FORMULA, **asdict(self.latency)},
            "checked": {"is": _INTERVAL, "spread": self.spread, "level": self.level},
        }
        return "{\n" + ",\n".join(f'  "{name}": {_written(part)}' for name, part in parts.items()) + "\n}\n"

    @classmethod
    def open(cls, path: str | Path) -> Calibration:
        """Read a file of `outthink calibrate`; raises UsageError where it is none."""
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as cause:
            raise UsageError(f"Cannot read {path}: {cause.strerror}.") from None
        except ValueError:
            raise UsageError(f"{path} is not a calibration: it is no JSON.") from None
        version = raw.get("schema") if isinstance(raw, dict) else None
        if version != SCHEMA:
            raise UsageError(f"{path} is not a calibration of version {SCHEMA}; make one with `outthink calibrate`.")
        try:
            rows = tuple(_row(row) for row in raw["measured"])
            coefficients = {name: value for name, value in raw["fitted"].items() if name != "is"}
            made = cls(
                engine=str(raw["engine"]),
                date=str(raw["date"]),
                machine=dict(raw["machine"]),
                rows=rows,
                latency=Latency(**coefficients),
                spread=float(raw["checked"]["spread"]),
                level=float(raw["checked"]["level"]),
            )
            if not (rows and 1 <= made.spread < math.inf and 0 < made.level < 1):
                raise ValueError("numbers out of range")
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise UsageError(
                f"{path} is a damaged calibration ({type(cause).__name__}: {cause}); make it anew with "
                "`outthink calibrate`."
            ) from None
        return made


def _ratios(latency: Latency, rows: Sequence[Row]) -> list[float]:
    """Measured over fitted seconds of each check."""
    checks = [row.timed for row in rows if row.use == "check"]
    fitted = [latency.seconds_of(timed.prompt, timed.lengths) for timed in checks]
    if not all(seconds > 0 for seconds in fitted):
        raise Unidentified("By the fit some requests take no time at all; measure again on a quieter machine.")
    return [timed.seconds / seconds for timed, seconds in zip(checks, fitted, strict=True)]


def _written(part: Any) -> str:
    """As JSON with one member, or one measurement, a line."""
    if isinstance(part, list):
        return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in part) + "\n  ]"
    return json.dumps(part, indent=2).replace("\n", "\n  ")


def _short(lengths: tuple[int, ...]) -> int | dict[str, int]:
    """The length of all samples, or how many there are of each."""
    counts = Counter(lengths)
    return lengths[0] if len(counts) == 1 else {str(length): counts[length] for length in sorted(counts, reverse=True)}


def _row(raw: Mapping[str, Any]) -> Row:
    told = raw["completion"]
    counts = told if isinstance(told, dict) else {told: raw["samples"]}
    lengths = tuple(int(length) for length, times in counts.items() for _ in range(times))
    if raw["use"] not in ("fit", "check") or len(lengths) != raw["samples"] or not raw["seconds"] > 0:
        raise ValueError(f"the measurement {raw!r}")
    timed = TimedRequest(
        prompt=int(raw["prompt"]),
        lengths=lengths,
        seconds=float(raw["seconds"]),
        reread=int(raw.get("reread", 0)),
    )
    return Row(timed=timed, use=raw["use"])
