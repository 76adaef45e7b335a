"""Scores over HTTP, against a real server on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, UsageError
from outthink.meter import Meter
from outthink.models.endpoint import Patience
from outthink.models.scripted import ScriptedEngine
from outthink.rewards.making import make_scorer
from outthink.rewards.remote import RemoteScorer, _chains
from outthink.rewards.scores import Scores
from outthink.strategies.making import make_strategy
from outthink.types import Budget, Call, Candidate, Usage
from tests.tools.toys import problem

SHORT = Patience(connect=1.0, silence=0.3, attempts=2, wait=0.02, first=0.001)
OVERHEAD = 128

Handler = Callable[[Any], Any]
"""body -> JSON to answer with, or a response, or an awaitable of one of them."""


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A server's address, and what it has been asked."""
    asked: list[tuple[str, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked.append((request.path, body))
        content = handler(body)
        if isinstance(content, Awaitable):
            content = await content
        return content if isinstance(content, web.StreamResponse) else web.json_response(content)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def sample(text: str, number: int = 0) -> Candidate:
    return Candidate(address=("model", 0, number), text=text, tokens=len(text))


def samples(*texts: str) -> list[Candidate]:
    return [sample(text, number) for number, text in enumerate(texts)]


Found = tuple[tuple[float | None, ...], list[Call], list[tuple[str, Any]], Meter]


def score(
    handler: Handler,
    paths: Sequence[Candidate],
    path: str = "/score",
    *,
    process: bool = False,
    budget: Budget | None = None,
    delimiter: str = "",
) -> Found:
    """Scores by a server that lives as long as that takes; with a delimiter, those of all steps."""

    async def go() -> Found:
        async with serving(handler) as (url, asked):
            meter = Meter(budget or Budget())
            scorer = RemoteScorer(url + path, process=process, patience=SHORT)
            scores = Scores(scorer, {"meter": meter}, meter)
            try:
                if delimiter:
                    steps = await scores.score_steps(problem(), paths, delimiter)
                    return tuple(one for scored in steps for one in scored), meter.calls, asked, meter
                return await scores.score(problem(), paths), meter.calls, asked, meter
            finally:
                await scorer.close()

    return asyncio.run(go())


def lengths(body: Any) -> dict[str, Any]:
    """A reward of vLLM's /score: the length of the solution over ten."""
    scores = [{"index": place, "score": len(text) / 10} for place, text in enumerate(body["text_2"])]
    return {"data": scores, "usage": {"prompt_tokens": 7 * len(scores), "total_tokens": 7 * len(scores)}}


# ------------------------------------------------------------------------------------------------ forms


def test_score() -> None:
    scores, calls, asked, _ = score(lengths, samples("one", "three"), "/v1/score#reward-model")
    assert scores == (0.3, 0.5)
    body = {"model": "reward-model", "text_1": "What is 1+1?", "text_2": ["one", "three"]}
    assert asked == [("/v1/score", body)]
    (call,) = calls
    assert (call.kind, call.role, call.address, call.n) == ("verify", "verifier", ("verifier", "model", 0, 0, 0, 0), 2)
    assert call.seen == call.charged == Usage(prompt=14)
    assert (call.exact, call.outcome, call.failed, call.attempts, call.cost) == (True, "ok", 0, 1, {"tokens": 14.0})


def test_what_comes_back_out_of_order_is_put_in_order() -> None:
    scores, *_ = score(lambda body: {"data": lengths(body)["data"][::-1]}, samples("one", "three"))
    assert scores == (0.3, 0.5)


@pytest.mark.parametrize(("probs", "expected"), [([0.2, 0.8], 0.8), ([0.9], 0.9), ([-3.5], -3.5)])
def test_classify(probs: list[float], expected: float) -> None:
    scores, _, asked, _ = score(lambda body: {"data": [{"label": "x", "probs": probs}]}, samples("one"), "/classify")
    assert scores == (expected,)
    assert asked == [("/classify", {"input": ["What is 1+1?\n\none"]})]


def test_a_reward_of_three_classes_is_none() -> None:
    with pytest.raises(NothingCameBack, match="has one or two classes, and this model gives 3: serve another one"):
        score(lambda body: {"data": [{"probs": [0.1, 0.2, 0.7]}]}, samples("one"), "/classify")


@pytest.mark.parametrize(
    ("data", "expected"),
    [([0.2, 0.8], 0.8), ([2.5], 2.5), ([[0.9, 0.1], [0.3, 0.7]], 0.7), ([[0.1], [0.4]], 0.4)],
)
def test_pooling_as_a_verifier_takes_the_last_token(data: Any, expected: float) -> None:
    scores, _, asked, _ = score(lambda body: {"data": [{"data": data}]}, samples("one"), "/pooling#m")
    assert scores == (expected,)
    messages = [{"role": "user", "content": "What is 1+1?"}, {"role": "assistant", "content": "one"}]
    assert asked == [("/pooling", {"model": "m", "messages": messages})]


def test_pooling_as_a_verifier_without_rows_names_the_mistake() -> None:
    with pytest.raises(NothingCameBack, match="rewards marked steps is a PRM and not a verifier"):
        score(lambda body: {"data": [{"data": []}]}, samples("one"), "/pooling")


def marked(body: Any) -> list[str]:
    text: str = body["messages"][1]["content"]
    assert text.endswith("<extra_0>")
    return text.split("<extra_0>")[:-1]


def by_step(body: Any) -> dict[str, Any]:
    """A pooler of type STEP; the reward of a step is the length of all up to it over 100."""
    ends = [sum(map(len, marked(body)[: end + 1])) for end in range(len(marked(body)))]
    return {"data": [{"data": [[1 - end / 100, end / 100] for end in ends]}], "usage": {"prompt_tokens": 50}}


def by_token(body: Any) -> dict[str, Any]:
    """A pooler of type ALL: noise for every character, then the reward of the last step."""
    rows: list[list[float]] = [[0.5, 0.5] for _ in body["messages"][1]["content"]]
    return {"data": [{"data": [*rows, by_step(body)["data"][0]["data"][-1]]}], "usage": {"prompt_tokens": 50}}


@pytest.mark.parametrize(("server", "requests"), [(by_step, 2), (by_token, 5)])
def test_pooling_as_a_prm_gives_every_step_its_reward(server: Handler, requests: int) -> None:
    whole = samples("ab\n\ncde\n\nf", "ab\n\nxy <extra_0>")
    scores, calls, asked, _ = score(server, whole, "/pooling", process=True, delimiter="\n\n")
    assert scores == pytest.approx((0.02, 0.05, 0.06, 0.02, 0.04))
    # the first step of both is one; where a row is a step, a chat serves all steps of its solution
    assert len(asked) == len(calls) == requests - (requests == 5)
    assert asked[0][1]["messages"][1]["content"] == "ab<extra_0>cde<extra_0>f<extra_0>"
    assert asked[1][1]["messages"][1]["content"] == "ab<extra_0>xy<extra_0>"
    extra = {key: value for key, value in asked[0][1].items() if key != "messages"}
    assert extra == {"task": "token_classify", "add_generation_prompt": False, "continue_final_message": True}
    assert all((call.role, call.charged) == ("prm", Usage(prompt=50)) for call in calls)


def test_paths_of_a_search_are_chats_of_their_own() -> None:
    first = sample("one\n\n")
    second = [
        Candidate(address=("model", 1, child), parents=(first.id,), continues=True, text=text)
        for child, text in enumerate(("two", "three"))
    ]

    async def go() -> None:
        async with serving(by_step) as (url, asked):
            meter = Meter(Budget())
            meter.candidates[first.id] = first
            scorer = RemoteScorer(url + "/pooling", process=True)
            scores = await Scores(scorer, {"meter": meter}, meter).score(problem(), second)
            assert scores == pytest.approx((0.06, 0.08))
            assert [body["messages"][1]["content"] for _, body in asked] == [
                "one<extra_0>two<extra_0>",
                "one<extra_0>three<extra_0>",
            ]
            await scorer.close()

    asyncio.run(go())


def test_chains_are_the_paths_that_no_other_continues() -> None:
    a, ab, abc, ax, b = ("a",), ("a", "b"), ("a", "b", "c"), ("a", "x"), ("b",)
    assert _chains([a, ab, b, abc, ax]) == [[abc, ab, a], [b], [ax]]
    assert _chains([]) == []


def test_the_plain_form() -> None:
    def server(body: Any) -> dict[str, Any]:
        return {"scores": [None if "?" in text else len(text) for text in body["solutions"]]}

    scores, calls, asked, _ = score(server, samples("one", "what?", "three"), "/judge/it#big")
    assert scores == (3.0, None, 5.0)
    body = {"model": "big", "question": "What is 1+1?", "solutions": ["one", "what?", "three"]}
    assert asked == [("/judge/it", body)]
    assert (calls[0].outcome, calls[0].failed) == ("ok", 0)  # having no opinion is no failure


@pytest.mark.parametrize("path", ["", "/", "/prm/"])
def test_the_plain_form_of_a_prm_shows_the_steps(path: str) -> None:
    def server(body: Any) -> dict[str, Any]:
        return {"scores": [len(steps[-1]) for steps in body["steps"]], "usage": {"prompt_tokens": 0}}

    scores, calls, asked, _ = score(server, samples("a\n\nbb\n\nccc"), path, process=True, delimiter="\n\n")
    assert scores == (3.0, 4.0, 3.0)
    assert [where for where, _ in asked] == [path or "/"]
    assert asked[0][1]["solutions"] == ["a\n\n", "a\n\nbb\n\n", "a\n\nbb\n\nccc"]
    assert asked[0][1]["steps"] == [["a\n\n"], ["a\n\n", "bb\n\n"], ["a\n\n", "bb\n\n", "ccc"]]
    assert calls[0].charged == Usage()
    assert calls[0].exact  # it says that it reads no tokens


# ------------------------------------------------------------------------------------------------ metering


def test_without_usage_what_was_sent_is_charged_by_bytes() -> None:
    scores, calls, *_ = score(lambda body: {"scores": [1, 2]}, samples("one", "drei\u00df"), "/plain")
    assert scores == (1.0, 2.0)
    (call,) = calls
    sent = 2 * len("What is 1+1?") + len(b"one") + len("drei\u00df".encode())
    assert call.seen == Usage()
    assert call.charged == Usage(prompt=sent + 2 * OVERHEAD)
    assert not call.exact


def test_tokens_that_a_server_writes_are_charged() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    _, calls, *_ = score(lambda body: {"scores": [1], "usage": usage}, samples("one"), "/plain")
    assert calls[0].charged == Usage(prompt=9, completion=4)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": "9"}, {"prompt_tokens": -1}, []]
)
def test_usage_that_cannot_be_read_is_not_believed(usage: Any) -> None:
    _, calls, *_ = score(lambda body: {"scores": [1], "usage": usage}, samples("one"), "/plain")
    assert calls[0].charged == Usage(prompt=len("What is 1+1?one") + OVERHEAD)


def test_at_most_64_solutions_in_one_request() -> None:
    scores, calls, asked, _ = score(lengths, samples(*(f"number {number}" for number in range(150))))
    assert scores == tuple(len(f"number {number}") / 10 for number in range(150))
    assert sorted(len(body["text_2"]) for _, body in asked) == [22, 64, 64]
    assert sorted(call.n for call in calls) == [22, 64, 64]


def test_equal_solutions_are_sent_and_charged_once() -> None:
    scores, calls, asked, _ = score(lengths, samples("one", "three", "one", "one"))
    assert scores == (0.3, 0.5, 0.3, 0.3)
    assert asked[0][1]["text_2"] == ["one", "three"]
    assert calls[0].charged.tokens == 14


@pytest.mark.parametrize("limit", [100, 160, 350, 600, 1000, 10_000])
def test_a_budget_that_runs_out_leaves_scores_missing(limit: int) -> None:
    solutions = samples(*(f"solution {number}" for number in range(12)))
    each = len("What is 1+1?solution 0") + OVERHEAD
    slow = {"usage": {"prompt_tokens": 100}}  # of each request
    server: Handler = lambda body: {"scores": [1.0] * len(body["solutions"])} | slow  # noqa: E731
    budget = Budget({"tokens": float(limit)})
    if limit < each:
        with pytest.raises(BudgetExhausted):
            score(server, solutions, "/plain", budget=budget)
        return
    scores, calls, _, meter = score(server, solutions, "/plain", budget=budget)
    assert meter.cost()["tokens"] == 100 * len(calls) <= limit
    assert not meter.overrun
    assert 1 <= sum(one is not None for one in scores) == sum(call.n for call in calls)
    assert (None in scores) == (limit < 1000)


def test_a_server_that_reads_more_than_bounded_overruns_and_is_bounded_higher_from_then_on() -> None:
    async def go() -> None:
        async with serving(lambda body: {"scores": [1.0], "usage": {"prompt_tokens": 400}}) as (url, _):
            scorer = RemoteScorer(url + "/plain", patience=SHORT)
            meter = Meter(Budget({"tokens": 1000.0}))
            assert await Scores(scorer, {"meter": meter}, meter).score(problem(), samples("one")) == (1.0,)
            assert (meter.cost()["tokens"], meter.overrun) == (400.0, True)
            later = Meter(Budget({"tokens": 1000.0}))
            assert await Scores(scorer, {"meter": later}, later).score(problem(), samples("two")) == (1.0,)
            assert (later.cost()["tokens"], later.overrun) == (400.0, False)
            await scorer.close()

    asyncio.run(go())


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_refusal_produced_nothing_and_is_charged_nothing(status: int) -> None:
    caught: list[Call] = []

    async def go() -> None:
        refusal = lambda body: web.json_response({"error": {"message": "no room"}}, status=status)  # noqa: E731
        async with serving(refusal) as (url, asked):
            meter = Meter(Budget(), on_call=caught.append)
            scorer = RemoteScorer(url + "/score", patience=SHORT)
            with pytest.raises(NothingCameBack, match=f"answered {status}: no room"):
                await Scores(scorer, {"meter": meter}, meter).score(problem(), samples("one"))
            assert len(asked) == (2 if status in (429, 500) else 1)
            await scorer.close()

    asyncio.run(go())
    (call,) = caught
    assert (call.outcome, call.charged, call.cost, call.exact) == ("failed", Usage(), {"tokens": 0.0}, True)
    assert call.attempts == (2 if status in (429, 500) else 1)
    assert "no room" in (call.error or "")


async def _hang(body: Any) -> dict[str, Any]:
    await asyncio.sleep(1.5)
    return {}


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (lambda body: web.Response(text="{", content_type="application/json"), "broken JSON"),
        (lambda body: web.Response(text="<html>", content_type="text/html"), "in place of JSON"),
        (lambda body: {"scores": [0.5]}, "returned 1 scores for 2 solutions"),
        (lambda body: {"scores": [0.5] * 3}, "returned 3 scores for 2 solutions"),
        (lambda body: {"scores": ["good", 1]}, "/plain did not answer with scores: is this the right address"),
        (lambda body: {"scores": [True, 1]}, "did not answer with scores"),
        (lambda body: {"scores": [10**400, 1]}, "did not answer with scores"),
        (lambda body: {"scores": 3}, "did not answer with scores"),
        (lambda body: {"results": []}, "did not answer with scores"),
        (lambda body: [1, 2], "did not answer with scores"),
        (_hang, "sent nothing for 0.3 s"),
    ],
)
def test_what_may_have_been_worked_on_is_charged_at_its_worst(server: Handler, said: str) -> None:
    caught: list[Call] = []

    async def go() -> None:
        async with serving(server) as (url, asked):
            meter = Meter(Budget(), on_call=caught.append)
            scorer = RemoteScorer(url + "/plain", patience=SHORT)
            with pytest.raises(NothingCameBack, match=said):
                await Scores(scorer, {"meter": meter}, meter).score(problem(), samples("one", "two"))
            assert len(asked) == 1  # not asked again
            await scorer.close()

    asyncio.run(go())
    (call,) = caught
    assert (call.outcome, call.failed, call.seen) == ("failed", 2, Usage())
    assert call.charged == Usage(prompt=2 * (len("What is 1+1?one") + OVERHEAD))
    assert not call.exact


