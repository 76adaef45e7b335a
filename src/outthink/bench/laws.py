"""Laws on recorded data: reads pools and runs, fits one law, and gives what it says as rows, sentences and a figure.

The laws themselves are in `outthink.laws`; here are the names they have on the command line, what data they are given,
and how what they find is worded. Each function below is one law: its docstring says in two paragraphs what it says and
which files it takes, and its keyword arguments are its options.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outthink import jsonl, tasks
from outthink.bench.analysis import (
    Analysis,
    Cell,
    Row,
    Unit,
    bars,
    by_quantity,
    curve,
    estimated,
    estimates,
    grid,
    mean_of,
    misfit,
    powers_of_two,
    short_names,
    too_far,
    worded,
)
from outthink.bench.pooldata import PoolData, read_pool, scored
from outthink.bench.replay import majority
from outthink.bench.report import curve as curve_of_trace
from outthink.bench.store import read_results, read_settings
from outthink.cost import flops
from outthink.cost import kinetics as _kinetics
from outthink.cost.shapes import read_shape
from outthink.errors import Unidentified, UnknownName, UsageError
from outthink.figures import Axis, Figure, Series
from outthink.laws import arise as _arise
from outthink.laws import crossover as _crossover
from outthink.laws import frontier as _frontier
from outthink.laws import genrm as _genrm
from outthink.laws import imperfect as _imperfect
from outthink.laws import length as _length
from outthink.laws import regret as _regret
from outthink.laws import verification as _verification
from outthink.laws.coverage import all_right_at_k, coverage_law, pass_at_k
from outthink.laws.intervals import Interval, bootstrap
from outthink.laws.passuntil import pass_until
from outthink.laws.saturation import ManyRates, OneRate, fit_many_rates, fit_one_rate
from outthink.models import catalog
from outthink.models.engine import Shape
from outthink.types import AnswerKind, Usage

Floats = NDArray[np.float64]
Counts = NDArray[np.intp]
_SUBSAMPLES = 1000  # random orders of the samples of each problem, where a vote is computed
_ORDERS = 4  # of samples, each begun at every place, over which the cost of the first so many is averaged
_POINT = 0.01  # what one more unit must add, so that it is worth it: one problem in a hundred
_COSTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # of a wrong answer, where a right one earns 1


def analyse(name: str, files: Sequence[Path], **options: Any) -> Analysis:
    """The law of this name on these files.

    Args:
        options: what was asked of it; one that the law does not have is refused.

    Raises UnknownName, UsageError where files or options do not fit the law, and Unidentified where they cannot say
    what its parameters are.
    """
    if name not in LAWS:
        raise UnknownName("law", name, LAWS)
    if not files:
        raise UsageError(f"The law {name} needs files: {needs(name)}")
    known = inspect.signature(LAWS[name]).parameters
    for option in options:
        if option not in known:
            raise UsageError(f"The law {name} has no option --{option.replace('_', '-')}.")
    return LAWS[name](files, **options)


def summary(name: str) -> str:
    """What a law says, in one line."""
    return _paragraphs(name)[0]


def needs(name: str) -> str:
    """Which files it takes, in one line."""
    return _paragraphs(name)[1]


def _paragraphs(name: str) -> list[str]:
    return [" ".join(part.split()) for part in inspect.cleandoc(LAWS[name].__doc__ or "").split("\n\n")]


# --------------------------------------------------------------------------------------- how often samples are right


def coverage(files: Sequence[Path], *, at: Sequence[float] = (), seed: int = 0) -> Analysis:
    """P(some sample of k is right) grows as exp(a k^b).

    Pools of independent samples, at least three of each problem.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for name, path in short_names(files):
        pool = _independent(path)
        n, c = _counts(pool)
        with _naming(name):
            law = coverage_law(n, c, seed=seed)
        ks = powers_of_two(pool.samples)
        found = [mean_of(pass_at_k(n, c, k)) for k in ks]
        a, b = estimates((law.law.a, law.law.b), law.parameters)
        columns[name] = {
            "problems": Cell(len(n)),
            "samples": Cell(pool.samples),
            "pass@1": found[0],
            "pass@all": found[-1],
            "a": a,
            "b": b,
            **{f"law at {k:g}": estimated(law.at(k), law.at_interval(k), "share") for k in at},
        }
        with contextlib.suppress(Unidentified):  # there may be too few samples to leave half of them out
            half = coverage_law(n, c, most=pool.samples // 2, seed=seed)
            told = estimated(half.at(pool.samples), half.at_interval(pool.samples), "share")
            sentences.append(
                f"{name}: the law of k up to {pool.samples // 2} alone says {told} at {pool.samples}; measured is "
                f"{found[-1]}."
            )
        sentences += misfit(name, ks, found, law.at(ks))
        sentences += [too_far(name, k, pool.samples) for k in at if law.law.far(k)]
        dense = grid(1, max(pool.samples, *at, 1))
        series += [curve(name, dense, estimates(law.at(dense), law.at_interval(dense))), bars(name, ks, found)]
    return Analysis(
        title="Coverage: P(some sample of k is right) = exp(a k^b)",
        **by_quantity(columns),
        sentences=tuple(sentences),
        figure=Figure(
            title="Coverage",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(some sample is right), mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def passuntil(files: Sequence[Path]) -> Analysis:
    """Average, best and worst of k samples, and success rates by sampling until three have passed.

    Pools of independent samples.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for name, path in short_names(files):
        pool = _independent(path)
        n, c = _counts(pool)
        rates = [pass_until(problem.shuffled()) for problem in pool.problems]
        never = [rate.high for rate in rates if rate.high is not None]
        ks = sorted({*powers_of_two(pool.samples), *np.rint(grid(1, pool.samples)).astype(int).tolist()})
        best, worst = ([mean_of(of(n, c, k)) for k in ks] for of in (pass_at_k, all_right_at_k))
        columns[name] = {
            "problems": Cell(len(n)),
            "samples": Cell(pool.samples),
            "average": best[0],
            "rate until 3 pass": mean_of([rate.rate for rate in rates]),
            "samples that took": mean_of([rate.samples for rate in rates], "number"),
            "fewer than 3 passed": Cell(float(np.mean([rate.censored for rate in rates])), "share"),
            "best of all": best[-1],
            "worst of all": worst[-1],
        }
        if never:
            sentences.append(
                f"{name}: {len(never)} problems were never solved; that is no rate of 0 but one of at most "
                f"{worded(float(np.median(never)), 'share')} (95%, for each of them)."
            )
        of = f"{name}: " if len(files) > 1 else ""
        series += [
            curve(f"{of}best of k", ks, best),
            curve(f"{of}average", ks, [best[0]] * len(ks)),
            curve(f"{of}worst of k", ks, worst),
        ]
    return Analysis(
        title="PassUntil, and average, best and worst of k",
        **by_quantity(columns),
        sentences=(*sentences, "The best of k is what a perfect choice among the samples would reach, and no method."),
        figure=Figure(
            title="Average, best and worst of k samples",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="P(right), mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def saturation(
    files: Sequence[Path], *, at: Sequence[float] = (), answer: AnswerKind = "text", seed: int = 0
) -> Analysis:
    """Accuracy nears a ceiling, and after so many samples one more adds less than a point.

    Pools of independent samples, at least three of each problem; with answers, the majority vote is fitted, too.
    """
    columns: dict[str, dict[str, str | Cell | None]] = {}
    sentences: list[str] = []
    series: list[Series] = []
    for file, path in short_names(files):
        pool = _independent(path, answer=answer)
        n, c = _counts(pool)
        ks = powers_of_two(pool.samples)
        some = np.stack([pass_at_k(n, c, k) for k in ks], axis=-1)
        curves: list[tuple[str, Floats, bool]] = [
            ("some sample is right, many rates", some, True),
            ("some sample is right, one rate", some, False),
        ]
        if all(problem.keys is not None for problem in pool.problems):
            vote = majority(pool, ks, subsamples=_SUBSAMPLES, seed=seed)
            curves.append(("majority vote, one rate", np.stack([vote[k].accuracy for k in ks], axis=-1), False))
        refusals: dict[str, Unidentified] = {}
        for what, measured, many in curves:
            name = f"{file}: {what}" if len(files) > 1 else what
            law: ManyRates | OneRate
            if measured is some and refusals:
                continue  # one rate for all would promise a ceiling that these data do not show
            try:
                law = fit_many_rates(n, c, seed=seed) if many else fit_one_rate(ks, measured, seed=seed)
            except Unidentified as refusal:
                refusals[name] = refusal
                continue
            if isinstance(law, ManyRates):
                ceiling, rate, spread = estimates((law.ceiling, law.rate, law.spread), law.parameters, "share")
            else:
                ceiling, rate, spread = *estimates((law.ceiling, law.p), law.parameters, "share"), None
            gain, gap = (
                estimated(law.point(_POINT, rule=rule), law.point_interval(_POINT, rule=rule))
                for rule in ("gain", "gap")
            )
            columns[name] = {
                "problems": Cell(len(n)),
                "samples": Cell(pool.samples),
                "ceiling": ceiling,
                "rate": rate,
                "spread of rates": None if spread is None else spread._replace(unit="number"),
                "one more adds < 1 point after": gain,
                "all more add < 1 point after": gap,
                **{f"law at {k:g}": estimated(law.at(k), law.at_interval(k), "share") for k in at},
            }
            found = [mean_of(of) for of in measured.T]
            sentences += misfit(name, ks, found, law.at(ks))
            sentences += [too_far(name, k, pool.samples) for k in at if law.far(k)]
            dense = grid(1, max(pool.samples, *at, 1))
            series.append(curve(name, dense, estimates(law.at(dense), law.at_interval(dense))))
            if many or measured is not some:
                series.append(bars(name, ks, found))
        if not any(name.startswith(file) or len(files) == 1 for name in columns):
            raise Unidentified(f"{file}: {next(iter(refusals.values()))}")
        sentences += [f"{name}: {refusal}" for name, refusal in refusals.items()]
    return Analysis(
        title="Saturation: F(k) = ceiling (1 - mean of (1 - rate)^k)",
        **by_quantity(columns),
        sentences=tuple(sentences),
        figure=Figure(
            title="Saturation",
            x=Axis(title="samples per problem (k)", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


# -------------------------------------------------------------------------------------------------- what checks do


def imperfect(
    files: Sequence[Path], *, at: Sequence[float] = (), verifier: str | None = None, seed: int = 0
) -> Analysis:
    """Sampling until a check passes reaches a ceiling, and where errors cost something few attempts are best.

    A pool of independent samples with verdicts of a check; a sample passes with a score of at least one half.
    """
    pool, scorer = _judged(_independent(_only(files, "imperfect")), verifier)
    n, most = np.array([len(problem.correct) for problem in pool.problems]), pool.samples
    truth = [problem.correct for problem in pool.problems]
    passed = [_passes(problem.scores[scorer]) for problem in pool.problems]
    flat = np.concatenate(truth)
    if flat.all() or not flat.any():
        raise Unidentified(
            f"All samples are {'right' if flat.all() else 'wrong'}, so that nothing is known of what {scorer} does to "
            "the others."
        )
    fits = [_imperfect.resampling(truth, passed, cost=cost, seed=seed) for cost in _COSTS]
    right = np.array([int((a & b).sum()) for a, b in zip(truth, passed, strict=True)])
    wrong = np.array([int((~a & b).sum()) for a, b in zip(truth, passed, strict=True)])
    ks = sorted({*powers_of_two(most), *(int(k) for k in at if k <= most)})
    outcomes = [_imperfect.resampled(right, wrong, n, k) for k in ks]
    parts = {
        "right": [mean_of(of.right) for of in outcomes],
        "wrong": [mean_of(of.wrong) for of in outcomes],
        "nothing passed": [mean_of(of.none) for of in outcomes],
    }

    def law(problems: Counts, k: Any) -> Floats:
        """Right and wrong (2, k) by the types of these problems, with one completeness and one soundness for all."""
        found = _imperfect.calibrate([truth[one] for one in problems], [passed[one] for one in problems])
        rates, shares = np.array(found.rates)[:, None], np.array(found.shares)
        of = _imperfect.outcomes(rates, found.completeness, found.soundness, np.asarray(k, float))
        return np.stack([shares @ of.right, shares @ of.wrong])

    everything = np.arange(len(n))
    dense = grid(1, max(most, *at, 1))
    fitted, interval = law(everything, dense), bootstrap(lambda of: law(of, dense), len(n), seed=seed)
    known = _imperfect.calibrate(truth, passed)
    ceiling = estimated(fits[0].ceiling, fits[0].ceiling_interval, "share")
    sentences = [
        f"Without a limit on attempts {ceiling} of the answers are right; of single samples without the check "
        f"{worded(fits[0].single, 'share')} are.",
        f"With up to {most} attempts {parts['right'][-1]} of the answers are right and {parts['wrong'][-1]} wrong; the "
        f"tenth of the problems that {scorer} checks worst causes {worded(fits[0].concentration, 'share')} of the "
        "wrong samples that pass.",
        f"{scorer} passes {worded(known.completeness, 'share')} of the right samples and rejects "
        f"{worded(known.soundness, 'share')} of the wrong ones.",
        "What the best number of attempts is worth is measured on problems that did not choose it.",
        *misfit("one completeness and soundness for all", ks, parts["right"], law(everything, ks)[0]),
    ]
    if at:
        told, ends = law(everything, at), bootstrap(lambda of: law(of, at), len(n), seed=seed)
        for place, k in enumerate(at):
            both = [Cell(told[of, place], "share", ends.low[of, place], ends.high[of, place]) for of in (0, 1)]
            sentences.append(f"The law at {k:g} attempts: {both[0]} right, {both[1]} wrong.")
        sentences += [too_far(scorer, k, most) for k in at if k > 10 * most]
    series = [bars(name, ks, of) for name, of in parts.items()]
    for row, name in enumerate(("right", "wrong")):
        ends = Interval(low=interval.low[row], high=interval.high[row], missing=interval.missing)
        series.append(curve(name, dense, estimates(fitted[row], ends)))
    series.append(curve("right, without a limit", [1, float(dense[-1])], [ceiling, ceiling]))
    return Analysis(
        title=f"Resampling until {scorer} passes, where a right answer is worth 1",
        columns=("a wrong one costs", "best attempts", "worth", "one attempt", f"{most} attempts"),
        rows=tuple(
            (
                f"{cost:g}",
                estimated(of.best, of.best_interval),
                estimated(of.held_out, of.held_out_interval),
                *(estimated(of.at(k), of.at_interval(k)) for k in (1, most)),
            )
            for cost, of in zip(_COSTS, fits, strict=True)
        ),
        sentences=tuple(sentences),
        figure=Figure(
            title=f"Resampling until {scorer} passes",
            x=Axis(title="most attempts (K)", log=True),
            y=Axis(title="share of problems", percent=True),
            series=tuple(series),
        ),
    )


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
    path = _only(files, "genrm")
    pool, scorer = _judged(_independent(path, answer=answer), verifier)
    keys = [problem.keys for problem in pool.problems if problem.keys is not None]
    if len(keys) < len(pool.problems):
        raise UsageError(f"{path} has no answers, so that there is no vote to compare with.")
    if verdict_cost is None:
        raise UsageError(
            "The law genrm needs --verdict-cost: the tokens of one verdict over those of one solution, as measured."
        )
    try:
        price = _genrm.Price(ratio=verdict_cost)
    except ValueError as cause:
        raise UsageError(f"--verdict-cost: {cause}.") from None
    bought = _genrm.options(
        keys,
        [problem.correct for problem in pool.problems],
        [problem.scores[scorer] for problem in pool.problems],
        price=price,
        seed=seed,
    )
    found = _genrm.compare(bought, seed=seed)
    vote = estimates(found.vote, found.vote_interval, "share")
    verified = estimates(found.verified, found.verified_interval, "share")
    difference = estimates(found.difference, found.difference_interval, "points")
    sentences = []
    if found.crossover is None:
        sentences.append(f"Up to the compute of {found.budgets[-1]:g} solutions a plain vote is better.")
    else:
        around = found.crossover_interval
        from_here = Cell(found.crossover) if around is None else estimated(found.crossover, around)
        sentences.append(f"From the compute of {from_here} solutions on, verifying is at least as good as a vote.")
    if all(of.low is not None and of.low <= 0 <= (of.high or 0) for of in difference):
        sentences.append("Yet at no budget is the difference larger than chance may make it.")
    split: _genrm.Split | None = None
    try:
        split = _genrm.fit_split(bought, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"How the best split grows with compute C is not known. {refusal}")
    else:
        a, b = estimates((split.a, split.b), split.parameters)
        sentences.append(f"The best split grows as S = {split.s:.3g} C^a, a = {a}, and V = {split.v:.3g} C^b, b = {b}.")
    for budget in at:
        if split is not None:
            s, v = split.allocate(max(budget, 1.0), price, crossover=found.crossover)
            sentences.append(f"At {budget:g}: {f'{s} solutions with {v} verdicts each' if v else f'a vote of {s}'}.")
            if budget > 10 * split.budgets.max():
                sentences.append(f"{budget:g} is more than ten times beyond what was fitted; nothing supports it.")
        elif found.budgets[0] <= budget <= found.budgets[-1]:
            told = estimated(found.at(budget), found.at_interval(budget), "points")
            sentences.append(f"At {budget:g}: verified minus vote is {told} points.")
        else:
            raise Unidentified(f"Nothing is known of a budget of {budget:g}: {sentences[-1]}")
    return Analysis(
        title="Solve or verify: S solutions with V verdicts each cost S (1 + lambda V)",
        columns=("compute, in solutions", "vote", "verified", "difference", "S", "V"),
        rows=tuple(
            (f"{budget:.4g}", *cells, Cell(float(s)), Cell(float(v)))
            for budget, *cells, s, v in zip(
                found.budgets, vote, verified, difference, found.solutions, found.verifications, strict=True
            )
        ),
        sentences=(*sentences, f"A vote never has more than the {found.most} solutions that were recorded."),
        figure=Figure(
            title=f"Solve or verify, lambda = {verdict_cost:g}",
            x=Axis(title="compute per problem, in solutions", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=(curve("vote", found.budgets, vote), curve("verified", found.budgets, verified)),
        ),
    )


def verification(
    files: Sequence[Path], *, at: Sequence[float] = (), verifier: str | None = None, seed: int = 0
) -> Analysis:
    """How often a verifier accepts right and rejects wrong samples, from hard to easy questions, and what that gains.

    A pool with verdicts; further pools of the same problems, by other models, say how hard each problem is.
    """
    pool, scorer = _judged(read_pool(files[0]), verifier)
    others = [read_pool(path) for path in files[1:]]
    correct = [[problem.correct for problem in pool.problems]]
    for other in others:
        of = {problem.id: problem.correct for problem in other.problems}
        missing = [problem.id for problem in pool.problems if problem.id not in of]
        if missing:
            raise UsageError(f"{other.path} has no samples of {missing[0]!r}, which {files[0]} has.")
        correct.append([of[problem.id] for problem in pool.problems])
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
                Cell(of.questions),
                Cell(of.value.pass_rate, "share"),
                *(_quality(of, name) for name in ("tpr", "tnr", "balanced", "gain")),
            )
            for group, _, of in groups
        ),
        sentences=tuple(sentences),
        figure=Figure(
            title=f"What {scorer} accepts and rejects",
            x=Axis(title="pass rate of the questions, hard to easy", percent=True),
            y=Axis(title="share of samples, mean over questions", percent=True),
            series=tuple(
                bars(told, [easy for _, easy, _ in quarters], [_quality(of, name) for _, _, of in quarters])
                for name, told in (("tpr", "TPR: right ones accepted"), ("tnr", "TNR: wrong ones rejected"))
            ),
        ),
    )


def _quality(of: _verification.Verifier, name: str) -> Cell:
    unit: Unit = "points" if name == "gain" else "share"
    return Cell(getattr(of.value, name), unit, getattr(of.low, name), getattr(of.high, name))


# ---------------------------------------------------------------------------------------------- what tokens are worth


def arise(files: Sequence[Path], *, answer: AnswerKind = "text", seed: int = 0) -> Analysis:
    """How well more tokens become right answers, question by question; losses weigh more than gains.

    Two or more runs on the same problems, from the smallest budget to the largest; or a pool, whose votes are compared.
    """
    if any(path.is_dir() for path in files):
        levels, right, tokens = _levels_of_runs(files)
    else:
        levels, right, tokens = _levels_of_pool(_only(files, "arise"), answer)
    found = _arise.measure_arise(right, tokens, seed=seed)
    accuracy = [mean_of([np.mean(of[level]) for of in right]) for level in range(len(levels))]
    steps = [None, *zip(found.medians, found.slope, strict=True)]
    score = estimated(found.score, found.interval)
    return Analysis(
        title="ARISE: gains count times T_old / T_new, losses times T_new / T_old",
        columns=("level", "tokens", "accuracy", "median step", "points per 1,000 tokens"),
        rows=tuple(
            (
                level,
                Cell(float(spent)),
                of,
                None if step is None else Cell(float(step[0])),
                None if step is None else Cell(1000 * float(step[1]), "points"),
            )
            for level, spent, of, step in zip(levels, found.tokens, accuracy, steps, strict=True)
        ),
        sentences=(
            f"ARISE {score} over {found.questions} questions, from {found.least:.3g} to {found.most:.3g}; if "
            f"correctness did not depend on the level, it would be {found.chance:.3g}.",
            f"{found.always_right} questions are always right and {found.always_wrong} never; of the others "
            f"{found.improved} are better at the last level than at the first, {found.degraded} worse, and "
            f"{found.mixed} as good.",
            "It depends on which levels there are: compare it only at the same ones.",
        ),
        figure=Figure(
            title="Accuracy and tokens of the levels of ARISE",
            x=Axis(title="tokens per problem", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=(
                Series(name="levels", x=found.tokens.tolist(), y=[of.value for of in accuracy]),
                bars("levels", found.tokens, accuracy),
            ),
        ),
    )


def _levels_of_runs(files: Sequence[Path]) -> tuple[list[str], list[list[Any]], list[list[Any]]]:
    """Names of levels, and credit and tokens of every problem that all runs have, at each level."""
    runs = []
    for path in files:
        if not path.is_dir():
            raise UsageError(f"Give runs, or one pool; {path} is no run.")
        runs.append(
            {
                of.problem: (of.credit, 0.0 if of.trace is None else of.trace.cost.get("tokens", 0.0))
                for of in read_results(path)
                if of.credit is not None
            }
        )
    shared = [problem for problem in runs[0] if all(problem in run for run in runs)]
    if not shared:
        raise UsageError("The runs have no problem in common.")
    names = [name for name, _ in short_names(files)]
    cells = [[run[problem] for run in runs] for problem in shared]
    return names, [[credit for credit, _ in of] for of in cells], [[spent for _, spent in of] for of in cells]


def _levels_of_pool(path: Path, answer: AnswerKind) -> tuple[list[str], list[list[Any]], list[list[Any]]]:
    """The votes of 1, 2, 4 ... samples: as many runs of each as there are separate samples for."""
    pool = _independent(path, answer=answer)
    if any(problem.keys is None or problem.tokens is None for problem in pool.problems):
        raise UsageError(f"{path} has no answers or no token counts, which this needs.")
    ns = [2**power for power in range(pool.samples.bit_length())]
    right, tokens = [], []
    for problem in pool.problems:
        assert problem.keys is not None
        assert problem.tokens is not None
        runs = [[slice(at, at + n) for at in range(0, len(problem.keys) - n + 1, n)] for n in ns]
        right.append([[_vote(problem.keys[run], problem.correct[run]) for run in of] for of in runs])
        tokens.append([[(problem.prompt or 0) + int(problem.tokens[run].sum()) for run in of] for of in runs])
    return [f"vote of {n}" for n in ns], right, tokens


def _vote(keys: Counts, correct: NDArray[np.bool_]) -> float:
    """Credit of the majority; tied answers share it."""
    valid = keys >= 0
    if not valid.any():
        return 0.0
    count = np.bincount(keys[valid])
    leaders = np.flatnonzero(count == count.max())
    return float(np.mean([correct[keys == leader].mean() for leader in leaders]))


def regret(files: Sequence[Path], *, at: Sequence[float] = (), answer: AnswerKind = "text", seed: int = 0) -> Analysis:
    """What an answer is worth at every moment: accuracy over tokens, regret up to a budget, and anytime accuracy.

    Runs on the same problems, whose rounds are graded again; or pools with token counts: the vote as samples come in.
    """
    curves = {name: _curves_of(path, answer, seed) for name, path in short_names(files)}
    shared = [problem for problem in next(iter(curves.values())) if all(problem in of for of in curves.values())]
    if not shared:
        raise UsageError("The files have no problem in common.")
    largest = max(float(np.mean([np.max(of[one][0], initial=0.0) for one in shared])) for of in curves.values())
    budgets = sorted(at) or (largest * np.arange(1, 5) / 4).tolist()
    dense = np.linspace(0, max(largest, budgets[-1]), 101)
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    scores: list[Floats] = []
    for name, of in curves.items():
        traces = [of[problem] for problem in shared]
        with _naming(name):
            found = _regret.measure_regret([[trace] for trace in traces], budgets, shape="step", seed=seed)
            drawn = _regret.measure_regret([[trace] for trace in traces], dense[1:], shape="step", seed=seed)
        moments = estimates(drawn.accuracy, drawn.accuracy_interval, "share")
        series.append(dataclasses.replace(curve(name, dense[1:], moments), mark="steps"))
        worth = np.array([_regret.accuracy_at(*trace, budgets, shape="step") for trace in traces])
        scores.append(_regret.anytime(worth, budgets))
        accuracy = estimates(found.accuracy, found.accuracy_interval, "share")
        regrets = estimates(found.regret, found.regret_interval)
        rows += [
            (name, Cell(budget), *cells, Cell(float(ended), "share"))
            for budget, *cells, ended in zip(budgets, accuracy, regrets, found.ended, strict=True)
        ]
        solvable = ""
        if found.solvable_regret is not None:
            solvable = f"; regret {found.solvable_regret[-1]:.3g} on the {found.solvable} problems that it ever solves"
        sentences.append(
            f"{name}: anytime accuracy {estimated(found.score, found.score_interval, 'share')} over {len(shared)} "
            f"problems{solvable}."
        )
    first, *others = curves
    for name, score in zip(others, scores[1:], strict=True):
        difference = mean_of(score - scores[0], "points", least=-1.0)
        sentences.append(f"{name} minus {first}: {difference} points of anytime accuracy, paired.")
    return Analysis(
        title="Regret: 1 - mean accuracy over all moments up to a budget",
        columns=("file", "budget, tokens", "accuracy", "regret", "ended before"),
        rows=tuple(rows),
        sentences=tuple(sentences),
        figure=Figure(
            title="What the answer is worth, had it stopped there",
            x=Axis(title="tokens per problem"),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _curves_of(path: Path, answer: AnswerKind, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Tokens and accuracy of what would be answered, of each problem."""
    if path.is_dir():
        return asyncio.run(_curves_of_run(path))
    pool = _independent(path, answer=answer)
    if any(problem.keys is None or problem.tokens is None for problem in pool.problems):
        raise UsageError(f"{path} has no answers or no token counts, which this needs.")
    vote = majority(pool, range(1, pool.samples + 1), subsamples=_SUBSAMPLES, seed=seed)
    tokens = np.stack([np.asarray(of.tokens) for _, of in sorted(vote.items())], axis=-1)
    credit = np.stack([of.accuracy for _, of in sorted(vote.items())], axis=-1)
    return {problem.id: pair for problem, pair in zip(pool.problems, zip(tokens, credit, strict=True), strict=True)}


async def _curves_of_run(path: Path) -> dict[str, tuple[Floats, Floats]]:
    settings = read_settings(path)
    examples = {example.problem.id: example for example in tasks.load(settings["task"], seed=settings["seed"])}
    found: dict[str, tuple[Floats, Floats]] = {}
    async with tasks.opened(examples.values(), None, None) as (reader, sandbox):
        for result in read_results(path):
            if result.problem not in examples:
                raise UsageError(
                    f"The task {settings['task']} has no {result.problem!r} here, so that {path} cannot be graded "
                    "again; set OUTTHINK_DATA as it was when it was run."
                )
            points = []
            if result.trace is not None:
                points = await curve_of_trace(result.trace, examples[result.problem], reader, sandbox)
            tokens = np.array([point.cost.get("tokens", 0.0) for point in points])
            found[result.problem] = tokens, np.array([point.credit for point in points])
    return found


def length(files: Sequence[Path], *, at: Sequence[float] = (), seed: int = 0) -> Analysis:
    """Whether longer samples are less often right at equal difficulty, and what more length buys.

    A pool with token counts; a second one of the same problems by another model or effort rates their difficulty, and
    is compared with.
    """
    if len(files) > 2:
        raise UsageError(f"The law length takes one pool, or two to compare, not {len(files)}.")
    (name, *others) = [name for name, _ in short_names(files)]
    pool, *second = _same_problems([_independent(path) for path in files])
    tokens, right, whole = _lengths(pool)
    tier = None
    if second:
        easiness = np.array([problem.correct.mean() for problem in second[0].problems])
        tier = _length.tiers(-easiness)  # the lowest tier is the easiest
    kept = [row for row, of in enumerate(whole) if of.any()]
    cut = 1 - float(np.mean([of.mean() for of in whole]))
    lengths = np.concatenate(tokens)
    # by as many tokens as lengths really differ by: beyond that the effect is not one of these samples
    step = 10.0 ** math.floor(math.log10(max(np.quantile(lengths, 0.9) - np.quantile(lengths, 0.1), 1.0)))
    rows: list[Row] = [
        ("problems", Cell(len(tokens))),
        ("accuracy", mean_of([of.mean() for of in right])),
        ("tokens", mean_of([of.mean() for of in tokens], "number")),
        ("cut off", Cell(cut, "share")),
    ]
    sentences: list[str] = []
    effects: list[tuple[str, Callable[[], _length.LengthEffect]]] = [
        (f"{step:,.0f} tokens more", lambda: _length.length_effect(tokens, right))
    ]
    if tier is not None:
        effects.append(
            ("the same at equal difficulty", lambda: _length.length_effect(tokens, right, tier=tier.tolist()))
        )
    if cut:
        effects.append(
            (
                "the same without what was cut off",
                lambda: _length.length_effect(
                    [tokens[row][whole[row]] for row in kept],
                    [right[row][whole[row]] for row in kept],
                    tier=None if tier is None else tier[kept].tolist(),
                ),
            )
        )
    refusals = []
    for what, fit in effects:
        try:
            effect = fit()
        except Unidentified as refusal:
            refusals.append(f"{what}: {refusal}")
            continue
        value, low, high = (step / 1000 * of for of in (effect.effect, effect.low, effect.high))
        rows.append((what, Cell(value, "points", low, high)))
    if len(refusals) == len(effects):
        raise Unidentified(f"{name}: {refusals[0]}")
    sentences += refusals
    if tier is None:
        sentences.append(
            "Without a second pool that rates the problems, longer may only mean harder: length and difficulty are not "
            "apart."
        )
    series: list[Series] = []
    groups: list[tuple[str, NDArray[np.bool_]]] = [("all", np.ones(len(tokens), dtype=bool))]
    if tier is not None:
        parts = int(tier.max()) + 1
        groups = [(f"tier {one + 1} of {parts}{' (easiest)' * (one == 0)}", tier == one) for one in range(parts)]
    for group, members in groups:
        inside = np.flatnonzero(members)
        try:
            edges, bins = _bins([tokens[one] for one in inside], [right[one] for one in inside], tier is None, seed)
        except Unidentified as refusal:
            if tier is None:
                raise
            sentences.append(f"{group} ({len(inside)} problems): {refusal}")
            continue
        series.append(bars(group, edges, estimates(bins.accuracy, bins.interval, "share")))
        series.append(Series(name=group, x=edges.tolist(), y=bins.accuracy.tolist()))
    if not series:
        edges, bins = _bins(tokens, right, True, seed)
        series.append(bars("all", edges, estimates(bins.accuracy, bins.interval, "share")))
    if at:
        tail = _length.bin_lengths(tokens, right, sorted(at), seed=seed)
        for edge, wrong in zip(tail.edges, estimates(tail.tail_error, tail.tail_interval, "share"), strict=True):
            sentences.append(
                f"Of the samples of {edge:g} tokens and more, {wrong} are wrong."
                if math.isfinite(wrong.value)
                else f"Too few samples have {edge:g} tokens or more."
            )
    if second:
        other_tokens, other_right, _ = _lengths(second[0])
        rows += _against(other_tokens, other_right, tokens, right, f"{others[0]} over {name}", sentences, seed)
    return Analysis(
        title="Length against accuracy",
        columns=("quantity", name),
        rows=tuple(rows),
        sentences=(
            *sentences,
            "A falling curve does not say that a long sample, stopped earlier, would have been right.",
        ),
        figure=Figure(
            title=f"Accuracy by length, {name}",
            x=Axis(title="tokens of a sample"),
            y=Axis(title="accuracy of samples", percent=True),
            series=tuple(series),
        ),
    )


def _bins(tokens: list[Floats], right: list[Floats], all_tiers: bool, seed: int) -> tuple[Floats, _length.Lengths]:
    """Middles of the narrowest bins of which some have enough questions; inside a tier they begin twice as wide."""
    number = 24 if all_tiers else 12
    while True:
        edges = _length.equal_bins(tokens, number)
        try:
            found = _length.bin_lengths(tokens, right, edges, seed=seed)
        except Unidentified:
            if number == 1:
                raise
            number //= 2
        else:
            return edges + (max(float(of.max()) for of in tokens) / number) / 2, found


def _against(
    tokens_a: list[Floats],
    right_a: list[Floats],
    tokens_b: list[Floats],
    right_b: list[Floats],
    name: str,
    sentences: list[str],
    seed: int,
) -> list[Row]:
    """Two models on the same problems: tokens where both are right, and what one more problem costs."""
    rows: list[Row] = []
    try:
        found = _length.compare_lengths(tokens_a, right_a, tokens_b, right_b, seed=seed)
    except Unidentified as refusal:
        sentences.append(str(refusal))
    else:
        rows.append((f"tokens, {name}, both right", estimated(found.ratios.median, found.interval)))
    try:
        price = _length.price_of_effort(tokens_b, right_b, tokens_a, right_a, seed=seed)
    except Unidentified as refusal:
        sentences.append(f"{name}: {refusal}")
    else:
        rows.append(("tokens for one more problem solved", estimated(price.per_solved, price.interval)))
    return rows


def _lengths(pool: PoolData) -> tuple[list[Floats], list[Floats], list[NDArray[np.bool_]]]:
    """Tokens, correctness and completeness of the samples of each problem; what was cut off is wrong."""
    tokens, right = [], []
    for problem in pool.problems:
        if problem.tokens is None:
            raise UsageError(f"{pool.path} has no token counts, which this needs.")
        # a sample that was cut off has as many tokens as the cap
        t, a = _length.cut_at(problem.tokens, problem.correct, problem.complete, 0.0)
        tokens.append(t)
        right.append(a)
    return tokens, right, [problem.complete for problem in pool.problems]


def _same_problems(pools: Sequence[PoolData]) -> list[PoolData]:
    """The pools with the problems that all of them have, in the order of the first."""
    held = [{problem.id: problem for problem in pool.problems} for pool in pools]
    shared = [problem for problem in held[0] if all(problem in of for of in held)]
    if not shared:
        raise UsageError(f"{pools[0].path} and {pools[-1].path} have no problem in common.")
    return [
        dataclasses.replace(pool, problems=tuple(of[problem] for problem in shared))
        for pool, of in zip(pools, held, strict=True)
    ]


# --------------------------------------------------------------------------------------------- which model to take


def crossover(
    files: Sequence[Path],
    *,
    at: Sequence[float] = (),
    shape: Sequence[Path] = (),
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Analysis:
    """Up to which budget many samples of a small model beat few of a large one, by loss(S) = L + a S^-b.

    Two pools with token counts of the same problems, one by each model, and the shapes of the models.
    """
    if len(files) != 2:
        raise UsageError(f"The law crossover compares two pools, not {len(files)}.")
    pools = _same_problems([_independent(path, answer=answer) for path in files])
    names, shapes = _models(files, shape, memory=False)
    costs = [_sample_flops(pool, of) for pool, of in zip(pools, shapes, strict=True)]
    if costs[0] > costs[1]:
        pools, names, costs = pools[::-1], names[::-1], costs[::-1]
    small, large = _short(names)
    numbers = [powers_of_two(pool.samples) for pool in pools]
    losses = {"no sample is right": [_misses(pool, of) for pool, of in zip(pools, numbers, strict=True)]}
    if all(problem.keys is not None for pool in pools for problem in pool.problems):
        losses["the vote is wrong"] = [_lost_votes(pool, of, seed) for pool, of in zip(pools, numbers, strict=True)]
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    refusals: list[str] = []
    for what, tables in losses.items():
        first, second = (
            _crossover.Measured(samples=of, losses=table, cost=cost)
            for of, table, cost in zip(numbers, tables, costs, strict=True)
        )
        try:
            found = _crossover.crossover(first, second, seed=seed)
        except Unidentified as refusal:
            refusals.append(f"{what}: {refusal}")
            continue
        low, high = found.range
        if found.budget is None:
            winners, _ = _crossover.envelope(found.laws, costs, grid(low, high))
            told = " and ".join(names[one] for one in sorted(set(winners.tolist())))
            turns = "is better throughout" if len(set(winners.tolist())) == 1 else "take turns"
            sentences.append(f"{what}: from {low:.3g} to {high:.3g} FLOPs per problem, {told} {turns}.")
            turn = None
        else:
            turn = f"{found.budget:.3g} ({found.low:.3g} to {found.high:.3g})"
            sentences.append(f"{what}: above {turn} FLOPs per problem {names[1]} is better, below {names[0]}.")
            series.append(Series(name=f"crossing: {what}", x=[found.budget], mark="vertical"))
        rows.append(
            (
                what,
                turn,
                None if found.budget is None else Cell(found.budget / costs[0]),
                *(Cell(law.floor, "share") for law in found.laws),
                *(Cell(law.b) for law in found.laws),
            )
        )
        if at and min(at) < low:
            raise UsageError(f"{min(at):.3g} FLOPs per problem do not pay for one sample of {names[1]}.")
        predicted: list[list[Cell]] = []
        for name, one, law in zip((small, large), (first, second), found.laws, strict=True):
            label = f"{name}: {what}"
            measured = [mean_of(of) for of in np.asarray(one.losses).T]
            dense = grid(one.cost, high)
            series += [
                curve(label, dense, _loss_line(one, dense, seed)),
                bars(label, one.cost * np.asarray(one.samples), measured),
            ]
            sentences += misfit(label, np.asarray(one.samples).tolist(), measured, law.at(one.samples))
            predicted.append(_loss_line(one, np.asarray(at), seed) if at else [])
        for budget, *cells in zip(at, *predicted, strict=True):
            sentences.append(f"{what}, at {budget:.3g} FLOPs: {small} {cells[0]}, {large} {cells[1]}.")
            if budget > high:
                sentences.append(f"{budget:.3g} is more than ten times beyond what was measured; nothing supports it.")
    if not rows:
        raise Unidentified(refusals[0])
    return Analysis(
        title="Crossover: loss(S) = L + a S^-b, S samples of a model for a budget",
        columns=(
            "loss",
            "crossing, FLOPs",
            f"samples of {small}",
            *(f"{of} of {name}" for of in ("floor L", "b") for name in (small, large)),
        ),
        rows=tuple(rows),
        sentences=(*sentences, *refusals, "Reading the prompt is not counted: all samples of a problem share it."),
        figure=Figure(
            title=f"{small} against {large}",
            x=Axis(title="FLOPs per problem", log=True),
            y=Axis(title="loss, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _misses(pool: PoolData, ks: Sequence[int]) -> Floats:
    return np.stack([1 - pass_at_k(*_counts(pool), k) for k in ks], axis=-1)


def _lost_votes(pool: PoolData, ks: Sequence[int], seed: int) -> Floats:
    vote = majority(pool, ks, subsamples=_SUBSAMPLES, seed=seed)
    return np.stack([1 - vote[k].accuracy for k in ks], axis=-1)


def _loss_line(of: _crossover.Measured, budgets: Floats, seed: int) -> list[Cell]:
    """The loss of a model at each budget, as its law says."""
    table = np.asarray(of.losses)

    def line(problems: Counts) -> Floats:
        return _crossover.fit_loss(of.samples, table[problems].mean(0)).at(budgets / of.cost)

    return estimates(line(np.arange(len(table))), bootstrap(line, len(table), seed=seed), "share")


def _sample_flops(pool: PoolData, shape: Shape) -> float:
    """Operations of writing one sample, mean over problems."""
    found = []
    for problem in pool.problems:
        if problem.tokens is None:
            raise UsageError(f"{pool.path} has no token counts, which this needs.")
        prompt = problem.prompt or 0
        usages = (Usage(prompt=prompt, cached=prompt, completion=int(of)) for of in problem.tokens)
        found.append(np.mean([flops(shape, usage) for usage in usages]))
    return float(np.mean(found))


class _Option(NamedTuple):
    """One model with a number of samples, or with one sample of at most so many tokens; arrays (problems,)."""

    model: int
    label: str
    credit: Floats
    load: _kinetics.Load


def kinetics(
    files: Sequence[Path],
    *,
    at: Sequence[float] = (),
    shape: Sequence[Path] = (),
    answer: AnswerKind = "text",
    seed: int = 0,
) -> Analysis:
    """Which model and how many samples are best at each budget of FLOPs, and of eFLOPs, which charge memory traffic.

    Pools with token counts of the same problems, each by another model, and the shapes of these models.
    """
    pools = _same_problems([_independent(path, answer=answer) for path in files])
    names, shapes = _models(files, shape, memory=True)
    voted = all(problem.keys is not None for pool in pools for problem in pool.problems)
    options = [
        option
        for model, (pool, of) in enumerate(zip(pools, shapes, strict=True))
        for option in _options(model, pool, of, voted, seed)
    ]
    credit = np.stack([option.credit for option in options], axis=-1)
    quality = credit.mean(0)
    model = np.array([option.model for option in options])
    other = f"eFLOPs at {_kinetics.INTENSITIES[1]:g}"
    costs = {
        "FLOPs": np.stack([option.load.flops for option in options], axis=-1),
        **{
            f"eFLOPs at {intensity:g}": np.stack([option.load.eflops(intensity) for option in options], axis=-1)
            for intensity in _kinetics.INTENSITIES
        },
    }
    short = _short(names)
    rows: list[Row] = []
    sentences: list[str] = []
    series: list[Series] = []
    for way, cost in costs.items():
        price = cost.mean(0)
        along = _frontier.frontier(price, quality)
        turns = [place for place in range(len(along)) if place == 0 or model[along[place]] != model[along[place - 1]]]
        told = ", then ".join(f"{names[model[along[of]]]} from {price[along[of]]:.3g}" for of in turns)
        sentences.append(f"By {way} the best model is {told}.")
        if way == other:  # whether the conclusion depends on the device is all that this is for
            continue
        found = _frontier.best(cost, credit, sorted({*price[along].tolist(), *at}), model, seed=seed)
        for place, option in enumerate(found.option):
            if option < 0:
                raise UsageError(f"{found.budgets[place]:.3g} {way} per problem do not pay for a single sample.")
            rows.append(
                (
                    way,
                    f"{found.budgets[place]:.3g}",
                    f"{short[model[option]]}, {options[option].label}",
                    Cell(found.quality[place], "share", found.low[place], found.high[place]),
                    Cell(found.fresh[place], "share"),
                    Cell(found.shares[place, model[option]], "share"),
                )
            )
        for one, name in enumerate(short):
            mine = [place for place, of in enumerate(options) if of.model == one and "," not in of.label]
            series.append(bars(f"{name}, {way}", price[mine], [mean_of(credit[:, place]) for place in mine]))
        best = (price[along].tolist(), quality[along].tolist())
        series.append(Series(name=f"frontier, {way}", x=best[0], y=best[1], mark="steps"))
    effort = costs[f"eFLOPs at {_kinetics.INTENSITIES[0]:g}"].mean(0)
    by_flops = _frontier.frontier(costs["FLOPs"].mean(0), quality)
    waste = max(float(effort[of] / effort[quality >= quality[of]].min()) for of in by_flops)
    what = "of a majority vote" if voted else "that some sample is right, as a perfect check would find it"
    return Analysis(
        title="Kinetics: eFLOPs = FLOPs + I x bytes moved; the frontier of accuracy against both",
        columns=("cost", "per problem", "best option", "accuracy", "if chosen blind", "sure of the model"),
        rows=tuple(rows),
        sentences=(
            *sentences,
            f"Who chooses by FLOPs spends up to {waste:.2f} times the eFLOPs that the same accuracy takes.",
            f"Accuracy is {what}; reading weights is shared with a large batch of others and not charged.",
        ),
        figure=Figure(
            title="Accuracy against FLOPs and eFLOPs",
            x=Axis(title="cost per problem (FLOPs, eFLOPs)", log=True),
            y=Axis(title="accuracy, mean over problems", percent=True),
            series=tuple(series),
        ),
    )


def _short(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin and end with."""
    words = [name.split("-") for name in names]
    if len(set(names)) < 2:
        return list(names)
    while len({of[0] for of in words}) == 1 and min(map(len, words)) > 1:
        words = [of[1:] for of in words]
    while len({of[-1] for of in words}) == 1 and min(map(len, words)) > 1:
        words = [of[:-1] for of in words]
    return ["-".join(of) for of in words]


def _options(model: int, pool: PoolData, shape: Shape, voted: bool, seed: int) -> list[_Option]:
    """Every number of samples with its vote or coverage, and one sample with every cap on its length."""
    if any(problem.tokens is None or problem.prompt is None for problem in pool.problems):
        raise UsageError(f"{pool.path} does not say how many tokens prompts and samples have, which this needs.")
    n, c = _counts(pool)
    ks = powers_of_two(pool.samples)
    vote = majority(pool, ks, subsamples=_SUBSAMPLES, seed=seed) if voted else None
    longest = max(int(np.max(problem.tokens)) for problem in pool.problems if problem.tokens is not None)
    caps = [2**power for power in range(4, longest.bit_length())]
    rng = np.random.default_rng(seed)
    several: list[list[_kinetics.Load]] = []
    capped: list[list[_kinetics.Load]] = []
    cut: list[list[float]] = []
    for problem in pool.problems:
        assert problem.tokens is not None
        assert problem.prompt is not None
        # every sample is equally often at every place, so that only the longest of a few is not exact
        places = np.arange(len(problem.tokens))
        turned = (places[:, None] + places) % len(places)
        lengths = np.concatenate([rng.permutation(problem.tokens)[turned] for _ in range(_ORDERS)])
        several.append([_average(_kinetics.recorded(shape, problem.prompt, lengths[:, :k])) for k in ks])
        capped.append(
            [
                _average(_kinetics.recorded(shape, problem.prompt, np.minimum(problem.tokens, cap)[:, None]))
                for cap in caps
            ]
        )
        cut.append([float((problem.correct & (problem.tokens <= cap)).mean()) for cap in caps])
    credits = [*(pass_at_k(n, c, k) if vote is None else vote[k].accuracy for k in ks), *np.array(cut).T]
    labels = [*(f"n = {k}" for k in ks), *(f"n = 1, <= {cap} tokens" for cap in caps)]
    loads = [_stacked(of) for of in [*zip(*several, strict=True), *zip(*capped, strict=True)]]
    return [_Option(model, *of) for of in zip(labels, credits, loads, strict=True)]


def _average(of: _kinetics.Load) -> _kinetics.Load:
    return _kinetics.Load(flops=np.asarray(of.flops.mean()), bytes=np.asarray(of.bytes.mean()))


def _stacked(of: Sequence[_kinetics.Load]) -> _kinetics.Load:
    return _kinetics.Load(flops=np.array([one.flops for one in of]), bytes=np.array([one.bytes for one in of]))


def _models(files: Sequence[Path], given: Sequence[Path], *, memory: bool) -> tuple[list[str], list[Shape]]:
    """Names and shapes of the models of pools: as given, as recorded, or from the model's file in the cache.

    Args:
        memory: whether the shapes must say how much memory traffic there is.
    """
    if given and len(given) != len(files):
        raise UsageError(f"Give --shape once for each pool, in their order: {len(files)} times, not {len(given)}.")
    names, shapes = [], []
    for place, (name, path) in enumerate(short_names(files)):
        _, row = next(jsonl.read(path))
        meta = row.get("meta") or {}
        model = meta.get("model")
        recorded = meta.get("shape") or {}
        file: Path | None = given[place] if given else None
        if file is None and isinstance(model, str) and model in catalog.entries():
            file = catalog.path(model)
        if file is None and not (recorded.get("kv_heads") if memory else recorded):
            raise UsageError(f"{path} does not say what shape its model has; give its .gguf or config.json by --shape.")
        shapes.append(read_shape(file) if file is not None else Shape(**recorded))
        if given and not isinstance(model, str):  # a config.json says no name, but its folder does
            model = given[place].stem if given[place].suffix == ".gguf" else given[place].resolve().parent.name
        names.append(model if isinstance(model, str) and model not in names else name)
    return names, shapes


LAWS: Mapping[str, Callable[..., Analysis]] = {
    "coverage": coverage,
    "passuntil": passuntil,
    "saturation": saturation,
    "imperfect": imperfect,
    "genrm": genrm,
    "verification": verification,
    "arise": arise,
    "regret": regret,
    "length": length,
    "crossover": crossover,
    "kinetics": kinetics,
}
"""Laws by their name on the command line."""


# --------------------------------------------------------------------------------------------------- what they share


def _only(files: Sequence[Path], name: str) -> Path:
    if len(files) > 1:
        raise UsageError(f"The law {name} takes one pool, not {len(files)}.")
    return files[0]


def _independent(path: Path, *, answer: AnswerKind = "text") -> PoolData:
    """A pool of independent samples of one model."""
    if path.is_dir():
        raise UsageError(f"{path} is a run directory; this law needs a pool (.jsonl or .jsonl.gz).")
    pool = read_pool(path, answer=answer)
    if pool.kind == "sequence":
        raise UsageError(f"{path} holds attempts that build on each other; laws of samples say nothing of them.")
    if pool.kind == "models":
        raise UsageError(f"{path} holds samples of several models; laws of samples are about those of one.")
    return pool


def _judged(pool: PoolData, verifier: str | None) -> tuple[PoolData, str]:
    """The samples that a verifier has scored from 0 to 1, and the verifier's name."""
    if verifier is None:
        if len(pool.scorers) != 1:
            told = f"has verdicts by {', '.join(pool.scorers)}" if pool.scorers else "has no verdicts"
            raise UsageError(f"Say with --verifier whose verdicts are meant; {pool.path} {told}.")
        (verifier,) = pool.scorers
    if verifier not in pool.scorers:
        raise UnknownName(f"verifier in {pool.path}", verifier, pool.scorers or ["none"])
    pool = scored(pool, verifier)
    known = np.concatenate([problem.scores[verifier].ravel() for problem in pool.problems])
    known = known[~np.isnan(known)]
    if not ((known >= 0) & (known <= 1)).all():
        raise UsageError(f"{verifier} scores from {known.min():g} to {known.max():g}; verdicts are from 0 to 1.")
    return pool, verifier


def _passes(matrix: Floats) -> NDArray[np.bool_]:
    """Whether the mean of the verdicts (n, m) of each sample is at least one half; where there is none it is not."""
    known = ~np.isnan(matrix)
    return np.asarray(np.where(known, matrix, 0.0).sum(-1) >= np.maximum(known.sum(-1), 1) / 2)


def _counts(pool: PoolData) -> tuple[Counts, Counts]:
    """How many samples each problem has, and how many of them are right."""
    n = np.array([len(problem.correct) for problem in pool.problems], dtype=np.intp)
    return n, np.array([int(problem.correct.sum()) for problem in pool.problems], dtype=np.intp)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Says of which file it is that it cannot identify a law."""
    try:
        yield
    except Unidentified as refusal:
        raise Unidentified(f"{name}: {refusal}") from refusal
