"""What a caller may rely on when something goes wrong: nothing paid for is lost, uncounted, leaked or waited for."""

from __future__ import annotations

import asyncio
import math
import random
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import outthink
from outthink.bench.run import bench
from outthink.cost import charge
from outthink.driver import solve_async
from outthink.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    EngineError,
    MissingResource,
    PromptTooLong,
    UsageError,
)
from outthink.model import Draw
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request, Shape
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import read_results
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search.loop import Lanes, Level, Rounds, search
from outthink.tasks.example import Example
from outthink.types import Budget, Call, Candidate, Message, Problem, Sampling, Trace, Usage
from tests.tools.toys import coin, problem
from tests.tools.virtual import run


class Limited(ScriptedEngine):
    """Refuses what does not fit its context, as a real engine does."""

    async def bound(self, request: Request) -> Usage:
        bound = await super().bound(request)
        written = 1 if request.labels else request.max_tokens
        if self.spec.context is not None and bound.prompt + written > self.spec.context:
            raise PromptTooLong(f"the prompt exceeds the context of {self.spec.name}")
        return bound


@dataclass(frozen=True, kw_only=True)
class Own:
    """A strategy that does `work(problem, report, model, meter)`; `extra` is there to be in the trace."""

    work: Callable[..., Awaitable[None]]
    extra: object = None

    async def run(self, problem: Problem, report: Any, *, model: Any, meter: Any) -> None:
        await self.work(problem, report, model, meter)


async def one_sample(problem: Problem, report: Any, model: Any, meter: Any) -> None:
    samples = await model.sample(problem)
    report(samples, chosen=samples[0])


def says(*texts: str, **options: Any) -> ScriptedEngine:
    """Child k says the k-th text, and so on from the first."""
    return ScriptedEngine(lambda request, child, rng: texts[child % len(texts)], **options)


def judging(reply: Callable[[Request, int], str]) -> Any:
    """A reply that as a judge says yes."""
    return lambda request, child, rng: (
        Completion(text="Yes", tokens=2, labels=(-0.1, -2.0)) if request.labels else reply(request, child)
    )


async def alone(solving: Coroutine[Any, Any, Trace]) -> Trace:
    """What it returns or raises; afterwards no task of it is left."""
    try:
        return await solving
    finally:
        assert asyncio.all_tasks() == {asyncio.current_task()}


def solved(strategy: Any, model: ScriptedEngine, question: str | Problem | None = None, **options: Any) -> Trace:
    return run(alone(solve_async(question or problem(), strategy, model=model, **options)))


def best_of(n: int) -> Any:
    return make_strategy("best_of_n", {"n": n})


def vote_of(n: int) -> Any:
    return make_strategy("self_consistency", {"n": n})


# ---------------------------------------------------------------- scores that do not come


def dead(question: str, solution: str) -> float:
    raise RuntimeError("the verifier is down")


@pytest.mark.parametrize("name", ["best_of_n", "weighted_best_of_n"])
@pytest.mark.parametrize(
    "scorer", [{"verifier": dead}, {"prm": dead}, {"prm": "confidence"}], ids=["verifier", "prm", "confidence"]
)
def test_without_any_score_the_majority_answers(name: str, scorer: dict[str, Any]) -> None:
    engine = says("because it is so #### 42", "because it is so #### 42", "because it is so #### 42", "#### 7")
    assert solved(make_strategy(name, {"n": 4}), engine, **scorer).answer == "42"


def test_a_verifier_that_returns_text_loses_its_own_score_only() -> None:
    async def verifier(question: str, solution: str) -> Any:
        if "7" in solution:
            return "n/a"
        await asyncio.sleep(5)
        return 1.0

    trace = solved(best_of(3), says("#### 42", "#### 42", "#### 7"), verifier=verifier)
    assert (trace.stopped, trace.rounds[-1].scores) == ("finished", (1.0, 1.0, None))


def leave(question: str, solution: str) -> NoReturn:
    sys.exit("the solution called exit()")


def run_out(question: str, solution: str) -> float:
    return next(iter(()))