def test_a_malformed_answer_with_usage_is_charged_what_it_used() -> None:
    async def go() -> None:
        async with serving(lambda body: {"scores": [], "usage": {"prompt_tokens": 8}}) as (url, _):
            meter = Meter(Budget())
            scorer = RemoteScorer(url, patience=SHORT)
            with pytest.raises(NothingCameBack, match="returned 0 scores for 1 solutions"):
                await scorer.score(problem(), [(sample("one"),)], meter=meter)
            assert meter.calls[0].charged == meter.calls[0].seen == Usage(prompt=8)
            await scorer.close()

    asyncio.run(go())


def test_a_server_that_is_not_there_is_named() -> None:
    async def go() -> None:
        async with serving(lengths) as (url, _):
            pass
        meter = Meter(Budget())
        scorer = RemoteScorer(url + "/score", patience=SHORT)
        with pytest.raises(NothingCameBack, match="cannot be reached"):
            await scorer.score(problem(), [(sample("one"),)], meter=meter)
        assert meter.calls[0].charged == Usage()
        await scorer.close()

    asyncio.run(go())


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-Infinity"])
def test_a_score_that_is_no_number_is_missing(bad: str) -> None:
    def server(body: Any) -> web.Response:
        return web.Response(text=f'{{"scores": [{bad}, 0.25]}}', content_type="application/json")

    assert score(server, samples("one", "two"), "/plain")[0] == (None, 0.25)


