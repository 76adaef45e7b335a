"""`outthink law verification`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from outthink.errors import Unidentified, UsageError
from outthink.laws import verification as _verification
from outthink.records.pools import read_pool
from outthink.reports.analysis import Analysis, Cell, Unit, bars, estimated, estimates, worded
from outthink.reports.figures import Axis, Figure
from outthink.reports.laws.data import judged


def verification(
    files: Sequence[Path], *, at: Sequence[float] = (), verifier: str | None = None, seed: int = 0
) -> Analysis:
    """How often a verifier accepts right and rejects wrong samples, from hard to easy questions, and what that gains.

    A pool with verdicts; further pools of the same problems, by other models, say how hard each problem is.
    """
    pool, scorer = judged(read_pool(files[0]), verifier)
    others = [read_pool(path) for path in files[1:]]
    correct = [[problem.correct for problem in pool.problems]]
    for other in others:
        by_id = {problem.id: problem.correct for problem in other.problems}
        missing = [problem.id for problem in pool.problems if problem.id not in by_id]
        if missing:
            raise UsageError(f"{other.path} has no samples of {missing[0]!r}, which {files[0]} has.")
        correct.append([by_id[problem.id] for problem in pool.problems])
    counts = _verification.count(correct[0], [problem.scores[scorer] for problem in pool.problems])
    whole = _verification.fit(counts, seed=seed)
    easiness = _verification.difficulty(correct[1:] or correct)
    groups: list[tuple[str, float, _verification.Verifier]] = [("all", float(easiness.mean()), whole)]
    sentences = []
    try:
        parts = _verification.by_difficulty(counts, easiness, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"How it depends on difficulty is not known. {refusal}")
    else:
        for place, (easy, part) in enumerate(zip(parts.easiness.tolist(), parts.bins, strict=True)):
            if part is not None:
                end = " (hardest)" if place == 0 else " (easiest)" if place == len(parts.bins) - 1 else ""
                groups.append((f"part {place + 1} of {len(parts.bins)}{end}", easy, part))
        tpr, tnr = estimates(parts.trend, parts.trend_interval, "points")
        sentences.append(f"From the hardest to the easiest of these TPR changes by {tpr} and TNR by {tnr} points.")
    if len(files) == 1:
        sentences.append(
            "How hard a question is is read from the judged samples themselves; give pools of other models."
        )
    sentences.append(
        f"Keeping only what is accepted gains {_quality(whole, 'gain')} points on these problems"
        f"{'' if whole.pays else ', which may be nothing'}."
    )
    if whole.unread:
        sentences.append(f"{worded(whole.unread, 'share')} of the verdicts could not be read and do not accept.")
    for rate in at:
        if rate >= 1:
            raise UsageError(f"--at takes pass rates below 1 here, not {rate:g}.")
        sentences.append(
            f"Where {worded(rate, 'share')} of the samples are right, "
            f"{estimated(whole.at(rate), whole.at_interval(rate), 'share')} of the accepted ones would be."
        )
    quarters = groups[1:] or groups
    return Analysis(
        title=f"What {scorer} accepts: TPR of right and 1 - TNR of wrong samples",
        columns=("questions", "with both", "pass rate", "TPR", "TNR", "balanced", "gain"),
        rows=tuple(
            (
                group,
                Cell(rated.questions),
                Cell(rated.value.pass_rate, "share"),
                *(_quality(rated, name) for name in ("tpr", "tnr", "balanced", "gain")),
            )
            for group, _, rated in groups
        ),
        sentences=tuple(sentences),
        figure=Figure(
            title=f"What {scorer} accepts and rejects",
            x=Axis(title="pass rate of the questions, hard to easy", percent=True),
            y=Axis(title="share of samples, mean over questions", percent=True),
            series=tuple(
                bars(told, [easy for _, easy, _ in quarters], [_quality(rated, name) for _, _, rated in quarters])
                for name, told in (("tpr", "TPR: right ones accepted"), ("tnr", "TNR: wrong ones rejected"))
            ),
        ),
    )


def _quality(verifier: _verification.Verifier, name: str) -> Cell:
    unit: Unit = "points" if name == "gain" else "share"
    return Cell(getattr(verifier.value, name), unit, getattr(verifier.low, name), getattr(verifier.high, name))
