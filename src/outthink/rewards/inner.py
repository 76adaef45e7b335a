"""A scorer inside another one, such as the verifier that judges the ends of rollouts.

The outer scorer names the resources of both, passes them on by name, and closes what it has opened.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from outthink.errors import EngineError
from outthink.meter import Meter
from outthink.rewards import Path, Scorer
from outthink.rewards.making import close_scorer, make_scorer
from outthink.rewards.scores import Scores
from outthink.types import Problem


class Inner:
    """A scorer that another one asks.

    Args:
        given: as for `make_scorer`; one that is opened here, from text, is closed here.
        process: it scores steps.
    """

    def __init__(self, given: Any, *, process: bool) -> None:
        self._scorer: Scorer = make_scorer(given, process=process)
        self._opened = isinstance(given, str)
        self._known: weakref.WeakKeyDictionary[Meter, dict[Any, float]] = weakref.WeakKeyDictionary()
        self.reads: frozenset[str] = frozenset(getattr(self._scorer, "reads", ()))
        self.reads_ends = self.reads | {"complete", "finish"}  # for one that has to know whether a path has ended
        self.relative: bool = getattr(self._scorer, "relative", False)
        self.spec: Any = getattr(self._scorer, "spec", None)

    def naming(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with the resources of the inner scorer in its signature, beside its own, in place of **others."""
        own = inspect.signature(function)
        named = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        named += [one for name, one in self._resources().items() if name not in own.parameters]
        both = functools.partial(function)
        both.__signature__ = own.replace(parameters=named)  # type: ignore[attr-defined]  # what `inspect` looks at
        return both

    def bound(self, *, meter: Meter, **resources: Any) -> Bound:
        """It on one problem, with what it is given by name; what it has scored there it does not score again."""
        available = {"meter": meter, **resources}
        mine = {name: available[name] for name in self._resources() if name in available}
        return Bound(self._scorer, mine, meter, self._known.setdefault(meter, {}))

    async def close(self) -> None:
        """Close what was opened here."""
        if self._opened:
            await close_scorer(self._scorer)

    def _resources(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self._scorer.score).parameters
        return {name: one for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY}


def passed_on(name: str) -> Any:
    """A property of a scorer with an `_inner` one: what that says under this name."""
    return property(lambda outer: getattr(outer._inner, name))


class Bound(Scores):
    """An inner scorer with its resources.

    Args:
        known: what it has scored before.
    """

    def __init__(self, scorer: Scorer, resources: dict[str, Any], meter: Meter, known: dict[Any, float]) -> None:
        super().__init__(scorer, resources, meter)
        self._known = known

    async def scores(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        """One score per path; raises as the scorer does."""
        return await self._scored(problem, paths)

    async def probabilities(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        """The same; raises EngineError where one is not in [0, 1]."""
        scores = await self.scores(problem, paths)
        for score in scores:
            if score is not None and not 0 <= score <= 1:
                raise EngineError(
                    f"A scorer inside another one must give scores in [0, 1], and one is {score:.6g}: "
                    "map them by a sigmoid or a fixed range first."
                )
        return scores