def test_one_request_that_fails_does_not_cost_the_others() -> None:
    def server(body: Any) -> Any:
        return web.Response(status=500) if "number 0" in body["text_2"] else lengths(body)

    scores, calls, *_ = score(server, samples(*(f"number {number}" for number in range(100))))
    assert scores[:64] == (None,) * 64
    assert all(one is not None for one in scores[64:])
    assert sorted((call.outcome, call.n, call.failed) for call in calls) == [("failed", 64, 64), ("ok", 36, 0)]


def test_a_failure_is_tried_again_by_a_later_call_and_a_score_is_not() -> None:
    broken = [True]

    async def go() -> None:
        async with serving(lambda body: web.Response(status=400) if broken else lengths(body)) as (url, asked):
            meter = Meter(Budget())
            scorer = RemoteScorer(url + "/score", patience=SHORT)
            scores = Scores(scorer, {"meter": meter}, meter)
            with pytest.raises(NothingCameBack):
                await scores.score(problem(), samples("one"))
            broken.clear()
            assert await scores.score(problem(), samples("one")) == (0.3,)
            assert await scores.score(problem(), samples("one")) == (0.3,)
            assert len(asked) == 2
            broken.append(True)
            assert await scores.score(problem(), samples("one", "two")) == (0.3, None)
            await scorer.close()

    asyncio.run(go())


