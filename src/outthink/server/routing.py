"""Which strategy answers a request, with how many samples and what budget.

The strategy is the one that a header or the body names, else the one after the + in the model's name, else the
server's own; `n`, the budget and the plan likewise. What the operator allows is the most that anybody gets. Names come
from the table of strategies and plans from those that the operator has named, so no request can load code or a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from outthink.cost import worth
from outthink.errors import UnknownName, UsageError
from outthink.model import FOR_ALL
from outthink.planner.auto import Auto
from outthink.planner.plan import Plan
from outthink.resources.table import taken
from outthink.server.asked import EFFORTS, Asked
from outthink.server.errors import BadRequest
from outthink.strategies import STRATEGIES, Strategy, traits
from outthink.strategies.comparing import Comparing, comparing
from outthink.strategies.making import make_strategy, no_such_strategy, strategy_data, strategy_name
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.types import AnswerKind, Budget

ONE = "none"
"""Names what is no strategy: one sample, as asked for."""

_COMPARED = 100  # names of models that are compared, and characters of them
# say nothing about what an answer is, so every strategy can leave them to the model
HARMLESS = FOR_ALL | {"seed"}
# what a field says that might as well have been left out
_DEFAULTS: Mapping[str, Any] = {
    "logprobs": False,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "response_format": {"type": "text"},
    "tools": [],
    "stop": [],
    "logit_bias": {},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerRules:
    """What the operator has decided.

    Args:
        strategy: for requests that name none, and for those that name the same; None: one sample.
        budget: the most that any request may spend.
        answer: how replies are compared where a request does not say.
        otherwise: for replies that cannot be compared; None: what pays, as in `strategies.comparing`.
        plans: files of plans by name; the first one serves requests that name none.
        scorers: "verifier" and "prm", as configured.
    """

    strategy: Strategy | None
    budget: Budget = dataclasses.field(default_factory=Budget)
    answer: AnswerKind = "chat"
    otherwise: Strategy | None = None
    plans: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scorers: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How a request is answered.

    Args:
        strategy: what runs; `named` is what the reply says of it.
        samples: how many samples' worth may be spent at most, where only an effort says it; else None.
        single: it is one sample for each choice, which can be passed on while it is written.
        fields: fields of the request that the server acts on itself, and that are passed on to the model where no
            strategy runs (reasoning_effort).
        scorers: which scorers it asks; some of "verifier" and "prm".
        plan: the file that it follows; None: none.
    """

    strategy: Strategy
    named: Mapping[str, Any]
    answer: AnswerKind
    budget: Budget
    samples: int | None
    single: bool
    fields: Mapping[str, Any]
    scorers: frozenset[str]
    plan: str | None


def split(model: str, served: Collection[str]) -> tuple[str, str | None]:
    """The model and the strategy in a model's name; an exact name goes before a name with a strategy.

    Raises BadRequest (404) where there is no such model.
    """
    if model in served:
        return model, None
    name, plus, strategy = model.rpartition("+")
    if plus and name in served:
        return name, strategy
    near = _nearest(name if plus else model, served)
    hint = f"did you mean {near[0]!r}?" if near else "GET /v1/models lists what there is."
    raise BadRequest(f"There is no model {model[:200]!r}; {hint}", param="model", code="model_not_found", status=404)


def _nearest(name: str, served: Collection[str]) -> list[str]:
    """The name that is most like it, if one is; of many models only those are compared that begin alike."""
    like = [one for one in served if len(served) <= _COMPARED or one[:3].lower() == name[:3].lower()]
    return difflib.get_close_matches(name[:_COMPARED], [one[:200] for one in like[:_COMPARED]], n=1, cutoff=0.4)


