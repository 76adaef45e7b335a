"""What a whole recording tells, as sections: costs, endings, reading rules, coverage, source and command."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

from outthink import __version__
from outthink.errors import OutthinkError
from outthink.records.runs import DOUBTS
from outthink.reports.coverage import pool_coverage
from outthink.reports.reading import counted, doubt, rule_of
from outthink.reports.report import Summary, interval_cell, summary, tree_sentence
from outthink.strategies import STRATEGIES
from outthink.strategies.listing import describe_one
from outthink.view.recordings import RecordFile

MOST = 50_000
"""Lines of a recording beyond which only what its columns tell is shown."""


def overview(recording: RecordFile) -> list[dict[str, Any]]:
    """Sections, each with a title and `lines` (sentences), a table (`columns` and `rows`) or a `curve`.

    A part that cannot be told, as of a pool of others without tokens, says so in a sentence.
    """
    if recording.form is None or not len(recording):
        return []
    sections: list[dict[str, Any]] = []
    if recording.form == "pool":
        sections += _pool(recording)
    elif len(recording) <= MOST:
        sections += _run(recording, summary(recording.results(), planned=recording.total))
    else:
        sections.append({"title": "Summary", "lines": [f"There are more than {MOST:,} problems: filter them below."]})
    if len(recording) <= MOST:
        sections.append(_reading(recording))
    if doubts := recording.settings.get(DOUBTS):
        sections.append({"title": "Doubts about the questions", "lines": [str(line) for line in doubts]})
    sections += _method(recording.settings)
    return sections


def _run(recording: RecordFile, told: Summary) -> list[dict[str, Any]]:
    cost = [[unit, _number(amount)] for unit, amount in told.cost.items()]
    kinds = [[f"tokens, {kind}", _number(amount)] for kind, amount in told.tokens.items()]
    sections: list[dict[str, Any]] = [
        {
            "title": "Summary",
            "columns": ["", ""],
            "rows": [
                ["problems", f"{told.problems} of {told.planned}"],
                ["accuracy (95%)", interval_cell((told.accuracy, told.low, told.high) if told.graded else None)],
                ["graded", str(told.graded)],
                ["without an answer", _share(told.invalid)],
                ["samples cut off", _share(told.truncated)],
                ["failed", str(told.errors)],
            ],
        },
        {"title": "Mean cost of a problem", "columns": ["", ""], "rows": [*cost, *kinds]},
        {"title": "How problems ended", "columns": ["", "problems"], "rows": _counts(told.stopped)},
    ]
    if told.tree:
        sections.append({"title": "Sharing", "lines": [tree_sentence(recording.name, told.tree)]})
    return sections


def _pool(recording: RecordFile) -> list[dict[str, Any]]:
    if len(recording) > MOST:
        return []
    try:
        covered = pool_coverage(recording.path)
    except (OutthinkError, ValueError, KeyError) as cause:
        return [{"title": "Coverage", "lines": [str(cause)]}]
    ks = list(covered.at)
    law = covered.law
    fitted = [] if law is None else [[k, float(law.at(k))] for k in ks if k <= law.most]
    return [
        {
            "title": "Coverage: some sample of k is right",
            "curve": {
                "x": "samples k",
                "points": [[k, *(float(value) for value in covered.at[k])] for k in ks],
                "law": fitted,
            },
            "lines": [covered.sentence(recording.name)],
        }
    ]


def _reading(recording: RecordFile) -> dict[str, Any]:
    kind = recording.kind()
    counts = Counter(rule_of(kind, reply.text)[1] for reply in recording.replies())
    told = dict(counts.most_common())
    lines = [f"Read as {kind}: {counted(told)}."]
    if (warning := doubt(told)) is not None:
        lines.append(warning)
    return {"title": "How answers were read", "lines": lines}


def _method(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    strategy = settings.get("strategy")
    if not isinstance(strategy, dict):
        return []
    name = str(strategy.get("name", ""))
    sections = []
    if name in STRATEGIES:  # others would be imported, which what a file names must not bring about
        entry = describe_one(name)
        lines = [f"{name}: {entry['summary']}", f"Source: {entry['source']}"]
        lines += [f"Differs: {entry['differs']}"] if entry["differs"] else []
        sections.append({"title": "The method", "lines": lines})
    command = _command(name, strategy, settings)
    told = f"Shown by Outthink {__version__}; seed {settings.get('seed')}."
    if command is not None:
        sections.append({"title": "To run it again", "command": command, "lines": [told]})
    return sections


def _command(name: str, strategy: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The command with these settings; None where a run was not of one model, or not made by a command."""
    models, task = settings.get("models"), settings.get("task")
    if not isinstance(models, dict) or not task:
        return None
    words = ["outthink", "bench", str(task), "--strategy", name]
    for field, value in strategy.items():
        if field != "name" and isinstance(value, str | int | float):
            text = value.replace("\n", "\\n") if isinstance(value, str) else str(value)
            words.append(f"--{field.replace('_', '-')}={text}")
    words += ["--model", str(models.get("model"))]
    words += [word for role, model in models.items() if role != "model" for word in ("--role", f"{role}={model}")]
    for option in ("verifier", "prm", "embedder"):
        if isinstance(settings.get(option), str):
            words += [f"--{option}", settings[option]]
    sampling = settings.get("sampling")
    for field, value in (sampling if isinstance(sampling, dict) else {}).items():
        words.append(f"--{field.replace('_', '-')}={value}")
    budget = settings.get("budget")
    if isinstance(budget, dict) and budget:
        words += ["--budget", ",".join(f"{amount:.12g}{unit}" for unit, amount in budget.items())]
    words.append(f"--seed={settings.get('seed', 0)}")
    return shlex.join(words)


def _counts(counts: Mapping[str, int]) -> list[list[str]]:
    return [[name, str(count)] for name, count in counts.items()]


def _number(amount: float) -> str:
    return f"{amount:,.4g}" if abs(amount) < 1000 else f"{amount:,.0f}"


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"
