"""What a whole recording tells, as sections: costs, endings, reading rules, coverage, source and command."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from outthink import __version__
from outthink.errors import OutthinkError
from outthink.records.runs import DOUBTS, PROGRAM, Result
from outthink.reports.choices import ENDED, PlanChoice, choices
from outthink.reports.coverage import pool_coverage
from outthink.reports.difficulty import DifficultyBin, difficulty_bins, difficulty_row
from outthink.reports.reading import counted, doubt, rule_of
from outthink.reports.report import interval_cell, summary, tree_sentence
from outthink.strategies import STRATEGIES
from outthink.strategies.listing import describe_one
from outthink.view.compare import MOST
from outthink.view.recordings import RecordFile

_CHOICES = 12  # rows of what auto did


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
        sections += _run(recording)
    else:
        sections.append({"title": "Summary", "lines": [f"There are more than {MOST:,} problems: filter them below."]})
    if len(recording) <= MOST:
        sections.append(_reading(recording))
    if doubts := recording.settings.get(DOUBTS):
        sections.append({"title": "Doubts about the questions", "lines": [str(line) for line in doubts]})
    sections += _method(recording.settings)
    return sections


def _run(recording: RecordFile) -> list[dict[str, Any]]:
    rated: list[tuple[float, float, float]] = []
    planned: list[Result] = []  # of auto, without what was written

    def passing() -> Iterator[Result]:
        for result in recording.results():
            if (row := difficulty_row(result)) is not None:
                rated.append(row)
            if result.trace is not None and result.trace.strategy.get("name") == "auto":
                planned.append(replace(result, trace=replace(result.trace, candidates=(), prompts=())))
            yield result

    told = summary(passing(), planned=recording.total)
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
    if rated:
        sections.append(_difficulty(difficulty_bins(rated), "agreement of its samples"))
    if made := choices(planned):
        sections.append(_choices(made, recording))
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
    rated = [
        (float(row["credit"]), math.nan, row["cost"].get("tokens", math.nan))
        for row in recording.rows(range(recording.known))
        if row["credit"] is not None
    ]
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
        },
        _difficulty(difficulty_bins(rated), "share of right samples"),
    ]


def _difficulty(bins: Sequence[DifficultyBin], by: str) -> dict[str, Any]:
    """From the hardest to the easiest."""
    rows = []
    for place, one in enumerate(bins):
        ends = f"{_share(one.low)} to {_share(one.high)}" if one.low < one.high else _share(one.low)
        name = {0: "hardest", len(bins) - 1: "easiest"}.get(place, "") if len(bins) > 1 else ""
        rows.append(
            [f"{place + 1} {name}".strip(), ends, str(one.problems), interval_cell(one.accuracy), _known(one.tokens)]
        )
    columns = ["bin", by, "problems", "accuracy (95%)", "tokens"]
    if all(math.isnan(one.accuracy[0]) for one in bins):
        columns, rows = [*columns[:3], "tokens"], [[*row[:3], row[4]] for row in rows]
    return {"title": "Bins of difficulty", "columns": columns, "rows": rows}


def _choices(made: Sequence[PlanChoice], recording: RecordFile) -> dict[str, Any]:
    """What auto did, with a plan or by agreement alone."""
    single = [one for one in made if one.what != ENDED]
    rows = [
        [
            one.what,
            str(one.problems),
            _points(one.said),
            _points(one.gained[0])
            + ("" if one.gained[0] == one.gained[1] or math.isnan(one.gained[0]) else f" to {_points(one.gained[1])}"),
            interval_cell(None if math.isnan(one.accuracy[0]) else one.accuracy),
            _known(one.tokens),
        ]
        for one in [*single[:_CHOICES], *made[len(single) :]]
    ]
    lines = [
        "Gained: by the last answer over that after the first samples; a range where the first may have been right."
    ]
    if left := single[_CHOICES:]:
        lines.append(f"{len(left)} more, on {sum(one.problems for one in left)} problems, are not shown.")
    strategy = recording.settings.get("strategy")
    if isinstance(strategy, dict) and strategy.get("plan"):
        check = shlex.join(["outthink", "plan", "check", str(strategy["plan"]), str(recording.path.parent)])
        lines.append(f"`{check}` compares it with what the plan expects.")
    columns = ["what auto did", "problems", "gain said (points)", "gained", "accuracy (95%)", "tokens"]
    return {"title": "What auto chose", "columns": columns, "rows": rows, "lines": lines}


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
    made = f"Made by Outthink {settings[PROGRAM]}" if settings.get(PROGRAM) else "Made by an earlier version"
    told = f"{made}, shown by {__version__}; seed {settings.get('seed')}."
    if isinstance(settings.get("versions"), dict):
        told += " Versions: " + ", ".join(f"{name} {version}" for name, version in settings["versions"].items()) + "."
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
    if isinstance(settings.get("total_budget"), dict):
        words.append(
            "--total-budget=" + ",".join(f"{amount:.12g}{unit}" for unit, amount in settings["total_budget"].items())
        )
    if isinstance(settings.get("shard"), list):
        words.append("--shard=" + "/".join(map(str, settings["shard"])))
    words.append(f"--seed={settings.get('seed', 0)}")
    return shlex.join(words)


def _counts(counts: Mapping[str, int]) -> list[list[str]]:
    return [[name, str(count)] for name, count in counts.items()]


def _number(amount: float) -> str:
    return f"{amount:,.4g}" if abs(amount) < 1000 else f"{amount:,.0f}"


def _known(amount: float) -> str:
    return "-" if math.isnan(amount) else _number(amount)


def _points(gain: float) -> str:
    return "-" if math.isnan(gain) else f"{100 * gain:+.1f}"


def _share(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"
