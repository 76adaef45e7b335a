"""Recorded results as a table of plain values, for data frames and files: a row for each problem or sample."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from outthink.errors import UsageError
from outthink.models.samples import numbers_of, pool_id, text_of, token_count, token_logprobs
from outthink.records.pools import read_rows
from outthink.records.runs import DOUBTS, Result, is_pool, read_results, read_settings, runs_in

Value = str | float | bool | None
"""One cell; None where nothing is known. A column has one kind of them."""

_NAMES = frozenset({"schema", "problems", "prompts", "task", "models.model", "strategy.name", "seed", DOUBTS, "graded"})
"""Settings that have a column in any case, or are no setting of the method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Columns by name, all of the same length."""

    columns: Mapping[str, Sequence[Value]]

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, Value]]) -> Frame:
        """A frame with a column for each name that a row has; what a row lacks, and NaN, is None there."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls(columns={name: _alike([_known(row.get(name)) for row in rows]) for name in names})

    def to_dataframe(self) -> Any:
        """A data frame of polars, or of pandas where polars is not installed; missing values are null.

        Raises UsageError where neither is there.
        """
        kinds = {name: _kind(values) for name, values in self.columns.items()}
        with suppress(ImportError):
            polars: Any = import_module("polars")
            types = {bool: polars.Boolean, int: polars.Int64, float: polars.Float64, str: polars.String}
            return polars.DataFrame(dict(self.columns), schema={name: types[kind] for name, kind in kinds.items()})
        with suppress(ImportError):
            pandas: Any = import_module("pandas")
            names = {bool: "boolean", int: "Int64", float: "float64", str: "string"}
            series = pandas.Series
            return pandas.DataFrame(
                {name: series(list(values), dtype=names[kinds[name]]) for name, values in self.columns.items()}
            )
        raise UsageError("Data frames need more packages: pip install 'outthink[tables]'.")

    def csv(self) -> str:
        """As comma-separated values with a header; an empty cell is one that is not known."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for row in zip(*self.columns.values(), strict=True):
            writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row])
        return text.getvalue()

    def write_parquet(self, path: Path) -> None:
        """Write a Parquet file.

        Raises UsageError where the packages are missing, or the file cannot be written.
        """
        check_parquet()
        frame = self.to_dataframe()
        try:
            frame.write_parquet(path) if hasattr(frame, "write_parquet") else frame.to_parquet(path, index=False)
        except OSError as cause:
            raise UsageError(f"Cannot write {path}: {cause.strerror or cause}.") from None


def check_parquet() -> None:
    """Raises UsageError where no Parquet file can be written, since the packages are missing."""
    for needed in (("polars",), ("pandas", "pyarrow")):
        with suppress(ImportError):
            for package in needed:
                import_module(package)
            return
    raise UsageError("Parquet files need more packages: pip install 'outthink[tables]'.")


def load(path: str | Path) -> Frame:
    """What was recorded at `path`, in plain columns.

    Args:
        path: a run directory or a folder with several, for a row for each problem of each run; or a pool (.jsonl,
            .jsonl.gz), for a row for each sample. Settings in which several runs differ are columns, too, by their
            dotted names, such as "strategy.n".

    Raises UsageError where there is nothing to read, or a line is damaged.
    """
    path = Path(path)
    return Frame.of_rows(list(_of_pool(path)) if is_pool(path) else list(_of_runs(runs_in(path))))


def _of_runs(folders: Sequence[Path]) -> Iterable[dict[str, Value]]:
    flat = {folder: dict(_flat(read_settings(folder))) for folder in folders}
    names = list(dict.fromkeys(name for settings in flat.values() for name in settings))
    varied = [name for name in names if len({repr(settings.get(name)) for settings in flat.values()}) > 1]
    for folder, settings in flat.items():
        head = {
            "run": str(folder),
            "task": settings.get("task"),
            "strategy": settings.get("strategy.name"),
            "model": settings.get("models.model"),
            "seed": settings.get("seed"),
            **{name: settings.get(name) for name in varied if name not in _NAMES},
        }
        for result in read_results(folder):
            yield {**head, **_of_result(result)}


def _of_result(result: Result) -> dict[str, Value]:
    row: dict[str, Value] = {"problem": result.problem, "credit": result.credit, "error": result.error}
    trace = result.trace
    if trace is None:
        return row
    usage, cost = trace.usage, trace.cost
    return {
        **row,
        "answer": trace.answer,
        "key": trace.key,
        "confidence": trace.confidence,
        "stopped": trace.stopped,
        "candidates": len(trace.candidates),
        "calls": len(trace.calls),
        "prompt": usage.prompt,
        "cached": usage.cached,
        "completion": usage.completion,
        **{unit: cost.get(unit) for unit in ("tokens", "flops", "usd", "seconds", *sorted(cost))},
        "text": trace.text,
    }


def _of_pool(path: Path) -> Iterable[dict[str, Value]]:
    for number, row in read_rows(path):
        samples = row.get("samples")
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        try:
            if not isinstance(samples, list):
                raise ValueError("it has no samples")
            scores = _scores(row, len(samples))
            for place, sample in enumerate(samples):
                logprobs = token_logprobs(sample.get("logprobs"))
                yield {
                    "pool": str(path),
                    "model": _plain(sample.get("model") or meta.get("model")),
                    "problem": pool_id(row.get("id")),
                    "sample": place,
                    "answer": _plain(sample.get("answer")),
                    "key": _plain(sample.get("key")),
                    "correct": sample.get("correct"),
                    "finish": _plain(sample.get("finish")),
                    "prompt": token_count(row.get("prompt_tokens"), "prompt_tokens"),
                    "completion": token_count(sample.get("tokens"), "tokens"),
                    "logprob": sum(logprobs) / len(logprobs) if logprobs else None,
                    **{name: values[place] for name, values in scores.items()},
                    "text": text_of(sample),
                }
        except (AttributeError, IndexError, TypeError, ValueError) as cause:
            raise UsageError(f"Line {number} of {path} cannot be read ({cause}).") from None


def _scores(row: Mapping[str, Any], n: int) -> dict[str, Sequence[float | None]]:
    given = row.get("scores") if isinstance(row.get("scores"), dict) else {}
    scores = {f"scores.{name}": numbers_of(values, name) for name, values in (given or {}).items()}
    if any(len(values) != n for values in scores.values()):
        raise ValueError(f"scores has no entry for each of {n} samples")
    return scores


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Value]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ",".join(map(str, value))
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)


def _known(value: Value) -> Value:
    return None if isinstance(value, float) and math.isnan(value) else value


def _alike(values: list[Value]) -> list[Value]:
    """The same as one kind: whole numbers among floats are floats, and any other mixture is text."""
    kind = _kind(values)
    return [None if value is None else value if type(value) is kind else kind(value) for value in values]


def _kind(values: Sequence[Value]) -> type:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        return kinds.pop()
    return float if kinds and kinds <= {int, float} else str