@pytest.mark.parametrize("verifier", [leave, run_out])
def test_no_verifier_ends_the_program_or_hangs_the_run(verifier: Any) -> None:
    trace = solved(best_of(2), says("#### 42", "It is so. #### 42"), verifier=verifier)
    assert (trace.stopped, trace.answer) == ("finished", "42")
    assert [call.outcome for call in trace.calls if call.kind == "verify"] == ["failed", "failed"]


def test_an_empty_sample_has_a_step_to_score() -> None:
    async def prm(question: str, solution: str) -> float:
        return 0.5

    trace = solved(best_of(2), says("a\n\n#### 42", ""), prm=prm)
    assert (trace.stopped, trace.answer, trace.error) == ("finished", "42", None)


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_step_scores_is_named(surplus: int) -> None:
    class Scorer:
        async def score(self, problem: Problem, paths: Sequence[object]) -> list[float]:
            return [0.5] * (len(paths) + surplus)

    trace = solved(best_of(2), says("a\n\n#### 42"), prm=Scorer())
    assert (trace.stopped, trace.answer) == ("error", "42")
    assert f"{2 + surplus} scores for 2 paths" in (trace.error or "")  # the two samples are equal


@contextmanager
def hanging(begin: Callable[[], object] = lambda: None) -> Iterator[tuple[Any, list[str]]]:
    """A verifier that begins and then hangs until the end of the block, and what it has returned for."""
    release, returned = threading.Event(), list[str]()

    def verifier(question: str, solution: str) -> float:
        begin()
        release.wait(50)
        returned.append(solution)
        return 1.0

    before = set(threading.enumerate())
    try:
        yield verifier, returned
    finally:
        release.set()
        for thread in set(threading.enumerate()) - before:
            thread.join()


def test_a_deadline_does_not_wait_for_hung_verifiers() -> None:
    with hanging() as (verifier, returned):
        trace = solved(best_of(40), says("#### 42"), verifier=verifier, budget="1s")
        assert returned == []
    assert (trace.stopped, trace.answer) == ("deadline", "42")


def test_the_synchronous_form_does_not_wait_for_a_hung_verifier() -> None:
    stop, loops = asyncio.Event(), list[asyncio.AbstractEventLoop]()
    options: dict[str, Any] = {"stop": stop, "watch": lambda meter: loops.append(asyncio.get_running_loop())}
    with hanging(lambda: loops[0].call_soon_threadsafe(stop.set)) as (verifier, returned):
        trace = outthink.solve(problem(), best_of(2), model=says("#### 42"), verifier=verifier, **options)
        assert returned == []
    assert (trace.stopped, trace.answer) == ("cancelled", "42")


# ---------------------------------------------------------------- prompts that are too long


def test_a_batch_with_a_prompt_that_is_too_long_is_refused_before_any_of_it_starts() -> None:
    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        with pytest.raises(PromptTooLong):
            await model.sample_each(problem, [Draw(n=2), Draw(messages=(Message(content="y" * 1000),))])
        assert (meter.calls, meter.left()) == ([], {"tokens": 270.0})
        await one_sample(problem, report, model, meter)

    engine = Limited(lambda request, child, rng: "#### 42", context=500)
    trace = solved(Own(work=work), engine, sampling=Sampling(max_tokens=120), budget="270-tokens")
    assert (trace.stopped, trace.answer) == ("finished", "42")


def test_a_solution_that_is_too_long_for_the_judge_has_no_score_and_the_others_have_theirs() -> None:
    engine = Limited(judging(lambda request, child: "z" * 490 * (child == 2) + "#### 42"), context=560)
    trace = solved(best_of(3), engine, verifier="judge", sampling=Sampling(max_tokens=500))
    assert trace.stopped == "finished"
    assert [score is None for score in trace.rounds[-1].scores or ()] == [False, False, True]


