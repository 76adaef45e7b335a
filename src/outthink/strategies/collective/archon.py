"""Archon: layers of generators, critics, rankers, fusers, verifiers and testers, each of which reads what came before.

Source: Archon: An Architecture Search Framework for Inference-Time Techniques (2409.15254); notes on its read-me and
its component code were read, the paper was not. Differs: an answer that cannot be read goes no further; equal texts are
shown once, in a random order; a judgement that cannot be read is asked for once more, not ten times, then the layer
changes nothing; tests are read by the evaluator alone; where no layer has put the candidates in an order the answer is
their majority, the source's is a random one. Tests are judged, not run: `codet` runs programs.

Pays: with several models, of which one reads better than it writes; a vote of as many tokens has many more samples.
Which architecture is a matter of the task (`outthink search archon`). On sums `generator:3|critic|fuser` of a 0.5B
model was 36 points below a vote that costs less (docs/results/selection.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

from numpy.random import Generator

from outthink.errors import BudgetExhausted, MissingResource, NothingCameBack, PromptTooLong
from outthink.meter import Meter
from outthink.model import Draw, Model, Models
from outthink.rewards.judge import read_once, verdict, written
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.checks import check_config
from outthink.strategies.choosing import by_majority
from outthink.strategies.collective.architecture import (
    Architecture,
    Component,
    Layers,
    calls,
    open_architecture,
    read_layers,
    sizes,
    written_file,
)
from outthink.strategies.collective.archon_texts import (
    PROMPTS,
    critiques,
    numbered_list,
    passes,
    ranking,
    statements,
)
from outthink.strategies.parallel.hedged_sampling import share_of
from outthink.strategies.prompting import added, between, distinct, said_by
from outthink.together import together
from outthink.types import Candidate, Problem

T = TypeVar("T")
_FUSED_AT = 0.3  # temperature, as in `fusion`
_AT_ONCE = 128  # prompts of one batch, so that not all are held at once
_MANY = 32  # candidates in one prompt above which the source warns


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What a layer reads: candidates in their order, what was said of each text, and the tests."""

    candidates: list[Candidate]
    ordered: bool = False
    critiques: Mapping[str, list[str]] = field(default_factory=dict)
    tests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Archon:
    """An architecture, from a file or in its short form.

    Args:
        layers: such as "generator:5@small,generator:5@large|critic|ranker:5|fuser": layers are parted by "|" and
            components by ","; behind ":" stand the samples of a generator or a fuser, the candidates that a ranker or
            an evaluator keeps (0: all), and the tests of a unit_test_generator; behind "@" the role whose model it
            asks. Without a role generators ask the main model, a critic "critic", a fuser "fusor", a
            unit_test_generator "tester", and ranker, verifier and unit_test_evaluator "judge".
        config: a TOML file in place of `layers`, which can hold temperatures and other prompts, too.
    """

    layers: str = "generator:5|critic|ranker:5|fuser"
    config: str = ""

    def __post_init__(self) -> None:
        check_config(self, "layers", "An architecture")
        self.architecture  # noqa: B018 - refused here, before anything runs

    @cached_property
    def architecture(self) -> Architecture:
        """What was given, checked."""
        return open_architecture(self.config) if self.config else Architecture(layers=read_layers(self.layers))

    @property
    def built(self) -> Layers:
        """Its layers."""
        return self.architecture.layers

    @property
    def calls(self) -> int:
        """The most calls of models on one problem, without second tries."""
        return calls(self.built)

    @property
    def versions(self) -> dict[str, str]:
        """What a file held."""
        if not self.config:
            return {}
        held = written_file(self.built, name="") + json.dumps(self.architecture.prompts, sort_keys=True)
        return {"architecture": hashlib.sha256(held.encode()).hexdigest()[:16]}

    @property
    def votes(self) -> bool:
        """It does where there are generators only."""
        return len(self.built) == 1

    @property
    def first(self) -> tuple[Draw, ...]:
        """The samples of the main model."""
        own = [one for one in self.built[0] if one.role == "model"]
        return tuple(Draw(n=one.samples, temperature=one.temperature) for one in own)

    @property
    def own_temperature(self) -> bool:
        """Whether a generator has its own."""
        return any(one.temperature is not None for one in self.built[0])

    @property
    def one_sample(self) -> bool:
        """Whether it is a plain call."""
        return self.calls == 1 and self.built[0][0].role == "model"

    @property
    def at_once(self) -> int:
        """Answers that one layer writes at one time."""
        return max(sum(one.samples for one in layer) for layer in self.built)

    async def run(
        self, problem: Problem, report: Report, *, model: Model, models: Models, rng: Rng, meter: Meter
    ) -> None:
        """Reports after each layer that changes the candidates or their order."""
        self._check(models)
        state = _State(candidates=await self._generated(problem, model, models))
        self._report(report, state)
        for number, (layer, most) in enumerate(zip(self.built, sizes(self.built), strict=True), start=1):
            if number == 1:
                continue
            valid = [one for one in state.candidates if one.key is not None]
            if not valid:
                meter.notes.append(f"layer {number}: no answer can be read, so it has nothing to work on")
                return
            state = replace(state, candidates=valid)
            if most > _MANY and layer[0].type in ("critic", "ranker", "fuser"):
                meter.notes.append(f"layer {number} reads up to {most} candidates in one prompt; over {_MANY} is much")
            asked = [self._asked(one, model, models).lane("layer", number, place) for place, one in enumerate(layer)]
            try:
                after = await _LAYERS[layer[0].type](self, problem, layer, asked, state, rng.at("archon", number))
            except (NothingCameBack, PromptTooLong) as failure:
                meter.notes.append(f"layer {number} ({layer[0].type}) was left out: {failure}")
                continue
            if after is None:
                meter.notes.append(f"layer {number} ({layer[0].type}) changed nothing: what it wrote cannot be read")
                continue
            if (after.candidates, after.ordered) != (state.candidates, state.ordered):
                self._report(report, after)
            state = after

    def _check(self, models: Models) -> None:
        """Refuse, before anything is spent, a role that no model was given for."""
        for layer in self.built:
            for one in layer:
                if one.model and one.role != "model" and not models.has(one.role):
                    raise MissingResource(
                        f"archon names the role {one.role!r} and no model has it: pass models={{{one.role!r}: ...}}, "
                        f"or --role {one.role}=MODEL."
                    )

    def _asked(self, one: Component, model: Model, models: Models) -> Model:
        return model if one.role == "model" else models.role(one.role)

    def _prompt(self, name: str, **gaps: object) -> str:
        return self.architecture.prompts.get(name, PROMPTS[name]).format(**gaps)

    def _report(self, report: Report, state: _State) -> None:
        chosen, share = by_majority(state.candidates)
        if state.ordered:
            chosen = next((one for one in state.candidates if one.key is not None), None)
            share = 0.0 if chosen is None else share_of(chosen, state.candidates)
        report(state.candidates, chosen=chosen, confidence=share)

    async def _generated(self, problem: Problem, model: Model, models: Models) -> list[Candidate]:
        """The answers of all generators, in the order of their components; those of one model are one batch."""
        places: dict[str, list[int]] = {}
        for place, one in enumerate(self.built[0]):
            places.setdefault(one.role, []).append(place)

        async def drawn(role: str) -> list[tuple[int, list[Candidate]]]:
            own = [self.built[0][place] for place in places[role]]
            draws = [Draw(n=one.samples, temperature=one.temperature) for one in own]
            batch = await self._asked(own[0], model, models).sample_each(problem, draws)
            return [*zip(places[role], batch, strict=True)]

        came = sorted(pair for pairs in await _any(map(drawn, places)) for pair in pairs)
        return [one for _, samples in came for one in samples]

    async def _criticised(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        shown = _shuffled(distinct(state.candidates), order)
        prompt = await self._about_all("critic", problem, shown, {})
        read = partial(critiques, n=len(shown))
        heard = await _any(read_once(critic, problem, [prompt], [tuple(shown)], read) for critic in asked)
        said = [texts for (texts,) in heard if texts is not None]
        if not said:
            return None
        by_text = {one.text: [texts[place] for texts in said] for place, one in enumerate(shown)}
        return replace(state, critiques=by_text)

    async def _ranked(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        shown = _shuffled(distinct(state.candidates), order)
        if len(shown) > 1:
            prompt = await self._about_all("ranker", problem, shown, state.critiques)
            (best,) = await read_once(asked[0], problem, [prompt], [tuple(shown)], partial(ranking, n=len(shown)))
            if best is None:
                return None
            shown = [shown[place] for place in best]
        return replace(state, candidates=shown[: layer[0].top_k or None], ordered=True)

    async def _fused(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        shown = _shuffled(distinct(state.candidates), order)
        prompt = await self._about_all("fuser", problem, shown, state.critiques)
        messages = added(problem, prompt)

        async def fused(one: Component, fusor: Model) -> list[Candidate]:
            temperature = _FUSED_AT if one.temperature is None else one.temperature
            return await fusor.sample(
                problem, one.samples, messages=messages, parents=tuple(shown), temperature=temperature
            )

        drawn = await _any(map(fused, layer, asked))
        new = [one for samples in drawn for one in samples]
        # what came before is not lost to what cannot be read
        return _State(candidates=new) if any(one.key is not None for one in new) else None

    async def _verified(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        said = await said_by(state.candidates)

        async def judged(batch: Sequence[Candidate]) -> list[bool | None]:
            about = [(one,) for one in batch]
            gaps = [{"question": problem.question, "answer": said[one.id]} for one in batch]
            prompts = [self._prompt("reasons", **one) for one in gaps]
            drawn = await written(asked[0], problem, prompts, about)
            words_of = await said_by([texts[0] for texts in drawn if texts])
            reasons = [words_of[texts[0].id] if texts else "" for texts in drawn]
            prompts = [
                self._prompt("verdict", **one, reasons=reason.strip())
                for one, reason in zip(gaps, reasons, strict=True)
            ]
            words = ("Correct", "Incorrect")
            read = await read_once(asked[0], problem, prompts, about, lambda text: verdict(text, words))
            return [None if word is None else word == words[0] for word in read]

        right = await _by_text(distinct(state.candidates), judged)
        if not any(known is not None for known in right.values()):
            return None
        kept = [one for one in state.candidates if right.get(one.text)]
        return replace(state, candidates=kept or state.candidates)

    async def _tested(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        async def tests_by(one: Component, tester: Model) -> list[str]:
            prompt = self._prompt("tests", question=problem.question, tests=one.tests)
            about = [tuple(state.candidates[:1])]
            (read,) = await read_once(tester, problem, [prompt], about, lambda t: statements(t, one.tests) or None)
            return read or []

        tests = dict.fromkeys(test for some in await _any(map(tests_by, layer, asked)) for test in some)
        return replace(state, tests=tuple(tests)) if tests else None

    async def _evaluated(
        self, problem: Problem, layer: Sequence[Component], asked: Sequence[Model], state: _State, order: Generator
    ) -> _State | None:
        if not state.tests:
            return None
        said = await said_by(state.candidates)
        tests, count = numbered_list(state.tests), len(state.tests)

        async def judged(batch: Sequence[Candidate]) -> list[int | None]:
            prompts = [
                self._prompt("evaluation", question=problem.question, answer=said[one.id], tests=tests) for one in batch
            ]
            return await read_once(asked[0], problem, prompts, [(one,) for one in batch], lambda t: passes(t, count))

        passed = await _by_text(distinct(state.candidates), judged)
        if not any(known is not None for known in passed.values()):
            return None

        def rank(one: Candidate) -> int:
            known = passed.get(one.text)
            return 1 if known is None else -known  # what was not judged is last

        return replace(
            state, candidates=sorted(state.candidates, key=rank)[: layer[0].top_k or None], ordered=True, tests=()
        )

    async def _about_all(
        self, name: str, problem: Problem, shown: Sequence[Candidate], said_of: Mapping[str, list[str]]
    ) -> str:
        """A prompt that shows all of these, numbered from 1, each with what critics said of it."""
        said = await said_by(shown)
        texts = ["\n\nCritique: ".join([said[one.id], *said_of.get(one.text, ())]) for one in shown]
        gaps = {"answers": between("answer", dict(enumerate(texts, start=1)))}
        return self._prompt(name, **gaps, **({} if name == "fuser" else {"question": problem.question}))


_LAYERS: dict[str, Callable[..., Coroutine[Any, Any, _State | None]]] = {
    "critic": Archon._criticised,
    "ranker": Archon._ranked,
    "fuser": Archon._fused,
    "verifier": Archon._verified,
    "unit_test_generator": Archon._tested,
    "unit_test_evaluator": Archon._evaluated,
}
"""What a layer of each type makes of a state; None: nothing, since what was written cannot be read."""


def _shuffled(candidates: Sequence[Candidate], order: Generator) -> list[Candidate]:
    return [candidates[place] for place in order.permutation(len(candidates))]


async def _any(tried: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of those that came to something; the failure of the first where none did."""

    failures: list[BudgetExhausted | NothingCameBack | PromptTooLong] = []

    async def caught(one: Coroutine[Any, Any, T]) -> list[T]:
        try:
            return [await one]
        except (BudgetExhausted, NothingCameBack, PromptTooLong) as failure:
            failures.append(failure)
            return []

    came = [result for results in await together(*map(caught, tried)) for result in results]
    if not came:
        raise failures[0]
    return came


async def _by_text(
    candidates: Sequence[Candidate], judged: Callable[[Sequence[Candidate]], Coroutine[Any, Any, Sequence[T]]]
) -> dict[str, T]:
    """What was judged of each text, a batch at a time; what is judged before the budget ends stands."""
    known: dict[str, T] = {}
    for start in range(0, len(candidates), _AT_ONCE):
        batch = candidates[start : start + _AT_ONCE]
        try:
            known |= dict(zip([one.text for one in batch], await judged(batch), strict=True))
        except (BudgetExhausted, NothingCameBack, PromptTooLong):
            if not known:
                raise
            break
    return known
