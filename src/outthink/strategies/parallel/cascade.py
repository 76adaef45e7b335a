"""Cascade: a cheap model answers, and where its answer conforms badly to stored ones the dear model answers instead.

The calibration controls how often the dear model takes over (alpha), not how often the answer is wrong, and only on
questions like those of the calibration: on harder ones it takes over more often.

Source: the conformal decision of ATTS: Asynchronous Test-Time Scaling via Conformal Prediction (2025); the authors'
released code, a note on the paper and the abstract were read, not the paper. Differs: this is not ATTS, in which the
dear model scores each chunk of the draft by its perplexity and goes on from it. Here there is one turn of whole
answers, scored by the draft's own agreement or logprob or by a verifier, and the dear model answers anew. Ties are
broken at random, so that the rate is alpha with scores of few values, too; a missing score takes over.

Pays: where a dear model should be called at a chosen rate. How often answers are wrong is not controlled.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.errors import MissingResource, NothingCameBack, PromptTooLong, UsageError
from outthink.maths.conformal import takes_over
from outthink.maths.selection import Selected, best_of, codes, majority, numbers
from outthink.model import Model, Models
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.choosing import by_majority, pick
from outthink.strategies.parallel.likelihood import mean_logprob
from outthink.together import each
from outthink.types import Problem, Sampling

SCHEMA = 1
"""Version of the calibration file; a reader refuses another one."""

Signal = Literal["agreement", "logprob", "verifier"]
_DIGITS = 12  # scores that differ by less are ties, in the file and live


def drafted(
    signal: Signal,
    keys: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    logprobs: ArrayLike | None = None,
    scores: ArrayLike | None = None,
) -> tuple[Selected, NDArray[np.float64]]:
    """The draft's answer among its samples (..., n), and how badly it conforms (...); NaN where that is not known.

    - agreement: the majority; 1 - its votes / n, in [0, 1). Unreadable samples count among the n.
    - logprob: the majority; the lowest mean negative logprob (nats per token, at least 0) of a sample that has it.
    - verifier: the sample with the highest score; 1 - that score.

    Args:
        keys: integers; equal means equal answers, -1 is INVALID.
        lengths: tokens; break ties towards the shorter.
        logprobs, scores: mean logprob, and score of the verifier, of each sample; NaN where missing.
    """
    keys = np.asarray(keys, np.intp)
    if signal == "verifier":
        known = np.full(keys.shape, np.nan) if scores is None else np.asarray(scores, float)
        choice = best_of(keys, known, lengths=lengths)
        badness = 1 - np.take_along_axis(known, np.maximum(choice.index, 0)[..., None], -1)[..., 0]
    else:
        choice = majority(keys, lengths=lengths)
        chosen = np.take_along_axis(keys, np.maximum(choice.index, 0)[..., None], -1)
        if signal == "agreement":
            badness = 1 - (keys == chosen).mean(-1)
        else:
            known = np.full(keys.shape, np.nan) if logprobs is None else np.asarray(logprobs, float)
            badness = -np.where((keys == chosen) & ~np.isnan(known), known, -np.inf).max(-1)
            badness = np.where(np.isinf(badness), np.nan, badness)
    return choice, np.asarray(np.round(np.where(choice.index >= 0, badness, np.nan), _DIGITS), dtype=float)


@dataclass(frozen=True, kw_only=True)
class DraftScores:
    """The scores of a draft model on questions like those to come, as `outthink cascade fit` stores them.

    Args:
        model: name of the draft model.
        signal, n: what the scores are, and of how many samples; as in `Cascade`.
        sampling: how they were drawn; None where the pool does not say.
        scores: one per question; None is a missing one.
        made: from what and how it was made, for people.
    """

    model: str
    signal: Signal
    n: int
    sampling: Sampling | None
    scores: tuple[float | None, ...]
    made: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> DraftScores:
        """Read a file that holds `text`; raises UsageError with what is wrong with it."""
        from pydantic import TypeAdapter, ValidationError  # here, because importing pydantic is slow

        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as cause:
            raise UsageError(f"Cannot read the calibration {path}: {cause.strerror}.") from None
        except (ValueError, RecursionError):
            raw = None
        if not isinstance(raw, dict) or "takeover" not in raw:
            raise UsageError(f"{path} is no calibration; make one with `outthink cascade fit`.")
        version = raw.pop("takeover")
        if version != SCHEMA:
            raise UsageError(f"{path} has version {version}; this program reads {SCHEMA}: fit it again.")
        try:
            read: DraftScores = TypeAdapter(cls).validate_python(raw)
        except ValidationError as cause:
            first = cause.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"{path} is not a whole calibration ({where}: {first['msg']}).") from None
        return read

    def text(self) -> str:
        """The file: JSON with an entry a line, the scores in order of size."""
        scores = sorted(self.scores, key=lambda score: math.inf if score is None else score)
        entries = {"takeover": SCHEMA, **dataclasses.asdict(self), "scores": scores}
        lines = [f"{json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in entries.items()]
        return "{\n " + ",\n ".join(lines) + "\n}\n"


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """n samples by the model in the role "draft"; m by the main model where they conform badly.

    Args:
        n: samples of the draft; at least 1, for agreement at least 2.
        m: samples of the main model where it takes over, of which the majority answers; at least 1.
        alpha: how often it takes over on questions like those of the calibration, from 0 (only where the score is
            missing) to 1 (always). For B take-overs among N questions it is B / N.
        signal: what says how badly the draft conforms: "agreement", "logprob" or "verifier"; see `drafted`.
        calibration: a file of `outthink cascade fit`, or the scores themselves.
    """

    n: int = 4
    m: int = 1
    alpha: float = 0.2
    signal: Signal = "agreement"
    calibration: str | tuple[float, ...] = ""

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "m"))
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, not {self.alpha}")
        if self.signal == "agreement" and self.n < 2:
            raise ValueError("one sample always agrees with itself: n must be at least 2, or choose another signal")
        if self.fitted is not None and (self.fitted.n, self.fitted.signal) != (self.n, self.signal):
            raise UsageError(
                f"{self.calibration} is for n = {self.fitted.n} and signal = {self.fitted.signal}, "
                f"not for n = {self.n} and signal = {self.signal}: set the same, or fit it again."
            )

    @cached_property
    def fitted(self) -> DraftScores | None:
        """What is in the file; None where there is none, or the scores themselves were given."""
        return DraftScores.open(self.calibration) if self.calibration and isinstance(self.calibration, str) else None

    @property
    def recorded_cap(self) -> int | None:
        """The cap of the drafts that it was calibrated on, where their pool has told it."""
        told = None if self.fitted is None else self.fitted.sampling
        return None if told is None else told.max_tokens

    @property
    def unset(self) -> str | None:
        """What it cannot do without."""
        return None if self.calibration else "calibration: a file that `outthink cascade fit` made from a pool"

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        models: Models,
        rng: Rng,
        verifier: Scores | None = None,
    ) -> None:
        """The draft's answer is reported first, and stands unless the main model takes over and has one."""
        draft = models.role("draft")
        self._check(draft, verifier)
        try:
            samples = await draft.sample(problem, self.n, logprobs=self.signal == "logprob")
        except (NothingCameBack, PromptTooLong):  # the other model may do better
            samples = []
        chosen, share = by_majority(samples)
        scores: tuple[float | None, ...] | None = None
        if samples:
            report(samples, chosen=chosen, confidence=share)
            if verifier is not None and self.signal == "verifier":
                scores = await verifier.attempt(problem, samples)
        badness = math.nan
        if len(samples) == self.n:  # fewer are not what was calibrated
            choice, score = drafted(
                self.signal,
                codes([sample.key for sample in samples]),
                lengths=[sample.tokens for sample in samples],
                logprobs=numbers(await each(mean_logprob, samples)),
                scores=None if scores is None else numbers(scores),
            )
            badness = float(score)
            if scores is not None and not math.isnan(badness):
                chosen, share = pick(samples, choice)
                report(samples, chosen=chosen, scores=scores, confidence=share)
        stored = numbers(self.calibration if self.fitted is None else self.fitted.scores)  # type: ignore[arg-type]  # a path has been opened
        if not takes_over(badness, stored, self.alpha, 1 - rng.at("take over").random()):
            return
        taken = await model.sample(problem, self.m)
        better, agreed = by_majority(taken)
        if better is not None:
            chosen, share = better, agreed
        report([*samples, *taken], chosen=chosen, confidence=share)

    def _check(self, draft: Model, verifier: Scores | None) -> None:
        """Refuse, before anything is spent, what the calibration does not speak of."""
        if (lack := self.unset) is not None:
            raise MissingResource(f"cascade needs {lack}.")
        if self.signal == "verifier" and verifier is None:
            raise MissingResource("The signal verifier needs one: pass verifier=..., or --verifier.")
        if self.signal == "logprob" and "logprobs" not in draft.powers:
            raise MissingResource(
                f"{draft.name} gives no token logprobs; choose another signal, or another draft model."
            )
        if self.fitted is None:
            return
        if self.fitted.model != draft.name:
            raise UsageError(
                f"{self.calibration} is for the draft model {self.fitted.model}, not for {draft.name}: "
                f"pass --role draft={self.fitted.model}, or fit it again on a pool of the other."
            )
        if self.fitted.sampling not in (None, draft.sampling):
            raise UsageError(
                f"{self.calibration} is for samples drawn with {self.fitted.sampling}, not with {draft.sampling}: "
                "draw them alike, or fit it again."
            )
