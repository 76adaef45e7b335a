"""Scorers: what judges whole answers (a verifier) or the last of several steps (a process reward model, PRM).

One protocol serves both: a scorer gets paths, each a tuple of segments from the first to the last. A verifier reads
the whole path, a PRM scores its last step. A missing score is None, never 0.
"""

from __future__ import annotations

from typing import Any, Protocol

from outthink.types import Candidate

Path = tuple[Candidate, ...]
SCORERS = {
    "confidence": "outthink.rewards.confidence:Confidence",
    "judge": "outthink.rewards.judge:Judge",
    "analysis": "outthink.rewards.analysis:AnalysisScorer",
    "soundness": "outthink.rewards.soundness:Soundness",
    "pairwise": "outthink.rewards.pairwise:Pairwise",
    "critique": "outthink.rewards.critique:Critique",
    "rollout": "outthink.rewards.rollout:Rollout",
    "advantage": "outthink.rewards.advantage:Advantage",
    "tests": "outthink.rewards.tests:PublicTests",
    "random": "outthink.rewards.random:Random",
}
"""Scorers that need nothing but a model or the sandbox, by name."""

RENAMED = {"genprm": "analysis"}
"""Names that scorers once had, and those that they have now."""


class Scorer(Protocol):
    """Scores paths: `async def score(problem, paths, *, <resources by name>)` with one score or None per path.

    Like a strategy's `run`, `score` names the further resources it needs (such as `model`), so it is looked up and
    not typed here. Three class variables may say more:

    - `reads`: fields of a candidate other than its text that the score depends on. Paths that agree in the text of
      every segment and in these fields are scored once.
    - `relative`: the score of a path depends on the others that are scored with it, so each is always scored.
    - `thoughts`: it is given what a model thought, too. Without it, it gets what was said (see `scores.said_part`).
    """

    @property
    def score(self) -> Any:
        """The coroutine function."""