def test_a_revision_that_is_too_long_ends_its_chain_only() -> None:
    def reply(request: Request, child: int, rng: object) -> str:
        return "x" * 100 * (request.address[2] == 0) + "#### 42"

    told: list[Call] = []
    strategy = make_strategy("revision", {"n": 6, "ratio": 1.5})
    engine = Limited(reply, context=400, latency=lambda request, child: 1.0)
    trace = solved(strategy, engine, sampling=Sampling(max_tokens=120), on_call=told.append)
    assert (trace.stopped, trace.answer) == ("finished", "42")
    assert [candidate.address[2] for candidate in trace.candidates].count(1) == 3
    assert len(told) == len(trace.calls) == len(trace.candidates) < 6


@pytest.mark.parametrize("options", [{"budget": "300-tokens"}, {}], ids=["budget", "context"])
def test_a_problem_that_is_too_long_is_recorded_as_failed_and_the_benchmark_goes_on(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    lengths = [10, 10, 500, 10, 10]
    examples = [
        Example(Problem(id=f"p{i}", messages=(Message(content="x" * length),)), ("42",))
        for i, length in enumerate(lengths)
    ]
    engine = Limited(lambda request, child, rng: "#### 42", context=400, latency=lambda request, child: 1.0)
    strategy, sampling = SelfConsistency(n=2), Sampling(max_tokens=50)
    summary = run(bench(examples, strategy, store=tmp_path, model=engine, sampling=sampling, concurrency=2, **options))
    assert (summary.problems, summary.errors, summary.accuracy) == (5, 1, 0.8)
    (failed,) = (result for result in read_results(tmp_path) if result.error is not None)
    assert (failed.problem, failed.credit, failed.trace) == ("p2", 0.0, None)


# ---------------------------------------------------------------- answers that were paid for


def second_thought(request: Request, child: int) -> str:
    return "I do not know" if request.address[-1] == 0 else "#### 42"


def test_wherever_the_budget_ends_an_answer_that_was_paid_for_is_given() -> None:
    strategy = make_strategy("revision", {"n": 2, "ratio": 2})
    engine = ScriptedEngine(judging(second_thought))
    given = set()
    for limit in range(150, 900, 25):
        trace = solved(strategy, engine, verifier="judge", sampling=Sampling(max_tokens=60), budget=f"{limit}-tokens")
        given.add(trace.answer)
        assert (trace.answer is not None) == any(candidate.key is not None for candidate in trace.candidates)
    assert given == {None, "42"}


def test_a_deadline_in_the_middle_of_a_turn_keeps_the_half_that_came() -> None:
    engine = ScriptedEngine(
        lambda request, child, rng: second_thought(request, child),
        latency=lambda request, child: 1.0 + int(request.address[2]),
    )
    trace = solved(make_strategy("revision", {"n": 4, "ratio": 1}), engine, budget="3.5s")
    assert (trace.stopped, trace.answer) == ("deadline", "42")


def test_where_no_candidate_has_an_answer_the_fusors_counts() -> None:
    engine = ScriptedEngine(
        lambda request, child, rng: "#### 42" if request.address[0] == "fusor" else f"no idea {'abc'[child]}"
    )
    assert solved(make_strategy("fusion", {"n": 3}), engine).answer == "42"


class SlowReader:
    async def read(self, problem: Problem, text: str) -> tuple[str, str]:
        await asyncio.sleep(5)
        return "42", "42"


class DeadReader:
    async def read(self, problem: Problem, text: str) -> tuple[str, str]:
        raise EngineError("the worker process cannot be started")


def test_reading_answers_is_bounded_by_the_deadline_too() -> None:
    trace = solved(vote_of(8), says("#### 42"), reader=SlowReader(), budget="2s")
    assert (trace.stopped, len(trace.candidates)) == ("deadline", 8)
    assert trace.seconds <= 4


def test_a_reader_that_fails_does_not_lose_the_trace() -> None:
    trace = solved(vote_of(8), says("#### 42"), reader=DeadReader())
    assert (trace.stopped, trace.error) == ("error", "the worker process cannot be started")
    assert (len(trace.candidates), trace.usage.completion) == (8, 8 * len("#### 42"))


@pytest.mark.parametrize("listed", [True, False])
def test_a_candidate_of_the_strategy_s_own_making_can_be_chosen(listed: bool) -> None:
    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        samples: list[Candidate] = await model.sample(problem)
        own = replace(samples[0], address=("mine", 0), text="merged")
        report([*samples, own] if listed else samples, chosen=own)

    trace = solved(Own(work=work), says("#### 42"))
    assert (trace.answer, trace.text) == ("42", "merged")
    assert Trace.from_json(trace.to_json()) == trace


# ---------------------------------------------------------------- why it ended


class Lingering(ScriptedEngine):
    """Needs some seconds to end what is cancelled, and says only then what it has used."""

    def __init__(self, lingers: float) -> None:
        super().__init__(lambda request, child, rng: "x" * 100, latency=lambda request, child: 100.0)
        self._lingers = lingers
        self.begun = 0

    async def generate(self, request: Request, progress: Progress) -> None:
        self.begun += request.n
        try:
            await super().generate(request, progress)
        except asyncio.CancelledError:
            await asyncio.sleep(self._lingers)
            raise


@pytest.mark.parametrize("name", ["adaptive_consistency", "first_finish", "multi_temperature", "esc"])
def test_what_takes_long_to_end_is_charged_all_the_same(name: str) -> None:
    engine = Lingering(3.0)
    trace = run(solve_async(problem(), make_strategy(name), model=engine, budget="50s"))
    assert (trace.stopped, {call.outcome for call in trace.calls}) == ("deadline", {"cancelled"})
    assert sum(call.n for call in trace.calls) == engine.begun > 1
    assert trace.usage.completion >= 50 * engine.begun, "half of each was written by then"


def test_a_strategy_that_swallows_its_cancellation_is_cancelled_again() -> None:
    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        await one_sample(problem, report, model, meter)
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            await asyncio.sleep(1e6)

    trace = solved(Own(work=work), says("#### 42"), budget="2s")
    assert (trace.stopped, trace.answer) == ("deadline", "42")
    assert trace.seconds <= 4


@pytest.mark.parametrize("begun", [True, False])
def test_stopped_by_the_caller_is_cancelled_whatever_was_refused_before(begun: bool) -> None:
    async def go() -> Trace:
        stop = asyncio.Event()

        async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
            samples = await model.sample(problem, 9)  # fewer fit
            report(samples, chosen=samples[0])
            stop.set()
            await asyncio.sleep(100)

        if not begun:
            stop.set()
        options: dict[str, Any] = {"budget": "80-tokens", "sampling": Sampling(max_tokens=60), "stop": stop}
        return await alone(solve_async(problem(), Own(work=work), model=says("#### 42"), **options))

    trace = run(go())
    assert (trace.stopped, trace.answer, bool(trace.calls)) == ("cancelled", "42" if begun else None, begun)


def test_a_bug_is_told_although_the_budget_ended_beside_it() -> None:
    async def refused() -> None:
        raise BudgetExhausted("nothing more fits")

    async def buggy() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            raise RuntimeError("a bug")

    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        await one_sample(problem, report, model, meter)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refused())
            tasks.create_task(buggy())

    trace = solved(Own(work=work), says("#### 42"))
    assert (trace.stopped, trace.error, trace.answer) == ("error", "RuntimeError: a bug", "42")


