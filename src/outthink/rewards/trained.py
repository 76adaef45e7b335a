"""A probe: a small process reward model, trained by `outthink prm train` on recorded samples; it calls no model.

It estimates the chance that a solution which begins like this ends right, from its text and its token logprobs. It
knows how a solution is written and how sure the model was; it cannot calculate, and never learns what is true.

Source: labels are the outcomes of whole samples, as of the verifiers in Cobbe et al., Training Verifiers to Solve Math
Word Problems (2021), from memory; the features are our own. Differs: logistic regression or one small hidden layer
instead of a language model, so it is cheap, and narrow: it knows the model and the kind of task it was trained on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as File
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outthink.answers.steps import split_steps
from outthink.errors import UsageError
from outthink.rewards import Path
from outthink.rng import digest
from outthink.together import each
from outthink.types import Problem

SCHEMA = 1
"""Version of the file and of the features; a reader refuses another one."""

Numbers = NDArray[np.float64]
Piece = tuple[str, Sequence[float] | None]
"""A part of a solution, such as a token or a segment, and the logprobs of its tokens where they are known."""

# ---- cutting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The beginning of a solution, cut into steps.

    Args:
        texts: of the steps, at least one, without the white space around them; steps of white space are left out.
        logprobs: those of the tokens of each step; None where it is not known which tokens make which step.
        whole: those of all tokens; None where not known.
    """

    texts: tuple[str, ...]
    logprobs: tuple[Numbers, ...] | None = None
    whole: Numbers | None = None


def cut(pieces: Sequence[Piece], delimiter: str) -> Steps | None:
    """The steps of what the pieces join to; None where that is white space only.

    A piece belongs to the step in which its text begins, white space at its front aside, and white space between steps
    to the one that follows. A piece that reaches into another step hides where that step's logprobs begin, so then
    those of no step are known.
    """
    joined = "".join(text for text, _ in pieces)
    spans = _spans(joined, delimiter)
    if not spans:
        return None
    texts = tuple(joined[start:end].strip() for start, end in spans)
    known = [values for _, values in pieces if values is not None]
    if len(known) < len(pieces) or not any(known):
        return Steps(texts)
    own: list[list[float]] = [[] for _ in spans]
    between: list[float] = []
    clear = True
    for (_, values), step in zip(pieces, _owners(pieces, spans), strict=True):
        between += values or ()
        if step is not None:
            own[step[0]] += between
            between = []
            clear = clear and step[0] == step[1]
    whole = np.array([value for values in known for value in values], dtype=float)
    clear = clear and all(own)
    return Steps(texts, tuple(np.array(values, dtype=float) for values in own) if clear else None, whole)


def prefixes(pieces: Sequence[Piece], delimiter: str) -> list[Steps]:
    """What is known at the end of every step of a whole solution, as a search would have met it there.

    Where pieces reach over the ends of steps, only the texts are known there.
    """
    joined = "".join(text for text, _ in pieces)
    spans = _spans(joined, delimiter)
    ends = [0] * len(spans)
    for number, step in enumerate(_owners(pieces, spans), start=1):
        if step is not None:
            ends[step[1]] = number
    beginnings = []
    for number, (_, end) in zip(ends, spans, strict=True):
        beginning = "".join(text for text, _ in pieces[:number])
        clear = beginning.rstrip() == joined[:end].rstrip()
        beginnings.append(cut(pieces[:number] if clear else [(joined[:end], None)], delimiter))
    if spans:
        beginnings[-1] = cut(pieces, delimiter)
    return [steps for steps in beginnings if steps is not None]


def _spans(text: str, delimiter: str) -> list[tuple[int, int]]:
    """Where the steps of a text begin and end."""
    spans: list[tuple[int, int]] = []
    for step in split_steps(text, delimiter):
        if step.strip():
            start = text.index(step, spans[-1][1] if spans else 0)
            spans.append((start, start + len(step)))
    return spans


