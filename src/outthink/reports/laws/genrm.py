"""`outthink law genrm`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outthink.errors import Unidentified, UsageError
from outthink.laws import genrm as _genrm
from outthink.reports.analysis import Analysis, Cell, curve, estimated, estimates
from outthink.reports.figures import Axis, Figure
from outthink.reports.laws.data import independent, judged, only
from outthink.types import AnswerKind


def genrm(
    files: Sequence[Path],
    *,
    at: Sequence[float] = (),
    verifier: str | None = None,
    verdict_cost: float | None = None,
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Analysis:
    """More solutions with a vote, or fewer that are each verified several times, at equal compute.

    A pool of independent samples, each with several verdicts, and what a verdict costs: --verdict-cost.
    """
    path = only(files, "genrm")
    pool, scorer = judged(independent(path, answer=answer), verifier)
    keys = [problem.keys for problem in pool.problems if problem.keys is not None]
    if len(keys) < len(pool.problems):
        raise UsageError(f"{path} has no answers, so that there is no vote to compare with.")
    if verdict_cost is None:
        raise UsageError(
            "The law genrm needs --verdict-cost: the tokens of one verdict over those of one solution, as measured."
        )
    try:
        price = _genrm.VerifyingCost(ratio=verdict_cost)
    except ValueError as cause:
        raise UsageError(f"--verdict-cost: {cause}.") from None
    bought = _genrm.options(
        keys,
        [problem.correct for problem in pool.problems],
        [problem.scores[scorer] for problem in pool.problems],
        price=price,
        seed=seed,
    )
    curves = _genrm.compare(bought, seed=seed)
    vote = estimates(curves.vote, curves.vote_interval, "share")
    verified = estimates(curves.verified, curves.verified_interval, "share")
    difference = estimates(curves.difference, curves.difference_interval, "points")
    sentences = []
    if curves.crossover is None:
        sentences.append(f"Up to the compute of {curves.budgets[-1]:g} solutions a plain vote is better.")
    else:
        around = curves.crossover_interval
        from_here = Cell(curves.crossover) if around is None else estimated(curves.crossover, around)
        sentences.append(f"From the compute of {from_here} solutions on, verifying is at least as good as a vote.")
    if all(cell.low is not None and cell.low <= 0 <= (cell.high or 0) for cell in difference):
        sentences.append("Yet at no budget is the difference larger than chance may make it.")
    split: _genrm.Split | None = None
    try:
        split = _genrm.fit_split(bought, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"How the best split grows with compute C is not known. {refusal}")
    else:
        a, b = estimates((split.a, split.b), split.parameters)
        sentences.append(f"The best split grows as S = {split.s:.3g} C^a, a = {a}, and V = {split.v:.3g} C^b, b = {b}.")
    if split is not None and split.misses:
        off = np.exp(np.abs(split.drift)).max()
        sentences.append(
            f"Fitted to half of the budgets, the best split is off by a factor of {off:.2g} at the largest, more than "
            "chance makes it; so it is no power law, and its intervals beyond are wider by as much at each doubling."
        )
    for budget in at:
        if split is not None:
            s, v = split.allocate(max(budget, 1.0), price, crossover=curves.crossover)
            around = split.at_interval(budget)
            known = ", ".join(
                f"{name} {low:.3g} to {high:.3g}" for name, low, high in zip("SV", around.low, around.high, strict=True)
            )
            said = f"{s} solutions with {v} verdicts each ({known}, if the law is right)" if v else f"a vote of {s}"
            sentences.append(f"At {budget:g}: {said}.")
            if budget > 10 * split.budgets.max():
                sentences.append(f"{budget:g} is more than ten times beyond what was fitted; nothing supports it.")
        elif curves.budgets[0] <= budget <= curves.budgets[-1]:
            told = estimated(curves.at(budget), curves.at_interval(budget), "points")
            sentences.append(f"At {budget:g}: verified minus vote is {told} points.")
        else:
            raise Unidentified(f"Nothing is known of a budget of {budget:g}: {sentences[-1]}")
    return Analysis(
        title="Solve or verify: S solutions with V verdicts each cost S (1 + lambda V)",
        columns=("compute, in solutions", "vote", "verified", "difference", "S", "V"),
        rows=tuple(
            (f"{budget:.4g}", *cells, Cell(float(s)), Cell(float(v)))
            for budget, *cells, s, v in zip(
                curves.budgets, vote, verified, difference, curves.solutions, curves.verifications, strict=True
            )
        ),
        sentences=(*sentences, f"A vote never has more than the {curves.most} solutions that were recorded."),
        figure=Figure(
            title=f"Solve or verify, lambda = {verdict_cost:g}",
            x=Axis(title="compute per problem, in solutions", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=(curve("vote", curves.budgets, vote), curve("verified", curves.budgets, verified)),
        ),
    )