class SelfCancelling(ScriptedEngine):
    async def generate(self, request: Request, progress: Progress) -> None:
        raise asyncio.CancelledError


def test_an_engine_that_cancels_itself_is_an_error_with_the_bill() -> None:
    with pytest.raises(EngineError) as caught:
        solved(vote_of(2), SelfCancelling(lambda request, child, rng: ""))
    assert caught.value.trace is not None
    assert caught.value.trace.calls


def test_an_engine_s_failure_is_told_in_its_own_words() -> None:
    def reply(request: Request, child: int, rng: object) -> str:
        if child:
            raise RuntimeError("the real reason")
        return "#### 42"

    trace = solved(vote_of(2), ScriptedEngine(reply))
    assert (trace.answer, trace.calls[0].error) == ("42", "RuntimeError: the real reason")
    with pytest.raises(EngineError, match="it is gone") as caught:
        solved("greedy", ScriptedEngine(lambda request, child, rng: EngineError("it is gone")))
    assert caught.value.__cause__ is not caught.value


def test_a_journal_that_cannot_be_written_leaves_nothing_running() -> None:
    def full(call: Call) -> None:
        if call.kind == "verify":
            raise OSError("No space left on device")

    async def verifier(question: str, solution: str) -> float:
        await asyncio.sleep(len(solution))
        return 1.0

    trace = solved(best_of(3), says("#### 42", "a #### 42"), verifier=verifier, on_call=full)
    assert (trace.stopped, trace.answer, trace.error) == ("error", "42", "OSError: No space left on device")
    assert [call.outcome for call in trace.calls if call.kind == "verify"] == ["ok", "cancelled"]  # two are equal


