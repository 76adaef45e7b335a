"""A plan: what was learned from recorded samples about when to do what, as a small file that a person can read.

Source: compute-optimal scaling's table of strategies by difficulty and budget (Snell et al. 2024), the policy of
`policy`, and what both are worth on problems that they were not fitted on. Differs: it names what it is for, and is
refused anywhere else.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from outthink.errors import UsageError
from outthink.planner.bins import Table
from outthink.planner.evidence import feature_names
from outthink.planner.policy import Policy
from outthink.planner.trust import Tenth, Utility
from outthink.records.kinds import what_is
from outthink.strategies import STRATEGIES

_logger = logging.getLogger("outthink.planner")

SCHEMA = 3
"""Version of the file; another one is refused."""

_NUMBERS = r"\[\s*(?:-?[0-9][0-9.e+-]*,?\s*)+\]"  # a list of nothing else, which is read in one line

_DECIDING = ("evidence", "estimate", "policy")
"""Modules of the planner that a decision depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Problems that look alike after the plan's probe, at one price.

    Args:
        share: of all problems.
        accuracy, low, high: of problems in it, with a 90% interval.
        cost, cost_low, cost_high: mean of a problem, and the range that holds 90% of problems.
    """

    share: float
    accuracy: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limited:
    """What to expect where a budget is the limit of every problem, and what they cost on average is aimed at it, too.

    Args:
        limit: of a problem.
        accuracy, low, high: mean over problems with a 90% interval; cost: mean; least, most: of 90% of problems.
    """

    limit: float
    accuracy: float
    low: float
    high: float
    cost: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What to expect at one price, measured on problems that the policy was not fitted on.

    Args:
        price: of one unit of cost, where a right answer is worth 1.
        accuracy, low, high: mean over problems with a 90% interval.
        cost, cost_low, cost_high: mean of a problem with the 90% interval of the mean.
        least, most: the range that holds the cost of 90% of problems.
        limited: the same price where its mean cost is also the limit of every problem.
        table, table_cost: accuracy and mean cost of the plan's table of bins at this budget, on held-out problems.
        bins: from the hardest to the easiest, by the plan's table.
    """

    price: float
    accuracy: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    least: float
    most: float
    limited: Limited
    table: float
    table_cost: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed:
    """A fixed strategy on the same problems; accuracy with a 90% interval, mean cost."""

    setting: str
    accuracy: float
    low: float
    high: float
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """`auto` less a baseline at equal mean cost, on held-out problems; 90% interval, so `low` > 0 is one-sided 95%.

    Args:
        cost: mean of both.
        ratio: cost of the baseline at the accuracy of `auto` over that of `auto`; None where it never gets there.
    """

    against: str
    cost: float
    accuracy: float
    baseline: float
    low: float
    high: float
    ratio: float | None


