"""What the probe finds out about a server: what it does, never what it says; and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import outthink
from outthink.errors import EngineError, OutthinkError, Refused, UnknownName, UsageError
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.facts import Facts
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.probe import Probe, probe, probe_and_remember, probed
from outthink.types import Usage
from tests.tools.server import (
    ALL,
    NUMBERS,
    Ask,
    Fault,
    Said,
    Server,
    ask_for,
    counting,
    engine_on,
    generated,
    run,
    says,
    threaded,
)

HONEST = replace(ALL, cached=False, salt=False)


def probe_on(server: Server, model: str = "") -> Probe:
    async def go() -> Probe:
        async with server:
            endpoint = Endpoint(server.url)
            try:
                return await probe(endpoint, model)
            finally:
                await endpoint.close()

    return run(go())


def facts(server: Server) -> Facts:
    return probe_on(server).facts


def bending(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], Any]:
    def bend(answer: dict[str, Any]) -> Any:
        change(answer)
        return answer

    return bend


# ---------------------------------------------------------------- each ability


def test_a_server_that_does_everything() -> None:
    found_out = probe_on(Server(caches=True))
    assert replace(found_out.facts, abort=None) == ALL
    assert found_out.facts.abort == pytest.approx(0, abs=0.2)
    assert found_out.facts.powers == {"logprobs", "labels", "top_logprobs", "prefix", "tokens", "logit_bias"}
    assert found_out.notes == []


def test_a_server_that_does_nothing_but_answer() -> None:
    fields = ("n", "stream", "stream_options", "logprobs", "top_logprobs", "seed", "stop", "return_token_ids")
    more = ("include_stop_str_in_output", "continue_final_message", "add_generation_prompt", "priority")
    for kind in ("ignores", "refuses"):
        server = Server(lacks={"tokenize", "metrics", "completions"}, context=None, **{kind: {*fields, *more}})  # type: ignore[arg-type]
        assert facts(server) == Facts(model="m")


ABILITIES: dict[str, tuple[str, dict[str, Any]]] = {
    "n": ("n", {"n": False}),
    "stream": ("stream", {"stream": False, "abort": None}),
    "usage of streams": ("stream_options", {"stream": False, "abort": None}),
    "logprobs": ("logprobs", {"logprobs": False, "labels": 0}),
    "likeliest": ("top_logprobs", {"labels": 0}),
    "seed": ("seed", {"seed": False}),
    "stop": ("stop", {"stop": None}),
    "kept stop": ("include_stop_str_in_output", {"stop": "told"}),
    "ids": (
        "return_token_ids",
        {"token_ids": False, "tokens": False, "prefix": "text", "abort": None, "logit_bias": False},
    ),
    "priority": ("priority", {"priority": False}),
    "bias": ("logit_bias", {"logit_bias": False}),
}


@pytest.mark.parametrize("kind", ["ignores", "refuses"])
@pytest.mark.parametrize(("field", "missing"), ABILITIES.values(), ids=ABILITIES.keys())
def test_what_is_ignored_or_refused_is_missing_and_nothing_else(field: str, missing: dict[str, Any], kind: str) -> None:
    expected = {"abort": 0.0, **missing}
    server = Server(refuses={field}) if kind == "refuses" else Server(ignores={field})
    got = facts(server)
    if got.abort is not None:
        got = replace(got, abort=0.0)
    assert got == replace(HONEST, **expected)


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("tokenize", {"tokenize": False, "tokens": False, "prefix": "text", "logit_bias": False}),
        ("detokenize", {"tokens": False, "logit_bias": False}),
        ("completions", {"prefix": "text"}),
        ("metrics", {}),
    ],
)
def test_a_path_that_is_not_there_is_missing(path: str, missing: dict[str, Any]) -> None:
    got = facts(Server(lacks={path}))
    assert replace(got, abort=None) == replace(HONEST, **missing)
    assert (got.abort is None) == (path == "metrics")


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("kind", ["ignores", "refuses"])
def test_a_limit_of_thoughts_is_an_ability_only_where_it_lets_the_answer_come(kind: str, shown: bool) -> None:
    thought = " ".join(NUMBERS * 2)

    def reply(ask: Ask) -> Said:
        kept = thought if "thinking_token_budget" not in ask.body else NUMBERS[0]
        if shown:
            return Said(text=f"<think>\n{kept}\n</think>\n\nOne, two")
        return Said(thoughts=thought, text="One, two")

    ignored = {"ignores": {"thinking_token_budget"}, "refuses": {"thinking_token_budget"}}
    assert facts(Server(reply)).thinking
    assert "thinking_budget" in facts(Server(reply)).powers
    assert not facts(Server(reply, **{kind: ignored[kind]})).thinking  # type: ignore[arg-type]


def test_a_model_whose_first_tokens_are_all_thoughts_is_known_by_these() -> None:
    """As of vLLM with a parser of thoughts: what is told of an answer is empty, however it is asked."""

    def reply(ask: Ask) -> Said:
        words = NUMBERS[:]
        if ask.temperature > 0:
            ask.rng.shuffle(words)
        return Said(thoughts=" ".join(words * 2), text="One, two")

    got = facts(Server(reply, ignores={"thinking_token_budget"}))
    assert replace(got, abort=None) == replace(ALL, salt=got.salt, cached=got.cached)
    assert got.powers >= {"prefix", "tokens", "logit_bias", "top_logprobs"}


@pytest.mark.parametrize("kind", ["ignores", "refuses"])
def test_an_answer_that_is_not_gone_on_with(kind: str) -> None:
    fields = {"continue_final_message", "add_generation_prompt"}
    server = Server(lacks={"completions"}, ignores=fields if kind == "ignores" else ())
    server.refuses = fields if kind == "refuses" else ()
    assert facts(server).prefix is None


def test_one_that_answers_to_its_own_beginning_does_not_go_on_with_it() -> None:
    def reply(ask: Ask) -> str:
        return ", ".join(NUMBERS) if not ask.prefix else "Well done! five, six"

    assert facts(Server(reply, lacks={"completions"})).prefix is None


CAPS = {"max_completion_tokens", "max_tokens"}


@pytest.mark.parametrize("cap", sorted(CAPS))
@pytest.mark.parametrize("plain", [True, False])
def test_the_cap_has_two_names_and_temperature_may_be_refused(cap: str, plain: bool) -> None:
    """As some reasoning models do; every request then goes without it."""
    refuses = CAPS - {cap} | ({"temperature"} if plain else set())

    async def go() -> None:
        async with Server(refuses=refuses, lacks={"completions"}) as server:
            endpoint = Endpoint(server.url)
            got = (await probe(endpoint)).facts
            await endpoint.close()
            assert (got.cap, got.plain, got.capped) == (cap, plain, True)
            engine = engine_on(server, got)
            progress = await generated(engine, ask_for(2, max_tokens=5))
            await engine.close()
            assert progress.tokens == [5, 5]
            sent = server.asked[-1].body
            assert (cap in sent, "temperature" in sent, "top_p" in sent) == (True, not plain, not plain)

    run(go())


def test_a_cap_that_is_ignored_gives_way_to_the_other_one() -> None:
    got = facts(Server(ignores={"max_tokens"}))
    assert (got.cap, got.capped) == ("max_completion_tokens", True)


def test_a_server_without_a_cap_is_told() -> None:
    result = probe_on(Server(ignores={"max_tokens", "max_completion_tokens"}))
    assert (result.facts.capped, result.facts.plain) == (False, False)
    assert "It ignores the most tokens of an answer: budgets will be overrun." in result.notes


def test_a_server_without_usage_is_told_and_may_stream_all_the_same() -> None:
    result = probe_on(Server(hides={"usage"}))
    assert "It reports no usage, so every call is charged at its worst case." in result.notes
    assert (result.facts.stream, result.facts.n, result.usage.prompt) == (True, True, 0)


@pytest.mark.parametrize(("most", "labels"), [(20, 20), (12, 10), (5, 5), (1, 0)])
def test_labels_are_as_many_as_it_gives(most: int, labels: int) -> None:
    class Limited(Server):
        def _prompt(self, body: dict[str, Any]) -> list[int]:
            if body.get("top_logprobs", 0) > most:
                raise LookupError
            return super()._prompt(body)

        async def _handle(self, request: Any) -> Any:
            try:
                return await super()._handle(request)
            except LookupError:
                return web.json_response({"error": {"message": "top_logprobs is too high"}}, status=400)

    got = facts(Limited())
    assert (got.logprobs, got.labels) == (True, labels)


def test_a_stop_string_that_is_not_told_is_no_end_of_a_step() -> None:
    got = facts(Server(hides={"stop_reason"}))
    assert (got.stop, "prefix" in got.powers) == ("cut", False)


def test_the_name_that_sglang_gives_to_what_stopped() -> None:
    def rename(answer: dict[str, Any]) -> None:
        for choice in answer["choices"]:
            if "stop_reason" in choice:
                choice["matched_stop"] = choice.pop("stop_reason")

    got = facts(Server(bend=bending(rename)))
    assert (got.stop, got.priority) == ("kept", False)  # SGLang serves the highest priority first, not the lowest


def test_one_answer_several_times_is_not_several_answers() -> None:
    """A server that gives all choices of one seed the same text would vote with clones."""

    class Cloning(Server):
        def _choice(self, body: dict[str, Any], ids: list[int], index: int) -> Any:
            choice = super()._choice(body, ids, 0 if "seed" in body else index)
            choice.index = index
            return choice

    result = probe_on(Cloning())
    assert (result.facts.n, result.facts.seed) == (False, True)
    assert any("all the same" in note for note in result.notes)


@pytest.mark.parametrize("index", [0, None])
def test_answers_without_numbers_are_asked_for_alone(index: int | None) -> None:
    def same(answer: dict[str, Any]) -> None:
        for choice in answer["choices"]:
            if "message" in choice:
                choice["index"] = index if len(answer["choices"]) > 1 else 0

    assert not facts(Server(bend=bending(same))).n


def test_one_that_always_says_the_same_honours_no_seed() -> None:
    def reply(ask: Ask) -> str:
        return counting(replace(ask, temperature=0.0))

    assert not facts(Server(reply)).seed


def test_one_that_says_something_else_each_time_is_not_believed_to_stop() -> None:
    got = facts(Server(refuses={"temperature"}, ignores={"stop"}))
    assert (got.plain, got.stop) == (True, None)


@pytest.mark.parametrize("said", ["", "42", "ok ok ok ok ok ok ok ok"])
def test_one_that_says_too_little_is_not_believed_to_stop(said: str) -> None:
    result = probe_on(Server(says(said)))
    assert result.facts.stop is None
    assert result.notes == ["It says too little to find out what it does with stop strings."]


def test_cached_prompts_are_seen() -> None:
    assert facts(Server(caches=True)).cached
    assert not facts(Server(caches=False)).cached


@pytest.mark.parametrize("kind", ["ignores", "refuses"])
def test_a_salt_without_effect_is_missing(kind: str) -> None:
    server = Server(caches=True)
    setattr(server, kind, {"cache_salt"})
    got = facts(server)
    assert (got.cached, got.salt) == (True, False)


def test_salts_are_new_ones_each_time() -> None:
    """Else the second probe of a server would find the prompts of the first one in its cache."""

    async def go() -> None:
        async with Server(caches=True) as server:
            endpoint = Endpoint(server.url)
            assert [(await probe(endpoint)).facts.salt for _ in range(2)] == [True, True]
            await endpoint.close()

    run(go())


@pytest.mark.parametrize("hits", [(0, 0, 0), (0, 0, 5), (0, 5, 5), (5, 0, 0), (5, 0, 5), (5, 5, 0), (5, 5, 5)])
def test_a_cache_that_hits_or_misses_for_another_reason_shows_no_salt(hits: tuple[int, int, int]) -> None:
    """As behind a balancer, where another prompt has taken the place of ours, or where a salt means no cache."""
    salted = 0

    def change(answer: dict[str, Any]) -> None:
        answer["usage"]["prompt_tokens_details"]["cached_tokens"] = (5, *hits)[salted]

    class Restless(Server):
        def _written(self, body: dict[str, Any], seen: Any) -> Any:
            nonlocal salted
            salted += "cache_salt" in body
            return super()._written(body, seen)

    got = facts(Restless(bend=bending(change)))
    assert (got.cached, got.salt, salted) == (True, False, 3)


def test_without_a_cache_to_be_seen_no_salt_is_asked_for() -> None:
    server = Server()
    assert not facts(server).salt
    assert not any("cache_salt" in seen.body for seen in server.asked)


@pytest.mark.parametrize("status", [200, 500])
def test_only_a_refusal_of_nonsense_shows_that_a_priority_is_read(status: int) -> None:
    """An error inside a 200, or a server that breaks at a word, may have come from anywhere."""

    class Failing(Server):
        async def _answer(self, request: web.Request, seen: Any) -> web.StreamResponse:
            if isinstance((seen.body or {}).get("priority"), str):
                return web.json_response({"error": {"message": "something went wrong"}}, status=status)
            return await super()._answer(request, seen)

    got = facts(Failing())
    assert (got.priority, got.n, got.stream, got.prefix) == (False, True, True, "ids")


def test_a_priority_that_is_switched_off_is_missing() -> None:
    """As vLLM once answered without --scheduling-policy priority: any number but 0 is refused."""

    class Unordered(Server):
        async def _answer(self, request: web.Request, seen: Any) -> web.StreamResponse:
            if (seen.body or {}).get("priority", 0) != 0:
                return web.json_response({"error": {"message": "Priority scheduling is not enabled."}}, status=400)
            return await super()._answer(request, seen)

    assert not facts(Unordered()).priority


@pytest.mark.parametrize("overhead", [0, 400])
def test_the_overhead_of_a_prompt_is_measured(overhead: int) -> None:
    def longer(answer: dict[str, Any]) -> None:
        if answer.get("usage"):
            answer["usage"]["prompt_tokens"] += overhead

    got = facts(Server(bend=bending(longer), lacks={"tokenize"}))
    assert got.overhead >= max(64, overhead)


def test_closing_a_connection_that_does_not_end_the_work_is_told() -> None:
    class Stubborn(Server):
        async def _handle(self, request: Any) -> Any:
            try:
                return await super()._handle(request)
            except (asyncio.CancelledError, ConnectionError):
                self.running += 1
                raise

    result = probe_on(Stubborn(pace=0.1))
    assert result.facts.abort is None
    assert "Closing a connection does not end the work: cancelled samples go on." in result.notes


def test_a_field_that_breaks_the_server_is_missing() -> None:
    """Some answer 500 to a field that they do not know."""

    class Breaking(Server):
        def _prompt(self, body: dict[str, Any]) -> list[int]:
            if "return_token_ids" in body:
                raise RuntimeError("unexpected keyword argument")
            return super()._prompt(body)

    got = facts(Breaking())
    assert (got.token_ids, got.prefix, got.n, got.stream) == (False, "text", True, True)


@pytest.mark.parametrize("status", [200, 403, 500])
def test_a_field_that_is_answered_with_an_error_is_missing(status: int) -> None:
    class Forbidding(Server):
        async def _answer(self, request: web.Request, seen: Any) -> web.StreamResponse:
            if "logprobs" in (seen.body or {}):
                return web.json_response({"error": {"message": "not for this model"}}, status=status)
            return await super()._answer(request, seen)

    got = facts(Forbidding())
    assert (got.logprobs, got.labels, got.n, got.stream, got.prefix) == (False, 0, True, True, "ids")


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_model_that_refuses_short_answers_is_asked_for_longer_ones(field: str) -> None:
    """As one that must think first may."""

    class Thinking(Server):
        async def _answer(self, request: web.Request, seen: Any) -> web.StreamResponse:
            if seen.path == "chat/completions" and seen.body.get(field, 0) < 16:
                return web.json_response({"error": {"message": "too few tokens to think"}}, status=400)
            return await super()._answer(request, seen)

    got = facts(Thinking())
    assert (got.cap, got.plain, got.capped) == (field, False, True)
    assert (got.n, got.stream, got.logprobs, got.labels, got.seed, got.stop) == (True, True, True, 20, True, "kept")


@pytest.mark.parametrize("strange", [5, "a", [1], {"a": 1}, None, 1e400])
@pytest.mark.parametrize("where", ["logprobs", "token_ids", "stop_reason", "finish_reason", "delta", "usage"])
def test_an_answer_of_another_shape_is_no_crash(where: str, strange: object) -> None:
    def change(answer: dict[str, Any]) -> None:
        if where == "usage":
            answer["usage"] = strange
        for choice in answer["choices"]:
            if where in choice:
                choice[where] = strange

    got = facts(Server(bend=bending(change)))
    assert (got.model, got.tokenize) == ("m", where != "usage")


# ---------------------------------------------------------------- which model


def test_the_only_model_needs_no_name() -> None:
    assert facts(Server(models=["org/model 7%#x"])).model == "org/model 7%#x"


def test_of_several_models_one_must_be_named() -> None:
    with pytest.raises(UsageError, match=r"serves 2 models: add #MODEL to the address \(a, b\)"):
        probe_on(Server(models=["b", "a"]))
    with pytest.raises(UsageError, match=r"serves 0 models: add #MODEL to the address \(none\)"):
        probe_on(Server(models=[]))
    assert probe_on(Server(models=["b", "a"]), "b").facts.model == "b"


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no model at http://.* 'qwen-7'; did you mean 'qwen-7b'"):
        probe_on(Server(models=["qwen-7b", "llama"]), "qwen-7")


def test_without_a_list_the_name_is_taken_as_it_is() -> None:
    result = probe_on(Server(lacks={"models"}), "m")
    assert (result.facts.model, result.facts.context) == ("m", None)
    with pytest.raises(UsageError, match="has no list of models: write its address"):
        probe_on(Server(lacks={"models"}))
    with pytest.raises(Refused, match="answered 404: The model x does not exist"):
        probe_on(Server(lacks={"models"}), "x")


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"{}", b'{"data": 5}', b'{"data": ["m"]}', b'{"data": [{"name": "m"}]}', b'"x"']
)
def test_what_is_no_list_of_models_is_an_error_with_a_sentence(body: bytes) -> None:
    class Other(Server):
        async def _answer(self, request: Any, seen: Any) -> Any:
            return await self._send(request, seen, Fault(body=body), [body])

    with pytest.raises(EngineError, match="is not a list of models: is this the address of an API"):
        probe_on(Other())


def test_a_server_that_does_not_chat_is_told_in_its_words() -> None:
    with pytest.raises(Refused, match="answered 422: no chat template"):
        probe_on(Server(always=Fault(status=422, body=b'{"detail": "no chat template"}')))
    with pytest.raises(EngineError, match="without an answer"):
        probe_on(Server(always=Fault(body=b'{"choices": []}')))
    with pytest.raises(Refused, match="answered 401"):
        probe_on(Server(key="right"))


@pytest.mark.parametrize(
    ("said", "context"), [(4096, 4096), (None, None), (0, None), (-1, None), ("4096", None), (True, None)]
)
def test_the_context_is_what_the_server_says_if_it_can_be(said: Any, context: int | None) -> None:
    assert facts(Server(context=said)).context == context


# ---------------------------------------------------------------- what it costs


def test_the_cost_is_what_the_server_counted() -> None:
    server = Server()
    result = probe_on(server)
    aborted = server.asked[-1]
    assert aborted.body["ignore_eos"]
    assert result.requests == len(server.asked) + sum(seen.path.endswith("tokenize") for seen in server.seen)
    assert result.usage == Usage(prompt=server.prompt, completion=server.made - aborted.made + 1)
    assert result.usage.tokens < 3000
    assert result.requests <= 20


# ---------------------------------------------------------------- memory


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "endpoints"


@pytest.fixture
def server() -> Iterator[Server]:
    with threaded(Server()) as started:
        yield started


def test_a_server_is_asked_once_a_week(cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    first = OpenAIEngine.open(server.url).facts
    asked = len(server.asked)
    assert asked > 5
    assert OpenAIEngine.open(server.url + "/").facts == OpenAIEngine.open(server.url + "#m").facts == first
    assert len(server.asked) == asked
    now = time.time()
    monkeypatch.setattr("outthink.models.probe.time.time", lambda: now + 6.9 * 86400)
    probed(server.url)
    assert len(server.asked) == asked
    monkeypatch.setattr("outthink.models.probe.time.time", lambda: now + 7.1 * 86400)
    probed(server.url)
    assert len(server.asked) == 2 * asked


def test_it_is_asked_again_if_that_is_wanted(cache: Path, server: Server) -> None:
    old = OpenAIEngine.open(server.url).facts
    server.refuses = {"n"}
    assert OpenAIEngine.open(server.url).facts == old
    assert OpenAIEngine.open(server.url, fresh=True).facts.n is False
    assert OpenAIEngine.open(server.url).facts.n is False
    server.refuses = ()
    assert asyncio.run(probe_and_remember(server.url)).facts.n
    assert OpenAIEngine.open(server.url).facts.n


def test_another_model_at_the_same_address_is_another_one(cache: Path, server: Server) -> None:
    assert OpenAIEngine.open(server.url).facts.model == "m"
    server.models, server.context = ["other"], 99
    assert OpenAIEngine.open(server.url).facts.model == "other"
    server.models = ["m"]
    asked = len(server.asked)
    assert (OpenAIEngine.open(server.url).facts.model, OpenAIEngine.open(server.url).facts.context) == ("m", 99)
    assert len(server.asked) == asked
    server.models = ["m", "other"]
    with pytest.raises(UsageError, match="add #MODEL"):
        OpenAIEngine.open(server.url)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"schema": 0}', "\x00\x01", "schema", "facts", "field", "at"]
)
def test_a_damaged_memory_is_asked_again(damage: str, cache: Path, server: Server) -> None:
    first = OpenAIEngine.open(server.url).facts
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    changes: dict[str, dict[str, Any]] = {
        "schema": {"schema": -1},
        "facts": {"facts": {}},
        "field": {"facts": {**kept["facts"], "cap": "x"}},
        "at": {"at": "x"},
    }
    file.write_text(json.dumps({**kept, **changes[damage]}) if damage in changes else damage)
    asked = len(server.asked)
    assert replace(OpenAIEngine.open(server.url).facts, abort=first.abort) == first
    assert len(server.asked) == 2 * asked
    assert json.loads(file.read_text())["facts"]["model"] == "m"


def test_where_nothing_can_be_kept_it_is_asked_each_time(cache: Path, server: Server) -> None:
    OpenAIEngine.open(server.url)
    asked = len(server.asked)
    (file,) = cache.iterdir()
    file.unlink()
    file.mkdir()
    OpenAIEngine.open(server.url)
    file.rmdir()
    cache.rmdir()
    cache.write_text("")
    OpenAIEngine.open(server.url)
    assert len(server.asked) == 3 * asked


def test_nothing_is_kept_of_a_probe_that_failed(cache: Path, server: Server) -> None:
    server.always = Fault(status=400)
    with pytest.raises(EngineError):
        OpenAIEngine.open(server.url)
    assert not cache.exists()


def test_a_name_may_hold_slashes_blanks_and_percent_signs(cache: Path, server: Server) -> None:
    names = ["org/a", "org/a b", "50%", "a#b", "a%20b", "ü"]
    server.models = names
    for written in (
        "org/a",
        "org%2Fa",
        "org/a%20b",
        "org/a b",
        "50%25",
        "50%",
        "a%23b",
        "a#b",
        "a%2520b",
        "ü",
        "%C3%BC",
    ):
        assert OpenAIEngine.open(f"{server.url}#{written}").spec.name in names
    assert len(list(cache.iterdir())) == len(names)


def test_it_can_be_opened_while_an_event_loop_runs(cache: Path, server: Server) -> None:
    async def go() -> OpenAIEngine:
        return OpenAIEngine.open(server.url)

    engine = asyncio.run(go())
    trace = outthink.solve("What is 1+1?", "greedy", model=engine)
    assert len(trace.candidates) == 1
    asyncio.run(engine.close())


def test_it_can_be_opened_by_its_address(cache: Path, server: Server) -> None:
    trace = outthink.solve("What is 1+1?", "greedy", model=server.url + "#m")
    assert (trace.resources, len(trace.candidates)) == ({"model": "m"}, 1)
    assert isinstance(outthink.open_engine(server.url), OpenAIEngine)


def test_what_was_asked_and_what_is_worth_knowing_is_logged(
    cache: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.ignores = {"stop"}
    with caplog.at_level(logging.INFO, "outthink"):
        OpenAIEngine.open(server.url)
        OpenAIEngine.open(server.url)
    asked, note = (record for record in caplog.records if record.name == "outthink.models.probe")
    assert asked.getMessage().startswith(f"Asked {server.url} what it can do: ")
    assert (note.levelno, "ignores stop strings" in note.getMessage()) == (logging.WARNING, True)


def test_a_server_that_is_not_there_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with threaded(Server()) as gone:
        pass
    with pytest.raises(EngineError, match="is the server running"):
        OpenAIEngine.open(gone.url, patience=Patience(attempts=1))


def test_what_is_no_address_is_told(cache: Path) -> None:
    for url in ("http://", "http://h:x/v1#m", "https://#m"):
        with pytest.raises(OutthinkError, match="is not the address of a server"):
            outthink.open_engine(url)