# ---------------------------------------------------------------- the trace as a line of JSON


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logprob_that_is_no_number_is_no_logprob(value: float) -> None:
    engine = ScriptedEngine(
        lambda request, child, rng: Completion(text="#### 42", tokens=7, logprobs=(-0.5, value), token_ids=(1, 2))
    )
    trace = solved("greedy", engine)
    assert trace.candidates[0].logprobs is None
    assert Trace.from_json(trace.to_json()) == trace


def bad_byte(question: str, solution: str) -> float:
    raise ValueError("bad byte \udc80")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (says("#### 42"), {"verifier": bad_byte}),
        (ScriptedEngine(lambda request, child, rng: "#### 42" if child else EngineError("\udc80")), {"prm": dead}),
        (says("#### 42"), {"prm": dead, "question": "what \udcff?"}),
    ],
    ids=["verifier", "engine", "question"],
)
def test_a_lone_surrogate_from_anywhere_can_be_written(model: ScriptedEngine, options: dict[str, Any]) -> None:
    trace = solved(best_of(2), model, **options)
    assert trace.answer == "42"
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize("extra", [(1, 2), abs, np.int64(3), math.nan, {"deep": [Price]}], ids=repr)
def test_what_a_strategy_holds_or_reports_can_be_written(extra: object) -> None:
    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        samples = await model.sample(problem, 2)
        scores = np.array([0.5, 0.25], dtype=np.float32)
        report(samples, chosen=samples[0], scores=scores, confidence=np.float32(0.5))

    trace = Trace.from_json(solved(Own(work=work, extra=extra), says("#### 42")).to_json())
    assert (trace.rounds[-1].scores, trace.confidence) == ((0.5, 0.25), 0.5)
    assert trace.strategy["work"].endswith("work")


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("n", [3, 128])
def test_flops_of_a_shared_prompt_are_never_below_the_true_ones(n: int) -> None:
    class Sharing(ScriptedEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            await super().generate(request, progress)
            progress.prompt, progress.cached = 33 * n, 32 * (n - 1)

    engine = Sharing(lambda request, child, rng: "4", shape=Shape(parameters=1, layers=10, hidden=10))
    true = charge(engine.spec, [Usage(prompt=33, cached=32 * (child > 0), completion=1) for child in range(n)])
    cost = solved(vote_of(n), engine).cost
    assert cost["tokens"] == true["tokens"]
    assert cost["flops"] >= true["flops"]


def test_a_unit_that_is_not_known_for_every_role_has_no_total() -> None:
    reply = judging(lambda request, child: "#### 42")
    priced, judge = ScriptedEngine(reply, price=Price(prompt=1, completion=1)), ScriptedEngine(reply, name="judge")
    trace = solved(best_of(2), priced, models={"judge": judge}, verifier="judge")
    assert sorted(trace.cost) == ["seconds", "tokens"]
    assert "usd" in solved(best_of(2), priced, verifier="judge").cost


def test_cached_tokens_dearer_than_others_are_refused() -> None:
    with pytest.raises(ValueError, match="cached tokens cost no more"):
        Price(prompt=1, completion=0, cached=2)


def test_a_budget_that_nobody_keeps_is_refused_before_spending() -> None:
    told: list[Call] = []
    with pytest.raises(UsageError, match=r"Nothing here counts token, .*use flops, seconds, tokens, usd"):
        solved("greedy", says("#### 42"), budget=Budget({"token": 1}), on_call=told.append)
    with pytest.raises(UsageError, match="'10 apples'"):
        outthink.solve("What is 1+1?", model=says("#### 42"), budget="10 apples")
    assert told == []


@pytest.mark.parametrize("max_tokens", [512, 12345629])
@pytest.mark.parametrize("unit", ["tokens", "usd", "flops"])
def test_the_smallest_budget_that_is_named_suffices(unit: str, max_tokens: int) -> None:
    price, shape = Price(prompt=0.15, completion=0.6), Shape(parameters=7_654_321_987, layers=33, hidden=4095)
    sampling, engine = Sampling(max_tokens=max_tokens), says("#### 42", price=price, shape=shape)
    with pytest.raises(BudgetTooSmall) as caught:
        solved("greedy", engine, sampling=sampling, budget=Budget({unit: 1e-9}))
    named = re.search(rf"at least (\S+ {unit}), ", str(caught.value))
    assert named is not None
    assert solved("greedy", engine, sampling=sampling, budget=named[1]).answer == "42"


# ---------------------------------------------------------------- roles and addresses


def test_another_role_s_context_and_name_are_its_own() -> None:
    reply = judging(lambda request, child: "#### 42")
    models = {"judge": Limited(reply, context=400, name="judge"), "model": says("#### 1", name="other")}
    trace = solved(
        best_of(2), ScriptedEngine(reply, name="real"), models=models, verifier="judge",
        sampling=Sampling(max_tokens=2000),
    )  # fmt: skip
    assert trace.answer == "42"
    assert trace.resources == {"model": "real", "judge": "judge"}


def test_what_cannot_be_done_is_refused_before_spending() -> None:
    class Plain(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return EngineSpec(name="plain")

    told: list[Call] = []
    with pytest.raises(MissingResource, match="can do prefix; plain cannot"):
        solved("rebase", Plain(lambda request, child, rng: ""), prm="judge", on_call=told.append)
    for selector in ("best", "weighted_vote"):
        with pytest.raises(MissingResource, match="needs a verifier"):
            solved(make_strategy("revision", {"selector": selector}), coin(0.5), on_call=told.append)
    for name in ("best_of_n", "weighted_best_of_n", "rebase"):
        with pytest.raises(UsageError, match="delimiter must not be empty"):
            make_strategy(name, {"delimiter": ""})
    assert told == []


def test_a_lane_cannot_be_taken_for_another() -> None:
    async def work(problem: Problem, report: Any, model: Any, meter: Any) -> None:
        with pytest.raises(ValueError, match="must not contain '/'"):
            model.lane("a/b")
        await one_sample(problem, report, model.lane("a", "b"), meter)

    assert [candidate.id for candidate in solved(Own(work=work), says("#### 42")).candidates] == ["model/a/b/0/0"]


def test_lanes_with_a_judge_do_not_depend_on_what_finishes_first() -> None:
    def favourite(level: Level) -> Any:
        return np.array([level.width] + [0] * (len(level.nodes) - 1))

    @dataclass(frozen=True, kw_only=True)
    class Three:
        async def run(self, problem: Problem, report: Any, *, model: Any, prm: Any, rng: Any) -> None:
            lanes = Lanes([Rounds(favourite, 2, max_rounds=4) for _ in range(3)])
            await search(lanes, problem, report, model=model, prm=prm, rng=rng, max_step_tokens=50, delimiter="\n\n")

    def reply(request: Request, child: int, rng: np.random.Generator) -> str | Completion:
        if request.labels:
            return Completion(text="Yes", tokens=2, labels=(math.log(rng.random()), -1.0))
        return f"{'s' * int(rng.integers(9))}\n\n#### {rng.integers(4)}"

    def decided(trace: Trace) -> object:
        return trace.candidates, [(call.address, call.kind, call.cost) for call in trace.calls], trace.rounds[-1].scores

    delays = random.Random(1)
    slow = ScriptedEngine(reply, latency=lambda request, child: delays.random())
    first = solved(Three(), ScriptedEngine(reply), prm="judge", seed=3)
    assert decided(solved(Three(), slow, prm="judge", seed=3)) == decided(first)