def _owners(pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int] | None]:
    """For each piece the steps in which it begins and ends; None where it is white space between steps."""
    step = start = 0
    for text, _ in pieces:
        body = text.strip()
        first = start + (text.index(body) if body else 0)
        last = first + max(len(body) - 1, 0)
        start += len(text)
        while step < len(spans) and spans[step][1] <= first:
            step += 1
        if step == len(spans) or first < spans[step][0]:
            yield None
            continue
        end = step
        while end + 1 < len(spans) and spans[end + 1][0] <= last:
            end += 1
        yield step, end


# ---- features -------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s]")
_ANSWER = re.compile(r"####|\\boxed|\banswer\b", re.IGNORECASE)
_MARKS = frozenset("+-*/=×÷^<>")  # counted only, never worked out
_LIKELY, _UNLIKELY = math.log(0.5), math.log(0.1)


def features(question: str, steps: Steps) -> dict[str, float]:
    """All that is known about the beginning of a solution, by name; used for training and for scoring alike."""
    values = _text_features(question, steps.texts)
    if steps.whole is not None:
        values |= {f"all_{name}": value for name, value in _token_features(steps.whole).items()}
    if steps.logprobs is not None:
        values |= {f"step_{name}": value for name, value in _token_features(steps.logprobs[-1]).items()}
        values |= {f"path_{name}": value for name, value in _path_features(steps.logprobs).items()}
    return values


def _text_features(question: str, texts: Sequence[str]) -> dict[str, float]:
    *before, last = texts
    whole = "\n".join(texts)
    asked, numbers = _numbers(question), _numbers(last)
    earlier = [number for text in before for number in _numbers(text)]
    values = {
        "steps": float(len(texts)),
        "log_steps": math.log(len(texts)),
        "length": math.log1p(len(whole)),
        "step_length": math.log1p(len(last)),
        "question_length": math.log1p(len(question)),
        "digits": _share_of(whole, str.isdigit),
        "letters": _share_of(whole, str.isalpha),
        "step_digits": _share_of(last, str.isdigit),
        "step_letters": _share_of(last, str.isalpha),
        "step_marks": float(sum(character in _MARKS for character in last)),
        "step_equals": float(last.count("=")),
        "step_numbers": float(len(numbers)),
        "question_numbers": float(len(asked)),
        # shares of the step's numbers that stand in the question or before, and of the question's that are used
        "numbers_known": _within(numbers, {*asked, *earlier}),
        "numbers_of_question": _within(numbers, set(asked)),
        "numbers_of_previous": _within(numbers, set(_numbers(before[-1]) if before else asked)),
        "numbers_used": _within(asked, {*earlier, *numbers}),
        "numbers_used_before": _within(asked, set(earlier)),
        "repeats": float(last in before),
        "repeated": 1 - len(set(texts)) / len(texts),
        "answers": float(bool(_ANSWER.search(last))),
        "answered": float(any(_ANSWER.search(text) for text in before)),
    }
    words = [_words(text) for text in (question, *texts)]
    for n in (2, 3):  # the same for runs of words, numbers and signs
        runs = [_runs(part, n) for part in words]
        values[f"runs{n}_known"] = _within(runs[-1], set().union(*runs[:-1]))
        values[f"runs{n}_of_question"] = _within(runs[-1], runs[0])
        values[f"runs{n}_used"] = _within(runs[0], set().union(*runs[1:]))
    return values


def _token_features(logprobs: Numbers) -> dict[str, float]:
    values = {
        "mean": logprobs.mean(),
        "least": logprobs.min(),
        "first": logprobs[0],
        "last": logprobs[-1],
        "total": logprobs.sum(),
        **dict(zip(("tenth", "quarter", "half"), np.quantile(logprobs, (0.1, 0.25, 0.5)), strict=True)),
    }
    return {
        **{name: _sureness(value) for name, value in values.items()},
        "unlikely": float((logprobs < _LIKELY).sum()),
        "very_unlikely": float((logprobs < _UNLIKELY).sum()),
    }