@dataclass(frozen=True, kw_only=True)  # without slots, so that the digest is computed once
class Plan:
    """Everything that `auto` and `quote` need.

    Args:
        model, target, verifier: what it was recorded with; None: there was none. An empty model: nobody has said.
        sampling: how the samples were drawn; None where the pool does not say.
        unit: of all costs; "samples" where the pool does not say more.
        least: what has to be allowed for a first sample to begin; ceiling: the limit above which none ever binds.
        problems, samples: recorded.
        expected: by price, from the cheapest point to the dearest.
        table: strategies by bin and budget; `oracle` says that its difficulty was measured with the right answers, so
            that its cells are an upper bound and cannot be used.
        brier, base: mean squared error of the predicted chances, and of the mean accuracy in their place.
        reliability: predicted and true chances where it stopped, by tenths; utilities: whether its gains are true.
        versions: digests of the strategies and of the deciding code.
        runs: the scorers ("verifier", "prm") that each strategy it may run was recorded with.
    """

    model: str
    target: str | None
    verifier: str | None
    sampling: Mapping[str, float] | None
    unit: str
    least: float
    ceiling: float
    problems: int
    samples: int
    policy: Policy
    expected: tuple[Expected, ...]
    table: Table
    fixed: tuple[Fixed, ...]
    gains: tuple[Gain, ...]
    brier: float
    base: float
    reliability: tuple[Tenth, ...]
    utilities: tuple[Utility, ...]
    versions: Mapping[str, str]
    runs: Mapping[str, Mapping[str, str]]
    schema: int = SCHEMA

    @functools.cached_property
    def digest(self) -> str:
        """Eight digits that tell plans apart."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]

    @property
    def oracle(self) -> bool:
        """Whether the table knew the right answers."""
        return self.table.difficulty == "oracle"

    def price(self, mean_cost: float) -> float:
        """The price at which a problem costs this much on average.

        Above the measured points it is that of the dearest; below them it rises to where one sample is all.
        """
        rate = self.policy.rates[0]
        written = rate.completion * rate.tokens
        points = sorted((point.cost, point.price) for point in self.expected)
        one = rate.prompt * rate.prompt_tokens + written
        if one < points[0][0]:
            points.insert(0, (one, max(3 / written, points[0][1])))
        costs, prices = np.log(np.array(points)).T
        return float(np.exp(np.interp(math.log(max(mean_cost, 1e-300)), costs, prices)))

    def at(self, price: float) -> Expected:
        """What to expect at a price: between two measured ones in proportion, beyond them that of the last."""
        points = sorted(self.expected, key=lambda point: point.price)
        prices = [point.price for point in points]
        if near := [point for point in points if math.isclose(point.price, price)]:
            return near[0]
        place = int(np.searchsorted(prices, price))
        if place in (0, len(points)):
            return points[min(place, len(points) - 1)]
        low, high = points[place - 1], points[place]
        part = math.log(price / low.price) / math.log(high.price / low.price) if high.price > low.price else 0.0
        mixed: Expected = _between(low, high, part)
        return replace(mixed, price=price)

    def within(self, limit: float) -> Limited:
        """What to expect under a limit of every problem: between two measured ones in proportion.

        Where it is so large that no problem reaches it, it is what the plan does without one.
        """
        dearest = max(self.expected, key=lambda point: point.cost)
        free = {name: getattr(dearest, name) for name in ("accuracy", "low", "high", "cost", "least", "most")}
        points = sorted((point.limited for point in self.expected), key=lambda one: one.limit)
        points.append(Limited(limit=max(self.ceiling, points[-1].limit * (1 + 1e-9)), **free))
        place = next((place for place, one in enumerate(points) if one.limit >= limit), len(points) - 1)
        if place == 0 or limit >= points[-1].limit:
            return points[place]
        low, high = points[place - 1], points[place]
        part = math.log(limit / low.limit) / math.log(high.limit / low.limit)
        mixed: Limited = _between(low, high, part)
        return mixed

    def check(
        self,
        *,
        model: str,
        target: str | None,
        verifier: str | None,
        sampling: Mapping[str, float] | None,
        prm: str | None = None,
    ) -> None:
        """Raise UsageError where the plan is for something else, with what."""
        given = model.removeprefix("recorded:")
        if not self.model and not (model.startswith("recorded:") or not model):
            raise UsageError(f"The plan does not say which model it is for: fit it again with --writer {model}.")
        if self.model and given and given != self.model:
            raise UsageError(f"The plan is for {self.model}, not for {model}; fit one from a pool of that model.")
        if self.target is not None and (target or model).removeprefix("recorded:") != self.target:
            raise UsageError(f"The plan goes over to {self.target}: add --role target={self.target}, or fit another.")
        if self.verifier is not None and not _same(self.verifier, verifier):
            raise UsageError(
                f"The plan reads scores of {self.verifier}, and there is {verifier or 'no verifier'}: add --verifier "
                f"{self.verifier}, or fit another plan."
            )
        for run, scorers in self.runs.items():
            for role, wanted in scorers.items():
                if not _same(wanted, {"verifier": verifier, "prm": prm}[role]):
                    raise UsageError(
                        f"The plan may run {run}, recorded with --{role} {wanted}: add it, or fit another."
                    )
        for name, value in (self.sampling or {}).items():
            if sampling is not None and sampling.get(name, value) != value:
                raise UsageError(f"The plan was recorded with {name} {value:g}, not {sampling[name]:g}; use the same.")
        for name, version in self.versions.items():
            if version_of(name) != version:
                raise UsageError(
                    f"The plan was made with another version of {name}: fit it again from the same recordings."
                )

    def to_json(self) -> str:
        """The whole plan, readable; numbers keep six digits."""
        raw = json.loads(_adapter().dump_json(self))
        text = json.dumps({"schema": raw.pop("schema"), **_short(raw)}, indent=1, ensure_ascii=False)
        return (
            re.sub(_NUMBERS, lambda row: re.sub(r"\s+", " ", row[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"
        )

    @classmethod
    def open(cls, path: str | Path) -> Plan:
        """Read a file; raises UsageError where it is no plan of this version.

        One that this process has read before, and cannot read any more, stays as it was, which is logged: what a server
        follows may be gone or half written for a while.
        """
        path = Path(path)
        try:
            plan = _read(path)
        except UsageError as failure:
            last = _LAST.get(str(path))
            if last is None:
                raise
            if last.complaint != str(failure):
                last.complaint = str(failure)
                _logger.error("The plan stays as it was read before: %s", failure)
            return last.plan
        _LAST[str(path)] = _Last(plan)
        return plan


@dataclass(slots=True)
class _Last:
    """What was read of a file last, and what was said of it since."""

    plan: Plan
    complaint: str = ""


_LAST: dict[str, _Last] = {}
"""By file."""


def _read(path: Path) -> Plan:
    try:
        return _opened(path.resolve(), path.stat().st_mtime_ns)
    except OSError as cause:
        if os.path.isdir(path):
            raise _foreign(path) from None
        raise UsageError(f"Cannot read the plan {path}: {cause.strerror}; make one with `outthink plan fit`.") from None


@functools.lru_cache(maxsize=8)
def _opened(path: Path, changed: int) -> Plan:
    try:
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            raise _foreign(path) from None
        if not isinstance(raw, dict) or not {"schema", "policy", "expected"} <= raw.keys():
            raise _foreign(path)
        if raw["schema"] != SCHEMA:
            raise UsageError(
                f"{path} is a plan of version {raw['schema']}, this program reads version {SCHEMA}; make it again with "
                "`outthink plan fit`."
            )
        plan: Plan = _adapter().validate_python(raw)
        _whole(plan)
    except ValueError as cause:
        first = str(cause).splitlines()[0]
        raise UsageError(f"{path} is damaged ({first}); make it again with `outthink plan fit`.") from None
    return plan


def _foreign(path: Path) -> UsageError:
    """Why something else cannot be a plan, and what makes one."""
    what = what_is(path)
    fit = f"`outthink plan fit {path}` makes one of it" if "pool" in what else "make one with `outthink plan fit`"
    return UsageError(f"{path} {what}, and no plan; {fit}.")


def _whole(plan: Plan) -> None:
    """Raise ValueError where a part of the plan does not fit the others."""
    policy = plan.policy
    count = len(feature_names(policy.signals, target=policy.has_target))
    models = [model for stage in policy.stages for model in (stage.now, *stage.prospects) if model is not None]
    if any(
        len(model.coefficients) != count or len(model.raw) != len(model.calibrated) or not model.raw for model in models
    ):
        raise ValueError("coefficients or knots are missing")
    prospects = [prospect for stage in policy.stages for prospect in stage.prospects]
    if any(
        not len(one.actions) == len(one.offsets) == len(one.slopes)
        or not all(0 <= place < len(policy.actions) for place in one.actions)
        for one in prospects
    ):
        raise ValueError("it predicts what it cannot do")
    if not policy.starts or any(
        not 0 <= start.action < len(policy.actions) or not len(start.prices) == len(start.right) == len(start.cost) > 0
        for start in policy.starts
    ):
        raise ValueError("it does not say how to begin")
    kinds = {(stage.drawn, stage.dear): stage.now for stage in policy.stages}
    if (0, 0) not in kinds or (1, 0) not in kinds or any(now is None for at, now in kinds.items() if at != (0, 0)):
        raise ValueError("a stage is missing")
    scale = policy.scale
    if any(len(part) != count for part in (scale.mean, scale.deviation, scale.low, scale.high)):
        raise ValueError("the scale of a feature is missing")
    if not plan.expected or not policy.actions or not all(point.price > 0 for point in plan.expected):
        raise ValueError("it has nothing to do or no prices")
    unknown = [name for name in plan.versions if name != "planner" and name not in STRATEGIES]
    if unknown:
        raise ValueError(f"it names {unknown[0]!r}, which is no strategy of the table")
    if len(plan.table.cells) != len(plan.table.edges) + 1 or any(
        len(point.bins) != len(plan.table.cells) for point in plan.expected
    ):
        raise ValueError("bins are missing")


def _between(low: Any, high: Any, part: float) -> Any:
    """Two dataclasses of numbers, or tuples of them, mixed number by number."""
    if isinstance(low, float):
        return (1 - part) * low + part * high
    if isinstance(low, tuple):
        return tuple(_between(one, other, part) for one, other in zip(low, high, strict=True))
    return type(low)(
        **{field.name: _between(getattr(low, field.name), getattr(high, field.name), part) for field in fields(low)}
    )


def _same(wanted: str, given: str | None) -> bool:
    """Whether two descriptions are of the same scorer; of a file its content counts, and not where it is."""
    file = re.compile(r".*\.json ([0-9a-f]{8})")
    one, other = file.fullmatch(wanted), file.fullmatch(given or "")
    return one[1] == other[1] if one and other else wanted == given


@functools.lru_cache(maxsize=256)
def version_of(name: str) -> str:
    """Eight digits that change with the code of a strategy of the table, or of the planner's decisions ("planner").

    Comments, docstrings, imports and layout do not matter.
    """
    modules = (
        [f"outthink.planner.{module}" for module in _DECIDING]
        if name == "planner"
        else [STRATEGIES.get(name, name).partition(":")[0]]
    )
    digest = hashlib.sha256()
    for module in modules:
        try:
            file = importlib.import_module(module).__file__
        except ImportError:
            return "missing"
        digest.update(_code(Path(file or "").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:8]


def _code(source: str) -> str:
    """The source without docstrings, comments, imports and empty lines, whatever the Python that reads it."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):  # where a module lives decides nothing
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                for number in range(first.lineno - 1, first.end_lineno):
                    lines[number] = ""
    return "\n".join(stripped for line in lines if (stripped := re.sub(r"\s+#\s.*$", "", line).rstrip()))


def versions(settings: Sequence[str]) -> dict[str, str]:
    """Of the planner, and of the strategies in settings such as "target:self_consistency?n=8 by judge"."""
    names = {setting.removeprefix("target:").partition("?")[0].partition(" ")[0] for setting in settings}
    return {"planner": version_of("planner"), **{name: version_of(name) for name in sorted(names)}}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value


@functools.lru_cache
def _adapter() -> Any:
    from pydantic import TypeAdapter  # here, because importing pydantic is slow

    return TypeAdapter(Plan)