def choose(asked: Asked, named: str | None, policy: ServerRules, load: float = 1.0) -> Choice:
    """What answers the request.

    Args:
        named: the strategy in the model's name.
        load: the share of what it may spend that the server is willing to spend now, in (0, 1].

    Raises BadRequest where there is no such strategy or plan, or it cannot honour a field of the request.
    """
    wish, samples = asked.wish, None
    name = wish.strategy or named
    if name is None and wish.plan is None and policy.strategy is None:
        name = ONE
    if wish.plan is not None:
        if name not in (None, "auto"):
            raise BadRequest(f"A plan is for the strategy auto, not for {name}.", param="outthink.plan")
        if wish.plan not in policy.plans:
            raise BadRequest(str(UnknownName("plan", wish.plan, policy.plans or ["none"])), param="outthink.plan")
        name = "auto"
    fields = {"reasoning_effort": asked.effort} if asked.effort is not None and name == ONE else {}
    if asked.effort is not None and name != ONE:
        samples = EFFORTS[asked.effort]
        if samples == 1 and wish.strategy is None and wish.n is None:
            name = ONE
    if name == ONE:
        if wish.n is not None:
            raise BadRequest(f"{ONE} is one sample; leave n out, or name a strategy.", param="outthink.n")
        strategy: Strategy = SelfConsistency(n=asked.choices)
    else:
        base = _base(name, policy)
        if isinstance(base, Auto) and wish.plan is not None:
            base = replace(base, plan=policy.plans[wish.plan])
        strategy = _sized(base, asked, samples, load)
    single = name == ONE or traits.one_sample(strategy)
    if (lack := lacking(strategy, policy.scorers)) is not None:
        raise BadRequest(
            f"{name or strategy_name(strategy)} needs {lack}, which this server does not have.",
            param="outthink.strategy",
        )
    _check_fields(asked, strategy, policy)
    answer = wish.answer or _kind(asked) or policy.answer
    runs = strategy
    if not single:
        runs = comparing(
            strategy,
            answer,
            verifier="verifier" in policy.scorers,
            fields=asked.fields,
            otherwise=_otherwise(asked, policy, samples, load),
            choices=asked.choices,
        )
    limited = wish.n is not None or bool(asked.budget and asked.budget.limits.keys() - {"seconds"})
    return Choice(
        strategy=runs,
        named={"name": ONE} if name == ONE else _told(strategy, policy),
        answer=answer,
        budget=_budget(asked, policy),
        samples=None if name == ONE or limited else samples,
        single=single,
        fields=fields,
        scorers=_asks(runs, policy),
        plan=(strategy.plan or None) if isinstance(strategy, Auto) else None,
    )


def most_samples(choice: Choice) -> int | None:
    """The most samples that it draws, where they are all that it asks of a model; None where that is not known."""
    return traits.most_samples(choice.strategy)


def _otherwise(asked: Asked, policy: ServerRules, samples: int | None, load: float) -> Strategy | None:
    """What the operator has named for replies that cannot be compared; None where it could not honour the request."""
    strategy = policy.otherwise
    if strategy is None:
        return None
    n = asked.wish.n or samples or traits.samples(strategy)
    strategy = _about(strategy, max(1, math.floor(n * load)))
    try:
        _check_fields(asked, strategy, policy)
    except BadRequest:
        return None
    return strategy


def lacking(strategy: Strategy, scorers: Collection[str], powers: Collection[str] | None = None) -> str | None:
    """What it needs of "verifier" and "prm" beyond those that are there; None: nothing.

    Args:
        powers: of the model; None: not known yet, so whatever it needs of them may be there.
    """
    wanted = taken(strategy.run)
    for role in ("verifier", "prm"):
        if wanted.get(role) and role not in scorers:
            return f"a {role}"
    needed = traits.needs_one_of(strategy)
    able = needed - {"verifier", "prm"}
    there = needed & set(scorers) or (able if powers is None else able & set(powers))
    return f"a {' or a '.join(sorted(needed, reverse=True))}" if needed and not there else None


def _base(name: str | None, policy: ServerRules) -> Strategy:
    """The strategy of that name, with the operator's settings where it is the operator's."""
    own = policy.strategy
    if own is not None and name in (None, strategy_name(own)):
        return own
    if name is None or name not in STRATEGIES:
        raise BadRequest(
            str(no_such_strategy(str(name)[:100], [*STRATEGIES, ONE])),
            param="outthink.strategy",
            code="no_strategy",
        )
    return _default(name, next(iter(policy.plans.values()), "") if name == "auto" else "")


@lru_cache(maxsize=256)
def _default(name: str, plan: str) -> Strategy:
    return make_strategy(name, {"plan": plan} if plan else None)


def _told(strategy: Strategy, policy: ServerRules) -> dict[str, Any]:
    """The strategy for the caller, to whom a plan is a name and not a file of this machine."""
    names = {path: name for name, path in policy.plans.items()}
    told = strategy_data(strategy)
    return {name: names.get(value, value) if name == "plan" else value for name, value in told.items()}


def _with(strategy: Strategy, n: int) -> Strategy:
    """The strategy with so many samples; itself where it has no such number."""
    field = traits.size(strategy)
    if field is None or getattr(strategy, field) == n:
        return strategy
    try:
        changed: Strategy = replace(strategy, **{field: n})
    except ValueError as cause:
        raise BadRequest(f"{strategy_name(strategy)}: {cause}.", param="outthink.n") from None
    return changed


def _about(strategy: Strategy, n: int) -> Strategy:
    """The same, or itself where it cannot do with so many; its budget limits it all the same."""
    with contextlib.suppress(BadRequest):
        return _with(strategy, n)
    return strategy


