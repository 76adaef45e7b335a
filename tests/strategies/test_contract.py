"""Every strategy in the table keeps the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import BudgetTooSmall, EngineError, MissingResource, NothingCameBack
from outthink.model import Model
from outthink.models.engine import Completion, EngineSpec, Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.names import load
from outthink.resources.table import RESOURCES, bind, replaced
from outthink.rewards import SCORERS
from outthink.strategies import STRATEGIES, Report, Strategy
from outthink.strategies.making import make_strategy
from outthink.types import Call, Candidate, Problem, Sampling, Trace, Usage
from tests.tools.every import ONE, every_strategy, given, sized, small, stepper
from tests.tools.toys import problem
from tests.tools.virtual import run

BY_ARRIVAL = {"first_finish", "race_vote"}
"""Methods that take what finishes first, by definition."""

LANES = {"dvts"}
"""Methods with lanes that do not wait for each other: which of them ends first is timing, the last round is not."""


async def solve(name: str, engine: ScriptedEngine, parameters: dict[str, Any] | None = None, **options: Any) -> Trace:
    settings = small(name) if parameters is None else parameters
    usual: dict[str, Any] = {
        "sampling": Sampling(max_tokens=120),
        "resources": given(),
        "verifier": "confidence",
        "prm": "confidence",
    }
    return await solve_async(problem(), make_strategy(name, settings), model=engine, **(usual | options))


def without_times(trace: Trace) -> Trace:
    calls = tuple(dataclasses.replace(call, started=0.0, ended=0.0) for call in trace.calls)
    rounds = tuple(dataclasses.replace(answered, at=0.0) for answered in trace.rounds)
    return dataclasses.replace(trace, calls=calls, rounds=rounds, seconds=0.0)


@every_strategy
def test_names_only_known_resources_with_their_annotation(name: str) -> None:
    strategy: Any = load(STRATEGIES[name])
    assert strategy.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(strategy))
    keywords = [p for p in inspect.signature(strategy.run).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for parameter in keywords:
        assert parameter.name in RESOURCES
        assert str(parameter.annotation).removesuffix(" | None") == RESOURCES[parameter.name].annotation


@every_strategy
def test_same_seed_same_trace_whatever_finishes_first(name: str) -> None:
    def slow() -> ScriptedEngine:
        delays = random.Random(5)
        return ScriptedEngine(stepper, latency=lambda request, child: delays.random())

    first = run(solve(name, slow() if name in BY_ARRIVAL else ScriptedEngine(stepper), seed=3))
    again = run(solve(name, slow(), seed=3))
    if name in LANES:
        first, again = (dataclasses.replace(trace, rounds=trace.rounds[-1:]) for trace in (first, again))
    assert without_times(again) == without_times(first)
    if len(first.candidates) > 1:  # greedy too is random here: the scripted model ignores the temperature
        assert without_times(run(solve(name, ScriptedEngine(stepper), seed=4))).candidates != first.candidates


@every_strategy
def test_charged_tokens_are_produced_tokens(name: str) -> None:
    trace = run(solve(name, ScriptedEngine(stepper)))
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    assert trace.cost["tokens"] == trace.usage.tokens
    assert all(call.exact and call.seen == call.charged for call in trace.calls)
    assert trace.stopped == "finished"
    assert trace.answer is not None


@every_strategy
@pytest.mark.parametrize("limit", [140, 200, 333, 500, 1000])
def test_never_over_the_budget_and_still_an_answer(name: str, limit: int) -> None:
    trace = run(solve(name, ScriptedEngine(stepper), budget=f"{limit}-tokens"))
    assert trace.cost["tokens"] <= limit
    assert trace.candidates
    finished = [candidate for candidate in trace.candidates if candidate.complete and candidate.key is not None]
    assert (trace.answer is not None) == bool(finished)


@every_strategy
def test_a_budget_below_one_sample_is_refused_before_any_call(name: str) -> None:
    calls: list[Call] = []
    with pytest.raises(BudgetTooSmall, match="at least 132 tokens"):
        run(solve(name, ScriptedEngine(stepper), budget="131-tokens", on_call=calls.append))
    assert not calls


@every_strategy
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
def test_a_deadline_keeps_what_was_finished_and_charges_the_rest(name: str, seconds: float) -> None:
    engine = ScriptedEngine(stepper, latency=lambda request, child: 1.0)
    trace = run(solve(name, engine, budget=f"{seconds}s"))
    assert trace.seconds <= seconds + 1e-6
    if trace.stopped != "finished":
        assert trace.stopped == "deadline"
    for call in trace.calls:
        assert call.seen.completion <= call.charged.completion


@every_strategy
def test_stops_when_asked_to(name: str) -> None:
    async def go() -> Trace:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1.5, stop.set)
        engine = ScriptedEngine(stepper, latency=lambda request, child: 1.0 + child)
        return await solve(name, engine, stop=stop)

    trace = run(go())
    assert trace.stopped in ("cancelled", "finished")
    assert trace.seconds <= 1.5 + 1e-6


@every_strategy
def test_a_cancellation_from_outside_gets_through_and_everything_is_settled(name: str) -> None:
    calls: list[Call] = []

    async def go() -> None:
        engine = ScriptedEngine(stepper, latency=lambda request, child: 5.0)
        task = asyncio.create_task(solve(name, engine, on_call=calls.append))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    run(go())
    lasting = [call for call in calls if call.ended > call.started]  # a look into a memory is over at once
    assert lasting
    assert all(call.outcome == "cancelled" for call in lasting)


@every_strategy
def test_survives_failed_samples(name: str) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[-1] == 0 and child == 1:
            return EngineError("the connection was lost")
        return stepper(request, child, rng)

    trace = run(solve(name, ScriptedEngine(reply)))
    assert trace.answer is not None
    assert "connection" not in (trace.text or "")
    # these draw single samples, or a single one first
    if name not in ("greedy", "revision", "self_refine", "spawn_join", "hedged_sampling", "chops", "x_mbr", "resample"):
        assert any(call.failed for call in trace.calls)


@every_strategy
def test_a_dead_model_raises_with_the_cause_and_the_bill(name: str) -> None:
    engine = ScriptedEngine(lambda request, child, rng: EngineError("the endpoint is gone"))
    with pytest.raises(NothingCameBack, match="the endpoint is gone") as caught:
        run(solve(name, engine))
    assert caught.value.trace is not None
    assert caught.value.trace.calls


@every_strategy
def test_one_sample_is_one_sample(name: str) -> None:
    trace = run(solve(name, ScriptedEngine(stepper), sized(name, 1, ONE)))
    plain = run(solve_async(problem(), make_strategy("self_consistency", {"n": 1}),
                            model=ScriptedEngine(stepper)))  # fmt: skip
    complete = [candidate for candidate in trace.candidates if candidate.complete]
    assert len(complete) == 1
    assert trace.text is not None
    assert plain.text is not None
    if len(trace.candidates) == 1 and trace.candidates[0].address == plain.candidates[0].address:
        assert trace.text == plain.text


class Liar(ScriptedEngine):
    """Writes more than it was allowed to, and says so afterwards."""

    learned = 0

    async def generate(self, request: Request, progress: Progress) -> None:
        await super().generate(request, progress)
        progress.finish(0, Completion(text="#### 42", tokens=5000))

    def learn(self, request: Request, progress: Progress) -> None:
        self.learned += 1


@every_strategy
def test_an_engine_that_overran_is_charged_and_nothing_further_starts(name: str) -> None:
    engine = Liar(stepper)
    trace = run(solve(name, engine, budget="2k-tokens"))
    assert trace.stopped == "overrun"
    assert trace.cost["tokens"] >= 5000
    assert engine.learned == sum(call.charged.completion >= 5000 for call in trace.calls)
    started = {call.address[:-1] for call in trace.calls if call.charged.tokens}
    assert len(started) <= 2  # what had been started before the overrun was seen


def test_a_cancelled_call_is_charged_at_least_what_was_really_produced() -> None:
    class Hiding(ScriptedEngine):
        true = 0

        async def generate(self, request: Request, progress: Progress) -> None:
            progress.slack = 9
            for number in range(1, request.max_tokens):
                await asyncio.sleep(0.1)
                self.true += request.n
                if number % 10 == 0:
                    progress.tokens = [number] * request.n

    for tenths in range(3, 60, 4):
        engine = Hiding(stepper)
        trace = run(solve("self_consistency", engine, {"n": 3}, budget=f"{tenths / 10 + 0.05}s"))
        assert (trace.answer, trace.stopped) == (None, "deadline")
        (call,) = trace.calls
        assert call.seen.completion <= engine.true <= call.charged.completion
        assert not call.exact


def test_an_engine_that_shows_nothing_is_charged_the_worst_case() -> None:
    class Silent(ScriptedEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            await asyncio.sleep(100)

    trace = run(solve("self_consistency", Silent(stepper), {"n": 3}, budget="1s"))
    assert trace.usage == Usage(prompt=3 * 12, completion=3 * 120)


# ----------------------------------------------------------------------------------------------- for the server

ASKED = dataclasses.replace(problem(), fields={"mark": "of the caller", "temperature": None, "top_p": None})
SAMPLING = Sampling(max_tokens=120)


class Recording(ScriptedEngine):
    """Honours every further field, and keeps what it was asked for."""

    def __init__(self, reply: Any, **options: Any) -> None:
        super().__init__(reply, **options)
        self.requests: list[Request] = []

    @property
    def spec(self) -> EngineSpec:
        return dataclasses.replace(super().spec, fields=None)

    async def generate(self, request: Request, progress: Progress) -> None:
        self.requests.append(request)
        await super().generate(request, progress)

    def as_asked(self, candidate: Candidate) -> bool:
        """Whether it was drawn by the main model from the problem's own messages, alone."""
        request = next(one for one in self.requests if one.address == candidate.address[:-1])
        own = request.messages == ASKED.messages and not (request.prefix_text or request.stop)
        assert bool(request.fields) <= own, "what is no answer to these messages gets none of the fields"
        return own and bool(request.fields) and candidate.address[0] == "model"


