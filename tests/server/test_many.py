"""Much of one thing: models, keys, unfinished texts, words of a winner; each takes as long as it is large."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import EngineError, OutthinkError, PromptTooLong, Refused, UsageError, Withheld
from outthink.models.engine import Engine
from outthink.server import problems, reply
from outthink.server.keys import Keys
from outthink.server.models import Served
from outthink.server.routing import split
from outthink.types import Budget, Candidate, Round, Sampling, Trace
from tests.tools.loops import held
from tests.tools.server import ALL, Server, engine_on, run, says
from tests.tools.serving import asked, chat, serving

FOUR = "The answer is 4."


def slower(work: Callable[[int], object], size: int) -> float:
    """How many times as long eight times as much takes, by processor time."""

    def taken(size: int) -> float:
        times = []
        for _ in range(3):
            began = time.thread_time()
            work(size)
            times.append(time.thread_time() - began)
        return min(times)

    return taken(8 * size) / max(taken(size), 1e-4)


async def never(name: str) -> Engine:
    raise AssertionError(name)


def test_the_list_of_many_models_leaves_the_loop_to_others() -> None:
    models = [f"maker/model-{number}" for number in range(900)]

    async def go() -> None:
        async with Server(says(FOUR), models=models) as up:
            served = Served({"m": engine_on(up)}, up.url, never)
            async with serving(up, served=served) as (url, _), held() as loop:
                answer = await asked(url, None, method="GET", path="/v1/models")
                one = await asked(url, None, method="GET", path="/v1/models/maker/model-7+self_consistency")
                none = await asked(url, None, method="GET", path="/v1/models/maker/model-7+nothing")
                names = [entry["id"] for entry in answer.json["data"]]
                assert {"m", "m+none", *models, *(f"{model}+none" for model in models)} <= set(names)
                assert len(names) == len(set(names))
                assert (one.json["id"], none.status) == ("maker/model-7+self_consistency", 404)
        assert loop.longest < 0.25

    asyncio.run(go())


def test_what_is_opened_is_listed_with_what_it_can_do() -> None:
    async def go() -> None:
        async with Server(says(FOUR), models=("m", "k")) as up:

            async def open_one(name: str) -> Engine:
                return engine_on(up, ALL)

            async with serving(up, served=Served({}, up.url, open_one)) as (url, _):
                for known in (False, True):
                    answer = await asked(url, None, method="GET", path="/v1/models")
                    names = {entry["id"] for entry in answer.json["data"]}
                    assert ("k+rpc" in names) == known, "which needs logprobs"
                    assert (await asked(url, chat(model="k+none"))).content == FOUR

    run(go())


def test_a_name_is_looked_up_among_many_models_in_no_time() -> None:
    def looked_up(size: int) -> None:
        served = {f"maker/model-{number}": None for number in range(size)}
        with pytest.raises(UsageError):
            split("maker/model" + "x" * 500, served)

    assert slower(looked_up, 10_000) < 24


def test_a_file_of_many_keys_is_read_in_time(tmp_path: Path) -> None:
    def opened(size: int) -> None:
        path = tmp_path / str(size)
        path.write_text(
            "".join(f"k{number} {hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(size))
        )
        path.chmod(0o600)
        assert Keys.open(path).owner("7") == "k7"

    assert slower(opened, 2_000) < 24


def chain(steps: int, branches: int) -> Trace:
    """A search that was stopped before it had an answer: chains of steps."""
    candidates = []
    for branch in range(branches):
        parents: tuple[str, ...] = ()
        for step in range(steps):
            one = Candidate(
                address=("model", branch, step),
                parents=parents,
                continues=bool(parents),
                text="x" * (branch % 7 + 1),
                tokens=1,
                finish="stop",
                complete=False,
            )
            parents = (one.id,)
            candidates.append(one)
    return Trace(
        problem="p", strategy={"name": "beam"}, seed=0, sampling=Sampling(), budget=Budget(), resources={},
        candidates=tuple(candidates), rounds=(), calls=(), stopped="deadline", seconds=1.0,
    )  # fmt: skip


def test_the_longest_of_many_unfinished_texts_is_what_there_is() -> None:
    (answer,) = reply.answers(chain(5, 100), 1)
    assert answer.message["content"] == "x" * 35
    assert answer.finish == "stop"


@pytest.mark.parametrize("made", [lambda size: chain(4, size // 4), lambda size: chain(size, 1)])
def test_it_is_looked_for_in_time_that_grows_with_how_many_there_are(made: Callable[[int], Trace]) -> None:
    traces = {size: made(size) for size in (1_000, 8_000)}
    assert slower(lambda size: reply.answers(traces[size], 1), 1_000) < 32


def test_further_choices_are_those_that_were_counted_and_then_the_most_frequent_of_the_others() -> None:
    """What is no answer to the problem itself, has none, or says what is there already is no further choice."""

    def sample(place: int, key: str | None, **more: Any) -> Candidate:
        return Candidate(
            **{"address": ("model", place), "text": f"{key} {place}", "tokens": 1, "finish": "eos", **more}, key=key
        )

    counted = [sample(0, "4"), sample(1, "7"), sample(2, "4"), sample(3, None)]
    others = [
        sample(4, "5"), sample(5, "6"), sample(6, "6"), sample(7, "4"), sample(8, None),
        sample(9, "9", address=("judge", 9)), sample(10, "8", complete=False, finish="length"),
    ]  # fmt: skip
    last = Round(candidates=tuple(one.id for one in counted), chosen=counted[0].id, answer="4", key="4")
    trace = replace(chain(0, 0), candidates=(*counted, *others), rounds=(last,), stopped="finished")
    texts = [str(answer.message["content"]) for answer in reply.answers(trace, 9)]
    assert texts == ["4 0", "7 1", "6 5", "5 4"]
    assert len(reply.answers(trace, 2)) == 2
    names = (*last.candidates, others[0].id)
    scored = replace(last, candidates=names, scores=(0.9, 0.2, 0.8, None, 0.5))
    by_score = reply.answers(replace(trace, rounds=(scored,)), 9)
    assert [answer.message["content"] for answer in by_score] == ["4 0", "5 4", "7 1", "6 5"]


def test_a_long_winner_comes_in_few_pieces_and_whole() -> None:
    for size in (10, 10_000, 100_000):
        text = "so it is " * size
        pieces = list(reply.pieces(reply.Answer(message={"content": text}, finish="stop", visible=1)))
        assert "".join(piece["delta"].get("content") or "" for piece in pieces) == text
        assert len(pieces) < 12_000


ADDRESSES = [
    "http://10.1.2.3:8000/v1 answered 500: proxy http://inner.example:9/x?key=1",
    "Cannot connect to host vllm:8000 ssl:default [Connect call failed ('10.1.2.3', 8000)]",
    "https://[fd00::1:2]:8443/v1 sent nothing for 20 s.",
    "Cannot connect to host fd00::1:2 or llm-backend:8000",
    "https://user:secret@inner.example/v1 broke the connection off",
    "upstream connect error: llm.prod.internal, node7.svc, cache.local; localhost:6379; localhost",
]
FAILURES: dict[str, Callable[[str], Any]] = {
    "refused": lambda words: Refused(words, 400),
    "not reached": Refused,
    "kept back": Withheld,
    "failed": EngineError,
    "not possible": UsageError,
    "too long": PromptTooLong,
    "another": OutthinkError,
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("words", ADDRESSES)
def test_no_error_says_where_the_upstream_is(words: str, failure: Callable[[str], OutthinkError]) -> None:
    said = problems.problem(failure(words)).sentence
    for part in ("10.1.2.3", "8000", "inner", "vllm:", "fd00", "secret", "backend", "svc", ".local", "localhost"):
        assert part not in said, said
    assert "the upstream" in said


@pytest.mark.parametrize(
    "words", ["gpt-4.1-mini and qwen2.5:7b do not exist", "max_tokens:5000 is too large: 4096", "a ratio of 1:2 at 0.5"]
)
def test_other_words_of_an_error_stay(words: str) -> None:
    assert problems.problem(Refused(words, 400)).sentence == f"The upstream refused: {words}"