def _sized(strategy: Strategy, asked: Asked, samples: int | None, load: float) -> Strategy:
    """With the number of samples that was asked for, less what the load takes away."""
    n = asked.wish.n
    if n is not None and traits.size(strategy) is None:
        raise BadRequest(f"{strategy_name(strategy)} has no number of samples; leave n out.", param="outthink.n")
    strategy = _about(strategy, samples or traits.samples(strategy)) if n is None else _with(strategy, n)
    if load >= 1:
        return strategy
    if isinstance(strategy, Auto) and strategy.plan:
        return _thriftier(strategy, asked, load)
    return _about(strategy, max(1, math.floor(traits.samples(strategy) * load)))


def _thriftier(auto: Auto, asked: Asked, load: float) -> Auto:
    """Under load compute is dearer: the same value buys less of it."""
    if auto.value_of_correct:
        value, unit = worth(auto.value_of_correct)
        return replace(auto, value_of_correct=f"{value * load:.6g}{unit}")
    plan = Plan.open(auto.plan)
    limit = (asked.budget or Budget()).limits.get(plan.unit, math.inf)
    most = auto.mean_cost or min(limit, max(one.cost for one in plan.expected))
    return replace(auto, mean_cost=most * load)


def _budget(asked: Asked, policy: ServerRules) -> Budget:
    """The least of what the caller wants and the operator allows, in every unit."""
    wanted, most = (asked.budget or Budget()).limits, policy.budget.limits
    return Budget({unit: min(wanted.get(unit, math.inf), most.get(unit, math.inf)) for unit in {**wanted, **most}})


def _kind(asked: Asked) -> AnswerKind | None:
    """How replies are compared, where the request says what form they have; calls of tools are JSON as well."""
    form, vendors = asked.fields.get("response_format"), asked.fields.get("structured_outputs")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        return "json"
    if "guided_json" in asked.fields or (isinstance(vendors, dict) and vendors.get("json")):
        return "json"
    # a call is no answer of the kind that the server may have been set to
    return "chat" if asked.fields.get("tools") and asked.fields.get("tool_choice") != "none" else None


def _asks(strategy: Strategy, policy: ServerRules) -> frozenset[str]:
    """Which of the configured scorers it may ask."""
    parts = traits.parts(strategy)
    if isinstance(strategy, Comparing):
        # how likely a reply is says nothing of how good a text is, so that scorer is not worth asking for logprobs
        chooses = strategy.free and policy.scorers.get("verifier", "confidence") != "confidence"
        named = {name for part in strategy.named for name in _asks(part, policy)}
        return frozenset(named | ({"verifier"} if chooses else set()))
    takers = (strategy, *parts)
    asked = {name for one in takers if not (isinstance(one, Auto) and not one.plan) for name in taken(one.run)}
    return frozenset(policy.scorers.keys() & asked)


def _check_fields(asked: Asked, strategy: Strategy, policy: ServerRules) -> None:
    """Refuse a field that the strategy could not give on as it is."""
    name = strategy_name(strategy)
    greedy = traits.one_sample(strategy) and asked.temperature == 0  # at the temperature that it has anyway
    if traits.own_temperature(strategy) and asked.temperature is not None and not greedy:
        raise BadRequest(f"{name} sets its own temperature; leave it out.", param="temperature")
    if not traits.as_asked(strategy):
        lost = sorted(telling(asked.fields).keys() - HARMLESS)
        if lost:
            raise BadRequest(
                f"{name} cannot honour {lost[0]}, because its answers are not single samples of your messages; leave "
                f"it out, or take another strategy, such as self_consistency or {ONE}.",
                param=lost[0],
            )
        if asked.media:
            raise BadRequest(f"{name} works with text only; leave images, sounds and files out.", param="messages")
    asked_scorers = [policy.scorers[role] for role in sorted(_asks(strategy, policy))]
    blind = [scorer for scorer in asked_scorers if scorer != "confidence"]
    if "models" in taken(strategy.run) and not isinstance(strategy, Auto):
        blind.append("a model in another role")
    if asked.media and blind:
        raise BadRequest(
            f"{name} asks {blind[0]}, which reads text only; leave images, sounds and files out.", param="messages"
        )


def telling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that say what holds anyway."""
    return {name: value for name, value in fields.items() if not (name in _DEFAULTS and value == _DEFAULTS[name])}


def servable(policy: ServerRules, available: Collection[str], powers: Collection[str]) -> list[str]:
    """The strategies for which all that they need is there, in the order of the table.

    Args:
        available: resources that are there for this model, scorers included.
        powers: of the model.
    """
    names = []
    for name in STRATEGIES:
        try:
            strategy = _base(name, policy)
        except UsageError:
            continue
        wanted = taken(strategy.run)
        scorers = {"verifier", "prm"} & set(available)
        if (
            all(name in available or not needed for name, needed in wanted.items())
            and traits.powers(strategy) <= set(powers)
            and _asks(strategy, policy) <= scorers
            and lacking(strategy, scorers, powers) is None
            and traits.unset(strategy) is None
        ):
            names.append(name)
    return names
