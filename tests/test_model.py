"""The model as a strategy sees it: sub-questions, answers that it puts together, powers that the core does not know."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from outthink.bench.run import Assignment
from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.model import Draw, Model
from outthink.models.engine import Completion, EngineSpec, Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies import Report
from outthink.strategies.making import make_strategy
from outthink.strategies.search.beam import Beam
from outthink.types import Budget, Message, Part, Problem, Sampling, Trace, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run

COLOUR = Problem(
    id="p/colour", messages=(Message(content="Which colour? A or B?"),), answer="choice", options=("A", "B")
)


@dataclass(frozen=True, kw_only=True)
class Decomposing:
    """Asks a sub-question first, then itself; optionally stops in between."""

    stops: bool = False

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        (part,) = await model.sample(COLOUR)
        assert (part.answer, part.problem) == ("B", COLOUR.id)
        if self.stops:
            raise EngineError("the line was cut")
        (whole,) = await model.sample(problem, parents=(part,))
        made = await model.made(problem, f"{whole.text}\n#### 7", (whole, part))
        report([whole, made], chosen=made)


def answering(request: Request, child: int, rng: np.random.Generator) -> str:
    return "B) blue, of 2 colours" if "colour" in request.messages[-1].text else "#### 42"


def solved(strategy: Any, engine: ScriptedEngine | None = None, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=60))
    return run(solve_async(problem(), strategy, model=engine or ScriptedEngine(answering), **options))


def test_a_sub_question_is_read_as_itself_and_a_made_answer_as_the_problem() -> None:
    trace = solved(Decomposing())
    part, whole, made = (
        sorted(trace.candidates, key=lambda one: one.text)[::-1][0],
        *sorted((one for one in trace.candidates if one.problem is None), key=lambda one: len(one.text)),
    )
    assert (part.answer, part.key, part.problem) == ("B", "B", "p/colour")
    assert (whole.key, whole.problem) == ("42", None)
    assert (made.key, made.tokens, made.complete, trace.answer) == ("7", 0, True, "7")
    assert made.parents == (whole.id, part.id)
    assert len(trace.calls) == 2


def test_the_answer_of_a_sub_question_never_stands_for_the_problem() -> None:
    """What was stopped answers with the majority of its answers, and it has none."""
    engine = ScriptedEngine(answering)
    with pytest.raises(EngineError, match="the line was cut") as caught:
        run(solve_async(problem(), Decomposing(stops=True), model=engine, sampling=Sampling(max_tokens=60)))
    assert caught.value.trace is not None
    assert caught.value.trace.answer is None
    assert [one.key for one in caught.value.trace.candidates] == ["B"]


def test_nobody_hears_a_sub_question_as_the_answer() -> None:
    heard: list[str] = []

    class Speaking(ScriptedEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            if progress.listen is not None:
                progress.listen(0, {"delta": {"content": request.messages[-1].text}})
            await super().generate(request, progress)

    solved(Decomposing(), Speaking(answering), listen=lambda address, piece: heard.append(piece["delta"]["content"]))
    assert heard == ["What is 1+1?"]


def test_two_sub_questions_cannot_share_an_id() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Careless:
        async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
            await model.sample(COLOUR)
            await model.sample(replace(COLOUR, options=("A", "B", "C")))

    with pytest.raises(EngineError, match="give each one of its own"):
        solved(Careless())


class Seeing(ScriptedEngine):
    """Has a power that the core does not know, and counts network evaluations."""

    def __init__(self) -> None:
        super().__init__(answering)
        self._spec = replace(self._spec, powers=self._spec.powers | {"states"}, units=frozenset({"evaluations"}))

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    async def bound(self, request: Request) -> Usage:
        return replace(await super().bound(request), further={"evaluations": 10.0})

    async def generate(self, request: Request, progress: Progress) -> None:
        await super().generate(request, progress)
        for child, result in enumerate(progress.results):
            if isinstance(result, Completion):
                observed = {"states": [request.controls["states"], child]} if request.controls else {}
                progress.finish(child, replace(result, observed=observed, artifact="file:picture"))
                progress.further["evaluations"] = progress.further.get("evaluations", 0.0) + 4.0


@dataclass(frozen=True, kw_only=True)
class Looking:
    powers: ClassVar[frozenset[str]] = frozenset({"states"})
    n: int = 3

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        ((*samples,),) = await model.sample_each(problem, [Draw(n=self.n, controls={"states": 12})])
        report(samples, chosen=samples[0])


def test_controls_and_what_was_observed_travel_under_the_name_of_their_power() -> None:
    trace = solved(Looking(), Seeing())
    assert [one.observed for one in trace.candidates] == [{"states": [12, child]} for child in range(3)]
    assert {one.artifact for one in trace.candidates} == {"file:picture"}


def test_arrays_that_were_observed_are_kept_as_lists_that_a_trace_can_hold() -> None:
    class Arrays(Seeing):
        async def generate(self, request: Request, progress: Progress) -> None:
            await super().generate(request, progress)
            for child, result in enumerate(progress.results):
                if isinstance(result, Completion):
                    seen = {"states": {"layer": np.ones((1, 2)), "mean": np.float32(0.5), "engine": self}}
                    progress.finish(child, replace(result, observed=seen))

    trace = solved(Looking(n=1), Arrays())
    assert trace.candidates[0].observed == {"states": {"layer": [[1.0, 1.0]], "mean": 0.5, "engine": "Arrays"}}
    assert Trace.from_json(trace.to_json()) == trace


def test_a_sub_question_keeps_what_all_requests_of_the_caller_are_sent_with() -> None:
    asked: list[Request] = []

    class Server(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__(answering)
            self._spec = replace(self._spec, fields=None)

        async def generate(self, request: Request, progress: Progress) -> None:
            asked.append(request)
            await super().generate(request, progress)

    given = replace(problem(), fields={"user": "me", "top_k": 5})
    run(solve_async(given, Decomposing(), model=Server(), sampling=Sampling(max_tokens=60)))
    assert [request.fields for request in asked] == [{"user": "me"}, {"user": "me", "top_k": 5}]


def test_a_control_without_its_power_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(UsageError, match="scripted cannot"):
        solved(Looking())

    @dataclass(frozen=True, kw_only=True)
    class Silent:
        async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
            await model.sample_each(problem, [Draw(controls={"states": 12})])

    with pytest.raises(UsageError, match="scripted cannot do states"):
        solved(Silent())


def test_further_units_are_charged_and_limited() -> None:
    trace = solved(Looking(), Seeing())
    assert trace.cost["evaluations"] == 12.0
    assert trace.usage.further == {"evaluations": 12.0}
    assert trace.calls[0].exact
    # each may take 10 and takes 4: with 17 a third no longer fits
    limited = solved(Looking(), Seeing(), budget="17-evaluations")
    assert (len(limited.candidates), limited.cost["evaluations"], limited.stopped) == (2, 8.0, "budget")


def test_a_unit_that_nothing_counts_is_refused() -> None:
    with pytest.raises(UsageError, match="Nothing here counts evaluations"):
        solved(make_strategy("greedy"), budget="25-evaluations")


def test_an_assignment_can_be_sent_to_another_process() -> None:
    given = Assignment(
        problem=replace(problem(), fields={"stop": ["x"]}),
        strategy=make_strategy("rebase?width=4"),
        budget=Budget({"tokens": 100.0}),
        sampling=Sampling(),
        seed=3,
    )
    assert pickle.loads(pickle.dumps(given)) == given


# ---------------------------------------------------------------- what was sent


def test_a_trace_keeps_what_models_were_sent_and_what_scorers_gave() -> None:
    """Each prompt once, in the order of the calls, however they were timed; a beginning by the candidate it is of."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 4" if request.prefix_text else f"Step {child}.\n\n"

    engine = ScriptedEngine(reply, latency=lambda request, child: 9.0 - child)
    asked = problem()
    trace = run(solve_async(asked, Beam(width=4, children=2), model=engine, prm=lambda question, text: len(text) / 99))
    assert trace.prompts == (asked.messages,)
    assert {call.prompt for call in trace.calls if call.kind == "sample"} == {0}
    for call in (call for call in trace.calls if call.kind == "sample"):
        children = [one for one in trace.candidates if one.address[:-1] == call.address[:-1]]
        assert {one.parents[0] if one.continues else None for one in children} == {call.after}
    (scores,) = trace.scores.values()
    assert scores == {one.id: len(trace.whole_text(one.id)) / 99 for one in trace.candidates}
    assert Trace.from_json(trace.to_json()) == trace


def test_prompts_are_numbered_by_address_and_hold_no_media() -> None:
    picture = Part(kind="image", reference="data:image/png;base64,AAAA")

    @dataclass(frozen=True, kw_only=True)
    class Two:
        async def run(self, problem: Problem, report: Any, *, model: Model) -> None:
            first = (Message(content=(Part(text="See "), picture)),)
            second = (Message(content="Say so.", role="system"), *problem.messages)
            lanes = model.lane("b"), model.lane("a")
            one, other = await asyncio.gather(
                lanes[0].sample(problem, messages=first), lanes[1].sample(problem, messages=second)
            )
            report([*one, *other], chosen=one[0])

    trace = run(solve_async(problem(), Two(), model=ScriptedEngine(lambda request, child, rng: "#### 2")))
    assert [call.address for call in trace.calls] == [("model", "a", 0, 0), ("model", "b", 0, 0)]
    assert [call.prompt for call in trace.calls] == [0, 1]
    assert [[(one.role, one.content) for one in sent] for sent in trace.prompts] == [
        [("system", "Say so."), ("user", "What is 1+1?")],
        [("user", "See [image]")],
    ]
