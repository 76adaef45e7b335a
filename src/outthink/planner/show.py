"""A plan in words and tables.

Source: none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from outthink.maths.intervals import Estimate
from outthink.planner.bins import NOT_AFFORDABLE, affordable
from outthink.planner.check import Checked
from outthink.planner.learning import LEAST, LearnedTraffic
from outthink.planner.logged import ActionValue, best
from outthink.planner.plan import Expected, Fixed, Gain, Plan
from outthink.planner.quote import amount
from outthink.planner.trust import Utility
from outthink.records.runs import OWN
from outthink.reports.figures import Axis, Figure, Series

_CURVES = 4  # of the fixed strategies of each model, the best ones; more cannot be told apart
Rows = tuple[list[str], list[list[str]]]


def plan_curve(plan: Plan) -> Rows:
    """`auto` at each price, and the fixed strategy that is the most accurate of those that cost no more."""
    columns = [
        "mean cost",
        "auto (90%)",
        "90% of problems cost",
        "bins (cost)",
        "best fixed",
        "accuracy (90%)",
        "its cost",
    ]
    rows = []
    for expected in sorted(plan.expected, key=lambda point: point.cost):
        able = [fixed for fixed in plan.fixed if fixed.cost <= expected.cost * 1.001 and not _stops(fixed.setting)]
        best = max(able, key=lambda fixed: (fixed.accuracy, -fixed.cost), default=None)
        rows.append(
            [
                amount(expected.cost),
                _percent(expected),
                f"{amount(expected.least)} to {amount(expected.most)}",
                f"{100 * expected.table:.1f}% ({amount(expected.table_cost)})",
                *(("-", "-", "-") if best is None else (best.setting, _percent(best), amount(best.cost))),
            ]
        )
    return columns, rows


def figure(plan: Plan) -> Figure:
    """The curve of `auto` against every fixed strategy."""
    points = sorted(plan.expected, key=lambda point: point.cost)
    families: dict[str, list[Fixed]] = {}
    for fixed in sorted(plan.fixed, key=lambda fixed: fixed.cost):
        name, _, scorer = fixed.setting.partition(" by ")
        families.setdefault(name.partition("?")[0] + (f" by {scorer}" if scorer else ""), []).append(fixed)
    best = []
    for prefix in ("", "target:"):
        there = [name for name in families if name.startswith("target:") == bool(prefix)]
        best += sorted(there, key=lambda name: -max(fixed.accuracy for fixed in families[name]))[:_CURVES]
    return Figure(
        title=f"{plan.model + ': ' if plan.model else ''}{plan.problems} problems, held out",
        x=Axis(title=f"mean {plan.unit} of a problem", log=True),
        y=Axis(title="right", percent=True),
        series=(
            Series(
                name="auto",
                x=[point.cost for point in points],
                y=[point.accuracy for point in points],
                low=[point.low for point in points],
                high=[point.high for point in points],
            ),
            *(
                Series(name=name, x=[fixed.cost for fixed in shown], y=[fixed.accuracy for fixed in shown])
                for name in best
                if (shown := _rising(families[name]))
            ),
        ),
    )


def gains(plan: Plan) -> Rows:
    """`auto` less each baseline at equal mean cost, and what the baseline costs where it is as accurate."""
    baselines = list(dict.fromkeys(gain.against.partition(" (")[0] for gain in plan.gains))
    rows = []
    for cost in dict.fromkeys(gain.cost for gain in plan.gains):
        here = {gain.against.partition(" (")[0]: gain for gain in plan.gains if gain.cost == cost}
        auto = next(iter(here.values())).accuracy
        rows.append([amount(cost), f"{100 * auto:.1f}%", *(_gain(here.get(baseline)) for baseline in baselines)])
    return ["mean cost", "auto", *(f"less {baseline}" for baseline in baselines)], rows


def _gain(gain: Gain | None) -> str:
    """Points with their interval, and how many times as much the baseline costs where it is as accurate."""
    if gain is None:
        return "costs more"
    times = "never as good" if gain.ratio is None else f"x{gain.ratio:.2f}"
    return f"{100 * (gain.accuracy - gain.baseline):+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}) {times}"


def bins(plan: Plan) -> Rows:
    """The strategy of every bin and budget, and how accurate it was on the problems that it was chosen on."""
    table = plan.table
    columns = ["bin", f"{table.difficulty} after {table.probe}", *(f"<= {amount(budget)}" for budget in table.budgets)]
    edges = ["", *(f"{edge:.3g}" for edge in table.edges), ""]
    rows = []
    for number, row in enumerate(table.cells):
        name = {0: "1 hardest", len(table.cells) - 1: f"{len(table.cells)} easiest"}.get(number, str(number + 1))
        cells = [
            f"{cell.setting} {100 * cell.accuracy:.0f}%" if affordable(cell, budget) else NOT_AFFORDABLE
            for cell, budget in zip(row, table.budgets, strict=True)
        ]
        rows.append([name, f"{edges[number]} to {edges[number + 1]}".strip(), *cells])
    return columns, rows


def sentences(plan: Plan) -> list[str]:
    """What the plan is for, what it decides by, and how far its chances can be trusted."""
    policy = plan.policy
    going = "" if plan.target is None else f", going over to {plan.target}"
    votes = [f"{name} x {weight:.3g}" for name, weight in policy.vote.coefficients.items() if weight]
    if plan.target is not None:
        votes.append(f"a sample of the target counts {math.exp(policy.vote.target):.2g}")
    if policy.vote.copy:
        votes.append(f"a text that was there before counts {math.exp(policy.vote.copy):.2g}")
    lines = [
        f"For {plan.model or 'a model that its pool does not name'}{going}, {plan.verifier or 'no verifier'}; "
        f"{plan.problems} problems with {plan.samples} samples each; costs in {plan.unit}.",
        f"Its vote weighs a sample by exp of: {'; '.join(votes) or 'nothing, so it is the majority'}.",
        f"Its chances have a Brier score of {plan.brier:.3f}; that of always saying the mean is {plan.base:.3f}.",
        "Said and true where it stopped, by tenths: "
        + ", ".join(
            f"{100 * tenth.said:.0f}% {100 * tenth.true:.0f}% ({tenth.problems} problems)" for tenth in plan.reliability
        )
        + ".",
        *(_kept(plan, one) for one in plan.utilities),
    ]
    if plan.oracle:
        lines.append("The bins know the right answers: their table is an upper bound and cannot be used.")
    return lines


def _kept(plan: Plan, one: Utility) -> str:
    worth = amount(1 / one.price)
    return (
        f"Where a right answer is worth {worth} {plan.unit}, going on was said to add {100 * one.said:.1f} points and "
        f"added {100 * one.true:.1f} ({100 * one.true_low:.1f} to {100 * one.true_high:.1f}, 90%); "
        f"accuracy less price x cost is {one.auto:.3f}, that of the best fixed strategy "
        f"{one.fixed:.3f} (difference {one.low:+.3f} to {one.high:+.3f}, 90%)."
    )


def checks(checked: Sequence[Checked]) -> Rows:
    """New recordings against what the plan expects."""
    columns = ["price", "expected", "found (90%)", "expected cost", "found (90%)", "drift"]
    rows = [
        [
            f"{check.price:.3g}",
            _percent(check.expected),
            f"{100 * check.accuracy:.1f}% ({100 * check.low:.1f}% to {100 * check.high:.1f}%)",
            amount(check.expected.cost),
            f"{amount(check.cost)} ({amount(check.cost_low)} to {amount(check.cost_high)})",
            "; ".join(check.drift) or "none",
        ]
        for check in checked
    ]
    return columns, rows


def _rising(settings: list[Fixed]) -> list[Fixed]:
    """Those that are more accurate than all that cost less; a stop rule has many that are not."""
    rising: list[Fixed] = []
    for setting in settings:
        if not rising or setting.accuracy > rising[-1].accuracy:
            rising.append(setting)
    return rising


def _percent(measured: Expected | Fixed) -> str:
    return f"{100 * measured.accuracy:.1f}% ({100 * measured.low:.1f}% to {100 * measured.high:.1f}%)"


def _stops(setting: str) -> bool:
    return setting.removeprefix("target:").startswith(("adaptive_consistency", "esc"))


def action_rows(values: Sequence[ActionValue]) -> Rows:
    """What each drawn action is worth, as a table."""
    head = ["action", "requests", "effective", "accuracy (95%)", "tokens (95%)", "gain, points (95%, all at once)"]
    rows = [
        [
            value.action,
            f"{value.requests:,}",
            f"{value.effective:,.0f}",
            _with_interval(value.accuracy, 100, ".1f"),
            _with_interval(value.cost, 1, ",.0f"),
            "-" if value.action == OWN else _with_interval(value.gain, 100, "+.1f"),
        ]
        for value in values
    ]
    return head, rows


def learned_sentences(
    traffic: LearnedTraffic,
    values: Sequence[ActionValue],
    told: Sequence[str],
    gain: Estimate | None,
    out: Path,
    price: float,
) -> list[str]:
    """What was learned, in words."""
    chosen = best(values)
    said = [
        f"{len(traffic.requests):,} requests had a drawn action and a judged answer, {traffic.unjudged:,} were not "
        "judged; this holds for requests like the first."
    ]
    if clipped := sum(value.clipped > 0 for value in values):
        said.append(f"The weights of {clipped} actions were cut, which moves them towards what was predicted.")
    worth = "accuracy alone counts" if not price else f"a right answer is worth {1 / price:,.0f} tokens"
    if chosen.action == OWN:
        said.append(f"No single action is surely better than what the server does ({worth}).")
    else:
        said.append(f"{chosen.action} is better than what the server does ({worth}): use it as --strategy.")
    said += [f"Drift: {one}." for one in told]
    if len(traffic.rows) < LEAST:
        return [
            *said,
            f"{len(traffic.rows)} requests drew the most samples and have a known right answer; a plan takes {LEAST}.",
        ]
    said.append(f"{out} is fitted on the {len(traffic.rows):,} requests that drew the most samples.")
    if gain is not None:
        said.append(
            f"It gains {_with_interval(gain, 100, '+.1f')} points over the plan that serves now, on requests that it "
            "was not fitted on."
        )
    return said


def _with_interval(estimate: Estimate, times: float, form: str) -> str:
    value, low, high = (times * one for one in estimate)
    return f"{value:{form}}" + ("" if math.isnan(low) else f" ({low:{form}} to {high:{form}})")