def _path_features(steps: Sequence[Numbers]) -> dict[str, float]:
    means, least = [step.mean() for step in steps], [step.min() for step in steps]
    return {
        "worst_mean": _sureness(min(means)),
        "mean_least": _sureness(np.mean(least)),
        "unsure_steps": float(np.mean([value < _LIKELY for value in least])),
        "previous_mean": _sureness(means[-2]) if len(steps) > 1 else _sureness(0.0),
        "previous_least": _sureness(least[-2]) if len(steps) > 1 else _sureness(0.0),
    }


def _sureness(logprob: float) -> float:
    """Logprobs reach from nearly 0 to -20; their logarithm tells apart the sure ones, too."""
    return -math.log(max(-float(logprob), 0.0) + 1e-3)


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[str, ...]:
    return tuple(map(_plain, _NUMBER.findall(text)))


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[str, ...]:
    return tuple(map(_plain, _WORD.findall(text)))


def _plain(word: str) -> str:
    return word.replace(",", "") or word  # 1,500 is 1500


def _runs(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def _within(parts: Iterable[Any], whole: set[Any]) -> float:
    """Share of the parts that are in the whole; 1 where there are none."""
    there = [part in whole for part in parts]
    return sum(there) / len(there) if there else 1.0


def _share_of(text: str, kind: Any) -> float:
    return float(sum(map(kind, text)) / max(len(text), 1))


_ONE = np.zeros(1)
_TEXT, _WHOLE, _STEPS = (
    tuple(features("", steps)) for steps in (Steps(("",)), Steps(("",), None, _ONE), Steps(("",), (_ONE,), _ONE))
)
HEADS: Mapping[str, tuple[str, ...]] = {"steps": _STEPS, "whole": _WHOLE, "text": _TEXT}
"""Features of each classifier of a probe, the one that knows most first: "steps" where the logprobs of every step are
known, "whole" where only those of all tokens together are (a finished sample), "text" where there are none."""


def head_for(steps: Steps, heads: Iterable[str] = tuple(HEADS)) -> str | None:
    """The first of these classifiers, in the order of HEADS, that has what it needs."""
    lacking = {"steps"} if steps.logprobs is None else set()
    lacking |= {"whole"} if steps.whole is None else set()
    return next((name for name in HEADS if name in heads and name not in lacking), None)


# ---- the classifier and its file ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input.

    Args:
        mean, scale: of it in training; the input is its distance from the mean in units of the scale, at most 5.
        weights: one per hidden unit; a single one without a hidden layer.
    """

    mean: float
    scale: float
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier: logistic regression, or with `output` one hidden layer of rectified units.

    Args:
        biases: one per hidden unit; a single one without a hidden layer.
        output: weights of the hidden units; empty: there are none.
        offset: added to their sum.
    """

    features: Mapping[str, Feature]
    biases: tuple[float, ...]
    output: tuple[float, ...] = ()
    offset: float = 0.0

    def __post_init__(self) -> None:
        units = len(self.output) or 1
        if len(self.biases) != units or any(len(one.weights) != units for one in self.features.values()):
            raise ValueError(f"there must be {units} biases, and as many weights of every feature")
        numbers = [*self.biases, *self.output, self.offset]
        for one in self.features.values():
            numbers += [one.mean, one.scale, *one.weights]
            if one.scale <= 0:
                raise ValueError("scales must be above 0")
        if not all(map(math.isfinite, numbers)):
            raise ValueError("all numbers must be finite")

    def __call__(self, values: Numbers) -> Numbers:
        """The chance (...,) of a right outcome, from features (..., d) in the order of `features`."""
        inputs = self.features.values()
        mean, scale = np.array([one.mean for one in inputs]), np.array([one.scale for one in inputs])
        units = standardised(values, mean, scale) @ np.array([one.weights for one in inputs]) + np.array(self.biases)
        sums = np.maximum(units, 0.0) @ np.array(self.output) + self.offset if self.output else units[..., 0]
        return np.asarray(np.exp(-np.logaddexp(0.0, -sums)))


def standardised(values: Numbers, mean: Numbers, scale: Numbers) -> Numbers:
    """Features (..., d) as distances from the mean in units of the scale; beyond 5 all are alike."""
    return np.clip((values - mean) / scale, -5.0, 5.0)


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainedPRM:
    """A trained probe, as a verifier or a PRM: the score of a path is the chance that its solution ends right.

    Args:
        delimiter: where the steps end that it was trained on; paths are cut there again.
        heads: classifiers by name (see HEADS); "text" is always there.
        trained: what it was trained on.
        held_out: how good its scores were on problems that they were not trained on.
    """

    delimiter: str
    heads: Mapping[str, Head]
    trained: Mapping[str, Any]
    held_out: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.delimiter:
            raise ValueError("the delimiter is empty")
        if "text" not in self.heads:
            raise ValueError("there is no classifier for text alone")
        for name, head in self.heads.items():
            if tuple(head.features) != HEADS.get(name):
                raise ValueError(f"the classifier {name!r} has other features than this program knows")

    @classmethod
    def open(cls, path: str | File) -> TrainedPRM:
        """Read a file that `save` wrote; raises UsageError with what is wrong with it."""
        from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

        try:
            raw = json.loads(File(path).read_text(encoding="utf-8"))
        except OSError as cause:
            raise UsageError(f"Cannot read the probe {path}: {cause.strerror}.") from None
        except (ValueError, RecursionError):
            raise UsageError(f"{path} is not a probe: it is no JSON; train one with `outthink prm train`.") from None
        if not isinstance(raw, dict) or "probe" not in raw:
            raise UsageError(f"{path} is not a probe; train one with `outthink prm train`.")
        version = raw.pop("probe")
        if version != SCHEMA:
            raise UsageError(f"{path} has version {version}; this program reads {SCHEMA}: train it again.")
        try:
            probe: TrainedPRM = TypeAdapter(cls).validate_python(raw)
        except ValidationError as cause:
            first = cause.errors()[0]
            where = ".".join(map(str, first["loc"]))
            what = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{path} is not a whole probe ({where + ': ' if where else ''}{what}).") from None
        return probe

    def text(self) -> str:
        """The file: JSON with one feature a line."""
        heads = {
            name: {
                "features": {
                    key: {"mean": one.mean, "scale": one.scale, "weights": one.weights}
                    for key, one in head.features.items()
                },
                "biases": head.biases,
                "output": head.output,
                "offset": head.offset,
            }
            for name, head in self.heads.items()
        }
        whole = {
            "probe": SCHEMA,
            "delimiter": self.delimiter,
            "trained": dict(self.trained),
            "held_out": dict(self.held_out),
            "heads": heads,
        }
        return _brief(whole) + "\n"

    def __repr__(self) -> str:
        return f"Probe({self.trained.get('model')!r}, {digest(0, self.text()):016x})"  # the file is long

    thoughts = True  # as in the recorded samples that it learned from

    @property
    def reads(self) -> frozenset[str]:
        """Token logprobs, unless it was trained without any."""
        return frozenset({"logprobs"}) if len(self.heads) > 1 else frozenset()

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        """One score per path; None where it has no text yet."""
        return await each(
            lambda path: self.chance(problem.question, [(segment.text, segment.logprobs) for segment in path]), paths
        )

    def chance(self, question: str, pieces: Sequence[Piece]) -> float | None:
        """The chance that a solution which begins with these pieces ends right; None without any text."""
        steps = cut(pieces, self.delimiter)
        if steps is None:
            return None
        name = head_for(steps, self.heads)
        assert name is not None  # there is always one for text
        known = features(question, steps)
        return float(self.heads[name](np.array([known[feature] for feature in HEADS[name]])))


def _brief(value: Any, indent: int = 0) -> str:
    """JSON whose objects of objects have a line for each entry."""
    if isinstance(value, dict) and any(isinstance(entry, dict) for entry in value.values()):
        inner = [f"{' ' * (indent + 1)}{json.dumps(key)}: {_brief(entry, indent + 1)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(inner) + f"\n{' ' * indent}}}"
    return json.dumps(value, ensure_ascii=False)
