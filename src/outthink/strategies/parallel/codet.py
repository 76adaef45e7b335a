"""CodeT: the model writes tests, too; programs that pass the same tests agree, and the best agreement wins.

Source: CodeT: Code Generation with Generated Tests (dual execution agreement), abstract and the authors' code read, the
paper from memory. Differs: a consensus set scores solutions * tests as in the paper, where the code takes the root of
the first; a test counts once however often it was written; the prompt is ours; public tests come first; one program
runs all tests of a solution.

Pays: for functions without enough public tests, where the model writes correct assertions. On half of HumanEval it
raised 18.5% for one program to 28.3% with 10 (docs/results/selection.md).
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import itertools
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.answers.code import blocks
from outthink.answers.thoughts import spoken
from outthink.maths.selection import Selected, answer_totals, codes, first_by
from outthink.model import Draw, Model, Models
from outthink.resources.metered_sandbox import MeteredSandbox
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, pick
from outthink.together import away, each, lazily
from outthink.types import Candidate, Message, Problem

_PROMPT = (
    "{question}\n\nDo not write that code. Write tests for it instead: {tests} assertions, each on a line of its own "
    "and of the form\nassert {call} == expected\nwith typical inputs and edge cases, each complete in itself, without "
    "variables or helpers. Reply with one ```python block."
)
_AT_ONCE = 32  # programs that wait for the sandbox at once


def written_tests(texts: Iterable[str], called: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """The assertions in texts of the model that can be run by themselves, each once, as Python writes them.

    They come in turns, one of each text, so that a beginning of the list has some of all of them.

    Args:
        called: functions, of which a test must call one.
        known: further names that a test may use, beside those of Python itself.
    """
    called = frozenset(called)
    free = {*called, *known, *dir(builtins)}
    turns = itertools.zip_longest(*(_assertions(text, called, free) for text in texts))
    return list(dict.fromkeys(test for turn in turns for test in turn if test is not None))


def consensus_sets(keys: ArrayLike, passes: ArrayLike, *, public: ArrayLike | None = None) -> NDArray[np.intp]:
    """The consensus set (..., n) of each sample: the position of its first member; -1 for INVALID, and for not run.

    Args:
        keys: (..., n) integers; equal means the same program, -1 is INVALID.
        passes: (..., n, m) whether a sample passes a test, 0 or 1; NaN is not run.
        public: (..., n) whether it passes all public tests, 0 or 1; NaN is not run. None: there are none.
    """
    keys, passes = np.asarray(keys, dtype=np.intp), np.asarray(passes, float)
    first = np.zeros(keys.shape) if public is None else np.asarray(public, float)
    results = np.concatenate([first[..., None], passes], -1)
    there = (keys >= 0) & ~np.isnan(results).any(-1)
    if keys.size == 0:
        return np.full(keys.shape, -1, dtype=np.intp)
    rows = np.nan_to_num(results, nan=-1.0).reshape(-1, results.shape[-1])
    same = np.unique(rows, axis=0, return_inverse=True)[1].reshape(keys.shape)
    alike = (same[..., :, None] == same[..., None, :]) & there[..., None, :]
    return np.where(there, alike.argmax(-1), -1)


def consensus_scores(keys: ArrayLike, passes: ArrayLike, *, public: ArrayLike | None = None) -> NDArray[np.float64]:
    """The score (..., n) of each sample's consensus set: its solutions * the tests they pass; NaN where it has none.

    Samples that are copies of each other count one by one; public tests are not among the tests. Arguments as for
    `consensus_sets`.
    """
    sets = consensus_sets(keys, passes, public=public)
    solutions = answer_totals(sets, np.ones(sets.shape))
    return np.where(sets >= 0, solutions * np.nan_to_num(np.asarray(passes, float)).sum(-1), np.nan)


def consensus_choice(
    keys: ArrayLike, passes: ArrayLike, *, public: ArrayLike | None = None, lengths: ArrayLike | None = None
) -> Selected:
    """A solution of the consensus set with the highest score; all that pass the public tests come before all others.

    Ties go to the set with more solutions, that with more tests, the program that was written most often, the shorter
    and the earlier one. `share` is the share of the valid samples that are in the set.

    Args:
        keys, passes, public: as for `consensus_sets`; what was not run comes last.
        lengths: (..., n) tokens.
    """
    keys, passes = np.asarray(keys, dtype=np.intp), np.asarray(passes, float)
    sets = consensus_sets(keys, passes, public=public)
    solutions = answer_totals(sets, np.ones(sets.shape))
    copies = answer_totals(keys, np.ones(keys.shape))
    tier = np.where(sets >= 0, 0.0 if public is None else np.asarray(public, float), -1.0)
    size = np.zeros(keys.shape) if lengths is None else np.asarray(lengths, float)
    scores = consensus_scores(keys, passes, public=public)
    index = first_by(keys >= 0, tier, scores, solutions, np.nan_to_num(passes).sum(-1), copies, -size)
    if keys.shape[-1] == 0:
        return Selected(index, np.zeros(index.shape))
    mine = np.take_along_axis(np.maximum(solutions, 1.0), np.maximum(index, 0)[..., None], -1)[..., 0]
    return Selected(index, np.where(index >= 0, mine / np.maximum((keys >= 0).sum(-1), 1), 0.0))


@dataclass(frozen=True, kw_only=True)
class CodeT:
    """n programs and some tests, all by the main model; tests by the model in the role "tester", where there is one.

    Answers that are not code cannot be run: there it is the majority, and no tests are written.

    Args:
        n: programs drawn; at least 1.
        test_samples: texts with tests drawn; at least 1.
        tests_each: tests asked for in each; the paper takes 5 of each.
        tests: most tests kept of all; at least 1.
        test_seconds: of CPU time that one test may take; it is not passed where it takes more.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages
    votes: ClassVar[bool] = True  # where answers are not code

    n: int = 16
    test_samples: int = 4
    tests_each: int = 8
    tests: int = 30
    test_seconds: float = 1.0

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "test_samples", "tests_each", "tests"))
        if not (math.isfinite(self.test_seconds) and self.test_seconds > 0):
            raise ValueError(f"test_seconds must be above 0 and finite, not {self.test_seconds}")

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, sandbox: MeteredSandbox
    ) -> None:
        """The majority is reported first, so that it stands if tests cannot be paid for or none can be read."""
        samples = await model.sample(problem, self.n)
        chosen, share = by_majority(samples)
        report(samples, chosen=chosen, confidence=share)
        programs = {sample.key: sample for sample in reversed(samples) if sample.key is not None}  # one of equals
        if problem.answer != "code" or len(programs) < 2:
            return
        sources = [sample.answer or "" for sample in programs.values()]
        called = {problem.code.entry_point} - {""} or await away(sum(map(len, sources)), _defined, sources)
        draw = Draw(n=self.test_samples, messages=self._prompt(problem, called), aside=True)
        (texts,) = await models.role("tester").sample_each(problem, [draw])
        known = _defined([problem.code.prelude])
        said = await each(lambda text: spoken(text.text), texts)
        tests = (await away(sum(map(len, said)), written_tests, said, called, known))[: self.tests]
        if not tests and not problem.code.tests:
            return
        ran = await lazily(
            _AT_ONCE, lambda sample: self._passed(problem, sample, tests, sandbox), list(programs.values())
        )
        passed = dict(zip(programs, ran, strict=True))
        every = np.full((len(samples), len(ran[0])), np.nan)
        for row, sample in zip(every, samples, strict=True):
            row[:] = math.nan if sample.key is None else passed[sample.key]
        if np.isnan(every).all():
            return  # the budget let nothing run
        public, passes = every[:, : len(problem.code.tests)], every[:, len(problem.code.tests) :]
        keys = codes([sample.key for sample in samples])
        tier = np.where(np.isnan(public).any(-1), np.nan, public.all(-1))
        chosen, share = pick(
            samples, consensus_choice(keys, passes, public=tier, lengths=[sample.tokens for sample in samples])
        )
        agreed = consensus_scores(keys, passes, public=tier)
        scores = [None if math.isnan(score) else float(score) for score in agreed]
        report(samples, chosen=chosen, scores=scores, confidence=share)

    def _prompt(self, problem: Problem, called: Iterable[str]) -> tuple[Message, ...]:
        call = f"{min(called, default='f')}(input)"
        return (Message(content=_PROMPT.format(question=problem.question, tests=self.tests_each, call=call)),)

    async def _passed(
        self, problem: Problem, sample: Candidate, tests: Sequence[str], sandbox: MeteredSandbox
    ) -> list[float]:
        """Whether a program passes each public and each written test; NaN where the budget did not let it run."""
        every = [*problem.code.tests, *tests]
        ran = await sandbox.test(
            problem.code, sample.answer or "", every, lane=sample.address, test_seconds=self.test_seconds
        )
        return [math.nan] * len(every) if ran is None else [float(passed) for passed in ran.passed]


