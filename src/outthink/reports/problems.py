"""One problem of a run as it went: the tree of its candidates, how each answer was read, what was answered when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from outthink.errors import UnknownName, UsageError
from outthink.records.runs import Result, is_pool, read_results
from outthink.reports.reading import kind_of, replies, rule_of
from outthink.types import AnswerKind, Candidate, Trace, path

_LOOKED_AT = 200  # replies that say of which kind the answers are


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeNode:
    """A candidate in its tree.

    Args:
        children: ids of the candidates that were made from it first of all; one with several parents is only here
            below the first of them that is in the trace.
        rule: by which its answer was read; None where that is not known, or nothing was read.
        score: in the last round that gave it one; None: none did.
        chosen: it is the answer, or on the way to it.
    """

    candidate: Candidate
    children: tuple[str, ...]
    rule: str | None
    score: float | None
    chosen: bool


def tree_of(trace: Trace, kind: AnswerKind) -> tuple[tuple[str, ...], Mapping[str, TreeNode]]:
    """The ids of the candidates that were made from none, and all nodes by id; in the order of their addresses."""
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    children: dict[str, list[str]] = {name: [] for name in by_id}
    roots: list[str] = []
    for name, candidate in by_id.items():
        above = next((parent for parent in candidate.parents if parent in by_id and parent != name), None)
        (roots if above is None else children[above]).append(name)
    scores: dict[str, float] = {}
    for answered in trace.rounds:
        given = zip(answered.candidates, answered.scores or (), strict=False)
        scores |= {name: score for name, score in given if score is not None}
    final = trace.rounds[-1].chosen if trace.rounds else None
    way = _above(final, by_id)
    nodes = {
        name: TreeNode(
            candidate=candidate,
            children=tuple(children[name]),
            rule=_rule(candidate, by_id, kind),
            score=scores.get(name),
            chosen=name in way,
        )
        for name, candidate in by_id.items()
    }
    return tuple(roots), nodes


def _above(name: str | None, by_id: Mapping[str, Candidate]) -> set[str]:
    """A candidate and everything it was made from."""
    way: set[str] = set()
    waiting = [] if name is None else [name]
    while waiting:
        if (one := waiting.pop()) in by_id and one not in way:
            way.add(one)
            waiting += by_id[one].parents
    return way


def _rule(candidate: Candidate, by_id: Mapping[str, Candidate], kind: AnswerKind) -> str | None:
    """The rule; None, too, where the kind that the answers seem to be of reads another answer than was recorded."""
    if not candidate.complete or candidate.answer is None:
        return None
    answer, rule = rule_of(kind, "".join(node.text for node in path(candidate, by_id)))
    return rule if answer == candidate.answer else None


def kind_of_run(folder: Path) -> AnswerKind:
    """The kind of answer as which the replies of a run were read."""
    return kind_of(list(islice(replies(folder), _LOOKED_AT)))


def pick(folder: Path, problem: str) -> Result:
    """The result of a problem by its id, or by a part of it that no other one has.

    Raises UsageError where there is no run, no such problem, or several.
    """
    part: list[Result] = []
    names: list[str] = []
    for result in results_of(folder):
        if result.problem == problem:
            return result
        names.append(result.problem)
        if problem in result.problem:
            part.append(result)
    if not part:
        raise UnknownName("problem", problem, names or ["none"])
    if len(part) > 1:
        several = ", ".join(repr(result.problem) for result in part[:3])
        raise UsageError(
            f"{problem!r} is part of the ids of {len(part)} problems, such as {several}: write more of it."
        )
    return part[0]


def results_of(folder: Path) -> Iterable[Result]:
    """The results of a run; raises UsageError where there is none, with another command where it is a pool."""
    if is_pool(folder):
        raise UsageError(f"{folder} is no run directory; `outthink answers` shows the samples of a pool.")
    return read_results(folder)


def outcome(result: Result) -> str:
    """What became of a problem, in a word or two."""
    if result.error is not None:
        return "failed"
    if result.credit is None:
        return "not graded"
    return {1.0: "right", 0.0: "wrong"}.get(result.credit, f"{result.credit:.2f} right")


def plain_result(result: Result) -> dict[str, Any]:
    """A problem in short, as data for JSON."""
    trace = result.trace
    return {
        "problem": result.problem,
        "credit": result.credit,
        "error": result.error,
        "answer": None if trace is None else trace.answer,
        "confidence": None if trace is None else trace.confidence,
        "stopped": None if trace is None else trace.stopped,
        "candidates": 0 if trace is None else len(trace.candidates),
        "cost": {} if trace is None else trace.cost,
    }


def plain_tree(nodes: Mapping[str, TreeNode]) -> list[dict[str, Any]]:
    """All candidates as data for JSON."""
    return [
        {
            "id": name,
            "parents": list(node.candidate.parents),
            "continues": node.candidate.continues,
            "answer": node.candidate.answer,
            "key": node.candidate.key,
            "rule": node.rule,
            "score": node.score,
            "chosen": node.chosen,
            "tokens": node.candidate.tokens,
            "finish": node.candidate.finish,
            "complete": node.candidate.complete,
            "text": node.candidate.text,
        }
        for name, node in nodes.items()
    ]


def plain_rounds(trace: Trace) -> list[dict[str, Any]]:
    """What was answered when, as data for JSON."""
    return [
        {
            "at": one.at,
            "answer": one.answer,
            "confidence": one.confidence,
            "chosen": one.chosen,
            "candidates": len(one.candidates),
            "cost": dict(one.cost),
        }
        for one in trace.rounds
    ]


def plain_sampling(trace: Trace) -> list[dict[str, Any]]:
    """How models were asked to draw, as data for JSON: each way once, with the number of calls."""
    ways: dict[str, dict[str, Any]] = {}
    for call in trace.calls:
        if call.sampling is not None:
            way = {"kind": call.kind, "role": call.role, "sampling": dict(call.sampling)}
            ways.setdefault(repr(way), {**way, "calls": 0})["calls"] += 1
    return list(ways.values())


def wrong_first(results: Sequence[Result]) -> list[Result]:
    """Failures first, then what is wrong, partly right and not graded, then what is right; else as they were."""

    def place(result: Result) -> float:
        if result.error is not None:
            return -1.0
        return 0.5 if result.credit is None else result.credit

    return sorted(results, key=place)
