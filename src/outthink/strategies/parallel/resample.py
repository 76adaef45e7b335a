"""Resampling with an imperfect verifier: sample until one passes, but give up where going on would do harm.

Source: Stroebl et al., Inference Scaling fLaws: The Limits of LLM Resampling with Imperfect Verifiers (2024); its
notebooks, a summary and the abstract read, not the paper itself. Differs: the paper analyses the method, here it runs;
the number of attempts comes from a calibration that is given.

Pays: where a check lets wrong answers through and errors are dear: it stops early, and may give no answer. 12 points
above the vote at equal tokens on sums (docs/results/selection.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outthink.laws.imperfect import accepted_now, best_attempts
from outthink.maths.selection import Drawn, Replayed
from outthink.model import Model
from outthink.rewards.scores import Scores
from outthink.strategies import Report
from outthink.strategies.checks import check
from outthink.strategies.flight import flight
from outthink.types import Candidate, Problem


@dataclass(frozen=True, kw_only=True)
class Resample:
    """The first sample that passes; no answer at all where none of K does.

    False positives limit what it reaches, whatever the number of attempts. With a calibration K is the number of
    attempts, up to n, with the largest expected utility, where a right answer earns 1, a wrong one costs `cost`, and
    no answer earns 0; K is often below 10, and 0 where every answer would be a bad bet. `laws.imperfect.calibrate`
    fits the calibration from samples with a stronger ground truth, which must not be those of the test.

    An abstention is a last round that has chosen nothing although it had candidates, or had none because K is 0; the
    trace says `abstained`. A deadline and a budget end it without an answer, too.

    Args:
        n: most samples; at least 1. Without rates, K is n.
        threshold: a sample passes with a score of at least this; 1 for tests that must all pass. A missing score
            does not pass.
        cost: of a false positive (C), at least 0, where a right answer earns 1.
        kappa: of a sample, at least 0, in the same unit.
        rates: success rates r of the types of problems; empty: not known.
        shares: how frequent the types are; empty: all alike.
        completeness, soundness: P(pass | right) and P(not pass | wrong) of the verifier at this threshold.
        ahead: samples in flight; more than 1 is faster, and what is in flight at the end is cancelled and charged.
    """

    as_asked: ClassVar[bool] = True  # every answer is a sample of the problem's own messages

    abstains: ClassVar[bool] = True  # no answer is an answer: nothing stands in for it

    reads_recorded: ClassVar[frozenset[str]] = frozenset({"scores"})

    n: int = 10
    threshold: float = 0.5
    cost: float = 1.0
    kappa: float = 0.0
    rates: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    completeness: float = 1.0
    soundness: float = 1.0
    ahead: int = 1

    def __post_init__(self) -> None:
        check(self, at_least_one=("n", "ahead"))
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, not {self.threshold}")
        for name in ("cost", "kappa"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, not {getattr(self, name)}")
        for name in ("completeness", "soundness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if any(not 0 <= rate <= 1 for rate in self.rates):
            raise ValueError("rates must be from 0 to 1")
        if self.shares and len(self.shares) != len(self.rates):
            raise ValueError(f"shares must be as many as rates, {len(self.rates)}, not {len(self.shares)}")
        if any(not 0 <= share < math.inf for share in self.shares) or (self.shares and not any(self.shares)):
            raise ValueError("shares must be numbers of at least 0, and not all 0")

    @property
    def attempts(self) -> int:
        """K."""
        if not self.rates:
            return self.n
        return int(
            best_attempts(
                self.n,
                self.rates,
                self.completeness,
                self.soundness,
                shares=self.shares or None,
                cost=self.cost,
                kappa=self.kappa,
            )
        )

    async def run(self, problem: Problem, report: Report, *, model: Model, verifier: Scores) -> None:
        """One attempt after the other, in the order of their addresses."""
        if self.attempts == 0:
            report([], chosen=None)
            return
        seen: list[Candidate] = []
        scores: list[float | None] = []
        async with flight(model.draws(problem), self.attempts, self.ahead) as flying:
            while (sample := await flying.next()) is not None:
                # what cannot be read is wrong, and nobody needs to be asked
                (score,) = (None,) if sample.key is None else await verifier.score(problem, [sample])
                passed = score is not None and score >= self.threshold
                confidence = self._confidence(len(seen)) if passed else None
                seen.append(sample)
                scores.append(score)
                report(seen, chosen=sample if passed else None, scores=scores, confidence=confidence, fixed=passed)
                if passed:
                    return

    def replay(self, drawn: Drawn) -> Replayed:
        """The same attempts on recorded scores."""
        assert drawn.scores is not None
        scores = np.where(drawn.keys >= 0, drawn.scores, np.nan)[..., : self.attempts]
        passed = scores >= self.threshold
        index = np.where(passed.any(-1), passed.argmax(-1) if self.attempts else 0, -1)
        return Replayed(index=index, used=np.where(index >= 0, index + 1, scores.shape[-1]))

    def _confidence(self, rejected: int) -> float | None:
        """By the calibration, how likely a sample is right that passes after so many did not."""
        if not self.rates:
            return None
        return float(accepted_now(rejected, self.rates, self.completeness, self.soundness, shares=self.shares or None))