def _assertions(text: str, called: frozenset[str], free: set[str]) -> Iterator[str]:
    """The usable assertions of one text, in its order."""
    fenced = blocks(text)
    last = max((block.part for block in fenced), default=0)  # thoughts do not count
    for source in [block.content for block in fenced if block.part == last] or [text]:
        for test in _asserts(source):
            inside = list(ast.walk(test))
            used = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
            bound = {node.id for node in inside if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
            bound |= {node.arg for node in inside if isinstance(node, ast.arg)}
            calls = {node.func.id for node in inside if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
            if calls & called and used <= free | bound:
                with contextlib.suppress(ValueError, RecursionError):  # a number or an expression beyond all bounds
                    yield ast.unparse(test)


def _asserts(source: str) -> list[ast.Assert]:
    """All assertions in a piece of source, in its order; where it is not Python, those that are one line."""
    whole = _parsed(textwrap.dedent(source))
    trees = [whole] if whole else [_parsed(line.strip()) for line in source.split("\n") if "assert" in line]
    asserts = [node for tree in trees if tree for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    return sorted(asserts, key=lambda node: node.lineno) if whole else asserts


def _defined(sources: Iterable[str]) -> set[str]:
    """Names that pieces of source define or import at their top level."""
    names: set[str] = set()
    for tree in map(_parsed, sources):
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def _parsed(source: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in texts; the model wrote them
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