def test_a_deadline_charges_what_was_sent_and_aborts_it() -> None:
    aborted: list[bool] = []

    async def hang(body: Any) -> dict[str, Any]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            aborted.append(True)
            raise
        return {}

    async def go() -> None:
        async with serving(hang) as (url, _):
            engine = ScriptedEngine(lambda request, child, rng: f"#### {child}")
            scorer = RemoteScorer(url + "/plain")
            trace = await solve_async(
                problem(), make_strategy("best_of_n", {"n": 3}), model=engine, verifier=scorer, budget="0.5s"
            )
            assert (trace.stopped, trace.answer) == ("deadline", "0")
            (call,) = [call for call in trace.calls if call.kind == "verify"]
            assert (call.outcome, call.seen, call.exact) == ("cancelled", Usage(), False)
            assert call.charged == Usage(prompt=3 * (len("What is 1+1?#### 0") + OVERHEAD))
            await scorer.close()

    asyncio.run(go())


# ------------------------------------------------------------------------------------------------ use


def test_a_url_is_a_verifier() -> None:
    async def go() -> None:
        async with serving(lengths) as (url, _):
            engine = ScriptedEngine(lambda request, child, rng: ["#### 1", "#### 1234", "#### 12"][child])
            trace = await solve_async(
                problem(), make_strategy("best_of_n", {"n": 3}), model=engine, verifier=f"{url}/score#m"
            )
            assert trace.answer == "1234"
            assert trace.rounds[-1].scores == (0.6, 0.9, 0.7)
            assert [(line.kind, line.role, line.cost) for line in trace.ledger() if line.kind == "verify"] == [
                ("verify", "verifier", {"tokens": 21.0})
            ]

    asyncio.run(go())
    gc.collect()  # connections that were not closed would warn now