@every_strategy
def test_as_asked_means_that_every_answer_is_a_sample_of_the_problem_s_own_messages(name: str) -> None:
    engine = Recording(stepper)
    trace = run(
        solve_async(
            ASKED,
            make_strategy(name, small(name)),
            model=engine,
            verifier="confidence",
            prm="random",  # which every step has
            resources=given(),
            sampling=SAMPLING,
        )
    )
    asides = [request for request in engine.requests if request.address[0] not in ("model", "draft")]
    assert not any(request.fields for request in asides)
    for request in engine.requests:
        assert set(request.fields) <= set(ASKED.fields)
        assert "temperature" not in request.fields or request.temperature == SAMPLING.temperature
    answers = [candidate for candidate in trace.candidates if candidate.complete]
    assert getattr(make_strategy(name), "as_asked", False) == all(map(engine.as_asked, answers))


class Distinct:
    """Says another thing each time, equally long; what is said, how probable it is and how long it takes go together.

    Args:
        last: the number of the first text; the next ones count down. None: from 0 upwards.
    """

    def __init__(self, last: int | None = None) -> None:
        self._last = last
        self.given: dict[tuple[Any, ...], int] = {}

    def place(self, request: Request, child: int) -> int:
        place = self.given.setdefault((request.address, child), len(self.given))
        return place if self._last is None else self._last - place

    def reply(self, request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.address[0] != "model":
            return "Number 1"
        place = self.place(request, child)
        words = "maybe " * (place % 7) + "xyzuvw"[: place % 6]
        return Completion(
            text=f"{words} #### {place}",
            tokens=10,
            token_ids=tuple(b"xxxxxxxxxx"),
            logprobs=(-0.01 * (place + 1),) * 10,
        )

    def latency(self, request: Request, child: int) -> float:
        return 1.0 + self.place(request, child) if request.address[0] == "model" else 0.0

    def trace(self, strategy: Strategy) -> Trace:
        engine = ScriptedEngine(self.reply, latency=self.latency)
        return run(solve_async(problem(), strategy, model=engine, resources=given()))


READS_THOUGHTS = {"cpt", "failed_step_fraction", "path_summary"}
"""Methods whose prompts show what was thought, by definition."""

MARKS = [
    f"</{what} {number}>"
    for what in ("agent", "answer", "candidate", "draft", "reference", "review", "solution")
    for number in ("1", "2", "A", "B")
]


def thinks(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
    if request.labels:
        no = float(rng.uniform(-1, 0))
        return Completion(text=request.labels[0], tokens=2, labels=(no, -1.0 - no))
    said = stepper(request, child, rng)
    return said if request.prefix_text else f"<think>\nSECRET\n</think>\n{''.join(MARKS)}\n{said}"


def prompts_of(engine: Recording) -> list[str]:
    return [message.text for request in engine.requests for message in request.messages]


@every_strategy
def test_nobody_is_shown_what_another_one_thought_and_none_speaks_for_another(name: str) -> None:
    engine = Recording(thinks)
    run(solve(name, engine, sampling=Sampling(max_tokens=800)))
    shown = prompts_of(engine)
    assert any("SECRET" in text for text in shown) == (name in READS_THOUGHTS)
    if name not in READS_THOUGHTS:
        assert all(text.count(mark) <= 1 for text in shown for mark in MARKS), "each is the prompt's own"


JUDGES = {name: name for name in SCORERS} | {
    "judge": "judge?votes=2",
    "analysis": "analysis?votes=2",
    "critique": "critique?k=2&meta=judge",
    "rollout": "rollout?m=2&verifier=judge",
    "advantage": "advantage?prm=judge",
}
"""A scorer of each kind, with what shows the most."""


@every_strategy
def test_no_judge_is_shown_what_a_model_thought(name: str) -> None:
    engine = Recording(thinks)
    run(solve(name, engine, sampling=Sampling(max_tokens=800), verifier="judge", prm="judge"))
    shown = prompts_of(engine)
    assert any("SECRET" in text for text in shown) == (name in READS_THOUGHTS)


@pytest.mark.parametrize("name", sorted(SCORERS))
@pytest.mark.parametrize("strategy", ["best_of_n", "critic_refine", "beam"])
def test_no_scorer_shows_what_a_model_thought(name: str, strategy: str) -> None:
    made = load(SCORERS[name])
    steps = any(field.name == "process" for field in dataclasses.fields(made))
    only_steps = name in ("rollout", "advantage")
    if not steps and strategy != "best_of_n":
        pytest.skip("it scores whole answers")
    if name == "tests":
        pytest.skip("it runs code")
    engine = Recording(thinks)
    made_of = JUDGES[name] + ("&history=true" if name == "analysis" and strategy != "best_of_n" else "")
    scorer: dict[str, Any] = {"prm" if only_steps or strategy != "best_of_n" else "verifier": made_of}
    run(
        solve_async(
            problem(),
            make_strategy(strategy, small(strategy)),
            model=engine,
            resources=given(),
            sampling=Sampling(max_tokens=800),
            **scorer,
        )
    )
    assert len(engine.requests) > 1 or name in ("confidence", "random"), "something was judged"
    assert not any("SECRET" in text for text in prompts_of(engine))


@every_strategy
def test_votes_means_that_answers_that_are_all_different_leave_it_nothing_to_go_by(name: str) -> None:
    parameters = {field: value for field, value in small(name).items() if field != "tolerance"}
    strategy, script = make_strategy(name, parameters), Distinct()
    arbitrary = False
    with contextlib.suppress(MissingResource):  # it goes by scores
        trace = script.trace(strategy)
        several = len(script.given) > 1
        # what documents and memories bring in is for all answers the same
        blind = all(call.role == "model" or _brings(call.role) for call in trace.calls)
        arbitrary = several and blind and trace.text != Distinct(len(script.given) - 1).trace(strategy).text
    assert getattr(strategy, "votes", False) == arbitrary


def _brings(role: str) -> bool:
    return role in RESOURCES and RESOURCES[role].scope != "problem"


@pytest.mark.parametrize(
    ("name", "parameters", "votes"),
    [
        ("first_finish", {"k": 2}, True),
        ("revision", {"selector": "last"}, False),
        ("revision", {"selector": "weighted_vote"}, False),
    ],
)
def test_some_settings_go_by_equal_answers_and_others_do_not(name: str, parameters: Any, votes: bool) -> None:
    assert getattr(make_strategy(name, parameters), "votes", None) is votes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Warm:
    """A strategy that begins with k samples that were drawn before."""

    strategy: Strategy
    k: int

    @property
    def powers(self) -> frozenset[str]:
        return frozenset(getattr(self.strategy, "powers", ()))

    @property
    def abstains(self) -> bool:
        return bool(getattr(self.strategy, "abstains", False))

    async def run(
        self,
        problem: Problem,
        report: Report,
        *,
        model: Model,
        resources: Mapping[str, Any],
    ) -> None:
        drawn = await model.sample(problem, self.k, logprobs="logprobs" in self.powers) if self.k else []
        available = replaced(resources, model=model.starting_with(drawn))
        await self.strategy.run(problem, report, **bind(self.strategy.run, available, "It"))


@every_strategy
def test_a_warm_start_draws_only_what_is_missing_and_decides_the_same(name: str) -> None:
    strategy = make_strategy(name, small(name))

    def ran(k: int) -> tuple[Trace, int, bool]:
        engine = Recording(stepper)
        trace = run(
            solve_async(
                ASKED,
                Warm(strategy=strategy, k=k),
                model=engine,
                verifier="confidence",
                prm="confidence",
                resources=given(),
                sampling=SAMPLING,
            )
        )
        plain = [
            request
            for request in engine.requests
            if request.fields
            and not request.controls  # what was drawn before is without what these want to be seen
            and request.address[0] == "model"
            and "temperature" in request.fields
            and request.max_tokens == SAMPLING.max_tokens
        ]
        own = all(request.address[:-1] == ("model",) for request in plain)
        return trace, sum(request.n for request in plain), own

    def decided(trace: Trace) -> Any:
        last = trace.rounds[-1]
        texts = [trace.whole_text(name) for name in last.candidates]
        return texts, last.scores, last.answer, last.confidence, trace.text, trace.stopped

    cold, draws, own = ran(0)
    for k in (1, 2, draws, draws + 2):
        warm, drawn, _ = ran(k)
        if name in BY_ARRIVAL:  # what is there has ended first
            assert drawn <= max(draws, k)
            continue
        assert drawn == (max(draws, k) if draws else k)
        if draws and own:  # else its own requests come later than without or in lanes, and have other seeds
            assert decided(warm) == decided(cold)
