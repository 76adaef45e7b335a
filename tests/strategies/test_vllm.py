"""What is decided while a thought is written, on a real vLLM: what it was asked, sent and counted.

`scripts/test-vllm` starts one and runs this. The model does not think, so marks that it does write end its thoughts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink import Sampling, Trace, make_strategy, solve
from outthink.answers.asking import ask
from outthink.bench.pool import record_pool
from outthink.models.endpoint import Endpoint
from outthink.models.openai.engine import OpenAIEngine
from outthink.reports.replay import replay_pool
from outthink.strategies.parallel.deepconf import falls
from outthink.strategies.probing import FORCED
from outthink.tasks.example import Example
from outthink.types import Candidate
from tests.models.test_vllm import QUESTION, URL, metrics, since
from tests.tools.overheard import Heard, Overheard
from tests.tools.server import threaded

pytestmark = [pytest.mark.skipif(not URL, reason="scripts/test-vllm runs this"), pytest.mark.timeout(600)]
STORY = "Write a long story about the sea."
WRITTEN = "vllm:generation_tokens_total"


@pytest.fixture(scope="module")
def known() -> OpenAIEngine:
    return OpenAIEngine.open(URL)


@pytest.fixture
def server() -> Iterator[Overheard]:
    with threaded(Overheard(URL)) as proxy:
        yield proxy


def ran(
    server: Overheard, known: OpenAIEngine, name: str, question: str = QUESTION, /, *, most: int = 48, **options: str
) -> Trace:
    """A strategy on one question, whose whole ledger agrees with what vLLM has counted."""
    engine = OpenAIEngine(Endpoint(server.url), known.facts)
    before = metrics()
    trace = solve(question, make_strategy(name, options), model=engine, sampling=Sampling(max_tokens=most), seed=3)
    made = since(before, WRITTEN)
    seen = sum(call.seen.completion for call in trace.calls)
    cut = [call for call in trace.calls if call.outcome == "cancelled"]
    print(f"\n{name}: {seen} tokens seen, {made:.0f} written, {trace.usage.completion} charged, {len(cut)} cut")
    assert seen <= made <= trace.usage.completion
    assert trace.usage.completion - seen <= 32 * len(cut)
    assert all(call.exact for call in trace.calls if call.outcome == "ok")
    assert sum(one.left for one in server.asked) == len(cut)
    return trace


def confidences(heard: Heard, k: int) -> list[float]:
    """Of each token that vLLM sent, by the definition."""
    tokens = [one for choice in heard.choices() for one in (choice.get("logprobs") or {}).get("content") or ()]
    return [-math.fsum(sorted(near["logprob"] for near in one["top_logprobs"])[-k:]) / k for one in tokens]


def text(heard: Heard) -> str:
    return "".join((one.get("delta") or {}).get("content") or one.get("text") or "" for one in heard.choices())


def of_its_request(server: Overheard, candidate: Candidate) -> Heard:
    return next(one for one in server.asked if not one.left and text(one) == candidate.text)


def begins(whole: list[int], *parts: tuple[int, ...]) -> bool:
    return whole[: sum(map(len, parts))] == [token for part in parts for token in part]


# ------------------------------------------------------------------------------------------------------------ deepconf


def test_deepconf_hears_what_vllm_sends_and_cuts_what_falls(server: Overheard, known: OpenAIEngine) -> None:
    """The bar is the median of the first four; of six more, which write as many windows, some fall below it."""
    options = {"n": "10", "warm_up": "4", "keep": "0.5", "window": "8", "threshold": "2"}
    trace = ran(server, known, "deepconf", STORY, most=40, **options)
    assert trace.notes == (), "all twenty were told"
    assert len(server.asked) == 1 + 6, "the first four are one request"
    for one in server.asked:
        assert (one.path, one.body["stream"]) == ("chat/completions", True)
        assert (one.body["logprobs"], one.body["top_logprobs"]) == (True, 20)
    assert [one.body.get("n", 1) for one in server.asked] == [4, *[1] * 6]
    for candidate in trace.candidates[4:]:
        heard = of_its_request(server, candidate)
        assert candidate.observed["top_logprobs"]["confidences"] == pytest.approx(confidences(heard, 20))
        assert len(confidences(heard, 20)) == candidate.tokens
    lowest = sorted(min(_windows(one, 8)) for one in trace.candidates[:4])
    bar = (lowest[1] + lowest[2]) / 2
    rows = [confidences(one, 20) for one in server.asked if one.left]
    after = [len(row) - float(falls(row, 8, bar)) for row in rows]
    assert after, "nothing fell, at odds of one in thousands"
    print(f"tokens that were sent after the fall: {after}")
    assert all(0 <= more < 32 for more in after)
    voting = {ident for answered in trace.rounds for ident in answered.candidates}
    for candidate in trace.candidates[4:]:
        fell = float(falls(candidate.observed["top_logprobs"]["confidences"], 8, bar)) < math.inf
        assert fell == (candidate.id not in voting), "one that fell with its last tokens does not vote either"


def _windows(candidate: Candidate, window: int) -> list[float]:
    values = candidate.observed["top_logprobs"]["confidences"]
    return [sum(values[start : start + window]) / window for start in range(max(len(values) - window, 0) + 1)]


def test_a_pool_keeps_confidences_and_deepconf_is_replayed_on_it(known: OpenAIEngine, tmp_path: Path) -> None:
    """Pieces that go on from tokens are asked for in the plain form, which tells the likeliest in another way."""
    examples = [Example(problem=ask(QUESTION, answer="math", id="sum"), gold=("5",))]
    for every in (None, 16):
        path = tmp_path / f"{every}.jsonl"
        how: dict[str, Any] = {"n": 3, "probe_every": every, "top_logprobs": 20, "sampling": Sampling(max_tokens=40)}
        with threaded(Overheard(URL)) as server:
            engine = OpenAIEngine(Endpoint(server.url), known.facts)
            recorded = asyncio.run(record_pool(examples, model=engine, path=path, **how))
            assert (recorded.done, recorded.failed) == (1, {})
            forms = {(one.path, one.body.get("top_logprobs", one.body.get("logprobs"))) for one in server.asked}
        # nobody reads those of forced answers
        plain = {("completions", 20), ("completions", None)} if every else set()
        assert forms == {("chat/completions", 20), *plain}
        replays = replay_pool(path, ["deepconf?warm_up=1&window=8&threshold=2"], ns=[3], answer="math", subsamples=20)
        assert len(replays.curves) == 2


# -------------------------------------------------------------------------------------------- answers forced on the way

PROBING = {
    "cmc": {"n": "4", "beta": "0"},
    "parallel_probe": {"n": "3", "stable": "2", "warm_up": "0"},
    "depth_consistency": {"n": "3"},
    "mrt_stop": {"n": "2", "k": "2"},
}


@pytest.mark.parametrize("name", PROBING)
def test_answers_are_forced_within_thoughts_that_go_on_without_them(
    name: str, server: Overheard, known: OpenAIEngine
) -> None:
    trace = ran(server, known, name, STORY, most=24, every="8", answer_tokens="4", **PROBING[name])
    prompt = tuple(asyncio.run(_encoded(known, STORY)))
    forced = tuple(asyncio.run(_tokens(known, FORCED)))
    first, *others = server.asked
    assert (first.path, first.body["max_tokens"], "stop" in first.body) == ("chat/completions", 8, False)
    pieces = {one.id: one for one in trace.candidates}
    kinds = []
    for one in others:
        assert one.path == "completions"
        ids = one.body["prompt"]
        assert begins(ids, prompt)
        behind = tuple(ids[len(prompt) :])
        forces = behind[-len(forced) :] == forced
        kinds.append(forces)
        thought = behind[: len(behind) - len(forced)] if forces else behind
        assert any(_thought(pieces, candidate) == thought for candidate in trace.candidates)
        assert one.body["max_tokens"] == (4 if forces else 8)
        assert one.body.get("stop") == (["\n"] if forces else None)
        assert one.body.get("n", 1) == (2 if forces and name == "mrt_stop" else 1)
    assert set(kinds) == {True, False}


def _thought(pieces: dict[str, Candidate], candidate: Candidate) -> tuple[int, ...]:
    """The tokens of a candidate and of what it goes on from."""
    before = _thought(pieces, pieces[candidate.parents[0]]) if candidate.continues else ()
    return (*before, *(candidate.token_ids or ()))


async def _encoded(known: OpenAIEngine, question: str) -> Any:
    """The prompt of a question."""
    engine = OpenAIEngine(Endpoint(URL), known.facts)
    try:
        body = {"model": known.facts.model, "messages": [{"role": "user", "content": question}]}
        return (await engine._endpoint.post("../tokenize", body))["tokens"]
    finally:
        await engine.close()


async def _tokens(known: OpenAIEngine, words: str) -> tuple[int, ...]:
    engine = OpenAIEngine(Endpoint(URL), known.facts)
    try:
        return await engine.encode(words)
    finally:
        await engine.close()


def test_a_race_ends_those_that_write_on(server: Overheard, known: OpenAIEngine) -> None:
    """How many these are is a matter of their lengths: those that end at the same moment are all answers."""
    trace = ran(server, known, "race_vote", QUESTION, most=40, n="6", threshold="0.01")
    assert {one.body.get("n", 1) for one in server.asked} == {1}
    assert 1 <= sum(one.left for one in server.asked) <= len(server.asked) - len(trace.rounds[-1].candidates)


# ----------------------------------------------------------------------------------------------- thoughts that are cut


def test_budget_forcing_puts_off_an_end_and_then_forces_it(server: Overheard, known: OpenAIEngine) -> None:
    """The model ends every sentence with a full stop, which here is the mark of the end of a thought."""
    options = {"think_close": ".", "n_ignore": "1", "max_think": "24", "answer_max": "4", "force": "\nAnswer:"}
    trace = ran(server, known, "budget_forcing", STORY, most=40, **options)
    first, *others = server.asked
    assert (first.path, first.body["stop"]) == ("chat/completions", ["."])
    assert first.body["include_stop_str_in_output"]
    assert all(one.path == "completions" for one in others)
    wait = asyncio.run(_tokens(known, " Wait"))
    prompt = tuple(asyncio.run(_encoded(known, STORY)))
    thought = next(one for one in trace.candidates if not one.parents)
    if thought.finish == "stop":
        (on,) = (one for one in others if tuple(one.body["prompt"][-len(wait) :]) == wait)
        assert begins(on.body["prompt"], prompt, (thought.token_ids or ())[:-1])
        assert on.body["max_tokens"] == 24 - (thought.tokens - 1) - len(wait)
        assert on.body["stop"] == ["."]
    assert others[-1].body["max_tokens"] >= 4
    assert not any(one.body.get("logit_bias") for one in server.asked)


@pytest.mark.parametrize("bias", [-100, 100])
def test_a_bias_is_added_to_the_end_of_a_thought_alone(bias: int, server: Overheard, known: OpenAIEngine) -> None:
    """It is additive in vLLM: at +100 the thought ends with its first token, at -100 it never does."""
    options = {"think_close": ".", "n_ignore": "0", "max_think": "12", "answer_max": "4", "bias": str(bias)}
    trace = ran(server, known, "budget_forcing", STORY, most=24, **options)
    (end,) = asyncio.run(_tokens(known, "."))
    first, answer = server.asked
    assert first.body["logit_bias"] == {str(end): bias}
    assert "logit_bias" not in answer.body
    thought = next(one for one in trace.candidates if not one.parents)
    assert (thought.tokens, thought.finish) == ((1, "stop") if bias > 0 else (first.body["max_tokens"], "length"))


def test_vllm_ends_thoughts_itself_where_none_is_to_be_lengthened(server: Overheard, known: OpenAIEngine) -> None:
    """The question opens the thought, as the template of a model that thinks does; what follows in it counts, too."""
    engine = OpenAIEngine(Endpoint(server.url), replace(known.facts, thinking=True))
    before = metrics()
    how = make_strategy("budget_forcing", {"n": "2", "n_ignore": "0", "max_think": "10"})
    trace = solve(f"{STORY}\n<think> now", how, model=engine, sampling=Sampling(max_tokens=32))
    (asked,) = server.asked
    assert (asked.body["thinking_token_budget"], asked.body["max_tokens"], asked.body["n"]) == (10, 32, 2)
    assert all(one.text.count("</think>") == 1 for one in trace.candidates)
    for one in trace.candidates:
        assert len(asyncio.run(_tokens(known, one.text.partition("</think>")[0]))) <= 11
    assert since(before, WRITTEN) == trace.usage.completion


def test_trimr_reads_each_part_and_ends_the_thought(server: Overheard, known: OpenAIEngine) -> None:
    options = {"markers": " ", "think_close": "", "max_think": "12", "answer_max": "4", "m": "1"}
    ran(server, known, "trimr", STORY, most=44, **options)
    first, *others = server.asked
    assert first.body["stop"] == [" "]
    verdicts = [one for one in others if one.body.get("top_logprobs")]  # a part without a word is begun anew
    assert verdicts
    assert all((one.body["max_tokens"], one.body["top_logprobs"]) == (1, 20) for one in verdicts)
    assert any(one.path == "completions" for one in others)


def test_nothinking_begins_every_answer_with_a_thought_that_it_did_not_have(
    server: Overheard, known: OpenAIEngine
) -> None:
    trace = ran(server, known, "nothinking", QUESTION, most=12, n="3")
    (asked,) = server.asked
    prompt, put = asyncio.run(_encoded(known, QUESTION)), asyncio.run(_tokens(known, _prefill(trace)))
    assert (asked.path, asked.body["n"], asked.body["logprobs"]) == ("completions", 3, 0)
    assert asked.body["prompt"] == [*prompt, *put]


def _prefill(trace: Trace) -> str:
    return next(one.text for one in trace.candidates if "prefill" in one.address)


def test_cpt_puts_what_others_found_into_thoughts(server: Overheard, known: OpenAIEngine) -> None:
    options = {"n": "2", "every": "8", "alone": "1", "listing_tokens": "12"}
    trace = ran(server, known, "cpt", STORY, most=24, **options)
    first = server.asked[0]
    assert (first.path, first.body["n"], first.body["max_tokens"]) == ("chat/completions", 2, 8)
    listings = [one for one in server.asked[1:] if one.path == "chat/completions"]
    assert listings
    assert all((one.body["max_tokens"], one.body["temperature"]) == (12, 0) for one in listings)
    pieces = {one.id: one for one in trace.candidates}
    prompt = tuple(asyncio.run(_encoded(known, STORY)))
    further = [one for one in server.asked if one.path == "completions"]
    assert further
    for one in further:
        assert any((*prompt, *_thought(pieces, end)) == tuple(one.body["prompt"]) for end in trace.candidates)