def test_a_url_is_a_prm_of_a_search() -> None:
    def reply(request: Any, child: int, rng: Any) -> str:
        return "one\n\ntwo\n\n#### 3"[len(request.prefix_text) :]

    async def go() -> None:
        async with serving(by_step) as (url, _):
            trace = await solve_async(
                problem(), make_strategy("rebase", {"width": 2}), model=ScriptedEngine(reply), prm=f"{url}/pooling"
            )
            assert (trace.answer, trace.stopped) == ("3", "finished")
            assert {call.role for call in trace.calls if call.kind == "verify"} == {"prm"}

    asyncio.run(go())


def test_one_scorer_serves_several_loops_and_problems() -> None:
    scorer: list[Any] = []

    async def go() -> None:
        async with serving(lengths) as (url, _):
            scorer[:] = scorer or [RemoteScorer(f"{url}/score", patience=SHORT)]
            scorer[0]._endpoint.url = url  # the port differs
            meters = [Meter(Budget()), Meter(Budget())]
            scores = await asyncio.gather(*(scorer[0].score(problem(), [(sample("one"),)], meter=m) for m in meters))
            assert scores == [[0.3], [0.3]]

    asyncio.run(go())
    asyncio.run(go())
    gc.collect()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host:8001/score?key=1", "takes no options after a '[?]'"),
        ("http://", "is not the address of a server"),
        ("http://host:abc/score", "is not the address of a server"),
        ("http://[::1/score", "is not the address of a server"),
        ("http://me:secret@host/score", "holds a user or a password"),
    ],
)
def test_addresses_that_are_none(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        make_scorer(url)
    assert "secret" not in str(caught.value)
    assert "key=1" not in str(caught.value)


def test_errors_are_sentences() -> None:
    async def go() -> None:
        async with serving(lambda body: {"error": "out of memory"}) as (url, _):
            scorer = RemoteScorer(url + "/score", patience=SHORT)
            with pytest.raises(EngineError, match=r"^http://127.*failed: out of memory$"):
                await scorer.score(problem(), [(sample("one"),)], meter=Meter(Budget()))
            await scorer.close()

    asyncio.run(go())
    assert math.isfinite(RemoteScorer("http://host/score")._overhead)
