"""What the rest of the system wants to know of a strategy besides its `run`: one function for each trait.

A strategy says it by a class variable or a property of that name; where it says nothing, the common case holds. A
scorer's traits are in `rewards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, cast

from outthink.model import Draw
from outthink.resources.table import taken
from outthink.strategies import Strategy

if TYPE_CHECKING:
    from outthink.model import Model, Models
    from outthink.rewards.scores import Scores


def powers(strategy: Strategy) -> frozenset[str]:
    """What the model must be able to do beyond sampling; nothing."""
    return frozenset(getattr(strategy, "powers", ()))


def parts(strategy: Strategy) -> tuple[Strategy, ...]:
    """Strategies that it may run in its place, and what those may run; none."""
    return tuple(getattr(strategy, "parts", ()))


def versions(strategy: Strategy) -> Mapping[str, str]:
    """What its decisions depend on besides its settings, by name; nothing."""
    return cast("Mapping[str, str]", getattr(strategy, "versions", {}))


def votes(strategy: Strategy) -> bool:
    """Whether it goes by equal answers, so that it chooses blindly where no two are equal; no."""
    return bool(getattr(strategy, "votes", False))


def majority(strategy: Strategy) -> bool:
    """Whether its answer is the most frequent one of all its samples and nothing else decides, so that what ties are
    worth can be computed; no."""
    return bool(getattr(strategy, "majority", False))


def follows_verifier(strategy: Strategy) -> bool:
    """Whether it goes by a verifier's scores where there is one, equal answers or not; where its `run` takes one."""
    return bool(getattr(strategy, "follows_verifier", "verifier" in taken(strategy.run)))


def known_as(strategy: Strategy) -> Strategy:
    """The one whose name and settings stand in traces; itself."""
    return cast("Strategy", getattr(strategy, "known_as", strategy))


def check(strategy: Strategy, model: Model, models: Models, verifier: Scores | None, prm: Scores | None) -> None:
    """Raise UsageError, before anything is spent, where it is set for something else; it is not."""
    if hasattr(strategy, "check"):
        strategy.check(model, models, verifier, prm)


def abstains(strategy: Strategy) -> bool:
    """Whether no answer can be what it wants to say; no: then a majority of what was paid for answers."""
    return bool(getattr(strategy, "abstains", False))


def as_asked(strategy: Strategy) -> bool:
    """Whether every answer is a sample of the problem's own messages; no."""
    return bool(getattr(strategy, "as_asked", False))


def own_temperature(strategy: Strategy) -> bool:
    """Whether it sets temperatures itself; no."""
    return bool(getattr(strategy, "own_temperature", False))


def one_sample(strategy: Strategy) -> bool:
    """Whether, as it is set, it is one sample of the problem's own messages and no more; a vote on one sample is."""
    told = getattr(strategy, "one_sample", None)
    return votes(strategy) and _most_drawn(strategy) == 1 if told is None else bool(told)


def needs_one_of(strategy: Strategy) -> frozenset[str]:
    """Resources and powers of the model of which it needs one, whichever it is; none."""
    return frozenset(getattr(strategy, "needs_one_of", ()))


def unset(strategy: Strategy) -> str | None:
    """What must be set before it can run at all, in words; None: nothing."""
    return cast("str | None", getattr(strategy, "unset", None))


def first(strategy: Strategy) -> tuple[Draw, ...]:
    """How its first samples are drawn, so that it can go on from them where they are there, and at most how many so.

    Empty: they are no whole answers, or it has no use for any that were there before it. Where it says nothing they are
    drawn as the model is set.
    """
    told = getattr(strategy, "first", None)
    if told is not None:
        return tuple(told)
    return (Draw(n=max(samples(strategy), 1), logprobs="logprobs" in powers(strategy)),)


def reads_recorded(strategy: Strategy) -> frozenset[str]:
    """What of a pool its `replay` reads: "keys", "scores", "logprobs", "tokens", "texts"; keys."""
    return frozenset(getattr(strategy, "reads_recorded", {"keys"}))


def size(strategy: Strategy | type) -> str | None:
    """The field that says how much it samples: `n` or `width` where it says nothing; None: it has none."""
    told: str | None = getattr(strategy, "size", None)
    names = {field.name for field in fields(strategy)}
    return told or next((name for name in ("n", "width") if name in names), None)


def samples(strategy: Strategy) -> int:
    """How much it samples as it is set; 0 where it has no such field."""
    name = size(strategy)
    return 0 if name is None else int(getattr(strategy, name))


def at_once(strategy: Strategy) -> int:
    """Most whole samples that it asks for at one time: those in flight where it says so, else all; 1 of a search.

    A strategy that has no number of samples is as its parts are.
    """
    told = getattr(strategy, "at_once", getattr(strategy, "ahead", None))
    if told is not None:
        return max(1, int(told))
    if powers(strategy) & {"prefix", "tokens"}:
        return 1
    return max(1, samples(strategy), *map(at_once, parts(strategy)))


def recorded_cap(strategy: Strategy) -> int | None:
    """The cap of the samples on which its settings were fitted, and so of its own; None: any will do."""
    return cast("int | None", getattr(strategy, "recorded_cap", None))


def most_samples(strategy: Strategy) -> int | None:
    """The most samples that it draws, where they are all that it asks of any model; None where that is not known."""
    return 1 if one_sample(strategy) else _most_drawn(strategy)


def _most_drawn(strategy: Strategy) -> int | None:
    if hasattr(strategy, "most_samples"):
        return cast("int | None", strategy.most_samples)
    simple = as_asked(strategy) and not own_temperature(strategy) and "models" not in taken(strategy.run)
    return samples(strategy) or None if simple else None
