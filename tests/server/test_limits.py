"""Limits of keys over HTTP: what callers are told, what is counted for whom, and that changes count at once."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.records.runs import read_results
from outthink.server.accounts import Accounts
from outthink.server.allowances import read_allowances
from outthink.server.book import Book, spent
from outthink.server.gate import Gate
from outthink.server.keys import Keys, limit_key, make_key, revoke_key
from outthink.server.record import Recorder
from tests.cli.test_cli import main
from tests.server.test_accounts import Inline, Wall
from tests.tools.server import Fault, Server, run, says
from tests.tools.serving import Answer, asked, chat, counted, serving

FOUR = "The answer is 4."
SC, NONE = "m+self_consistency", "m+none"


def keys(**limits: str) -> Keys:
    """Keys whose text is their name."""
    digests = {name: hashlib.sha256(name.encode()).digest() for name in limits}
    return Keys(digests, {name: read_allowances(text) for name, text in limits.items()})


def parts(path: Path, **limits: str) -> dict[str, Any]:
    return {"keys": keys(**limits), "accounts": lambda: Accounts(partial(Book, path), clock=Wall(), executor=Inline())}


async def ask(url: str, name: str, text: str = "What is 2+2?", /, **fields: Any) -> Answer:
    return await asked(url, chat(text, **fields), headers=[("Authorization", f"Bearer {name}")])


async def measured(url: str, name: str = "metrics") -> Answer:
    return await asked(url, None, method="GET", path="/metrics", headers=[("Authorization", f"Bearer {name}")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spent"


def test_a_limit_on_requests_is_told_as_openai_tells_it(path: Path) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up, **parts(path, ann="2-requests/minute", bob="")) as (url, _):
            answers = [await ask(url, "ann", model=NONE) for _ in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 429]
            assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
            assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
            assert answers[2].headers["retry-after"] == "40"
            assert answers[2].headers["x-ratelimit-reset-requests"] == "40s"
            assert (answers[2].error["type"], answers[2].error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            other = await ask(url, "bob", model=NONE)
            assert other.status == 200
            assert not [name for name in other.headers if name.startswith("x-ratelimit")]
            assert len(up.asked) == 3

    run(go())


def test_a_request_gets_what_is_left_and_the_next_one_hears_when_there_is_more(path: Path) -> None:
    """A sample may take 110 tokens at most and takes about 15: eight fit a day of 500, if not all at once."""

    async def go() -> None:
        limits = {"ann": "500-tokens/day"}
        async with Server(says(FOUR)) as up, serving(up, **parts(path, **limits)) as (url, _):
            told = []
            while (
                answer := await ask(url, "ann", model=SC, max_tokens=20, outthink={"n": 8, "answer": "math"})
            ).status == 200:
                told.append(answer.json["outthink"])
            assert told[0]["samples"] == 8
            assert told[-1]["samples"] < 8
            assert told[-1]["stopped"] == "budget"
            assert told[-1]["budget"]["tokens"] < 500
            assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
            assert answer.error["message"].startswith("The key ann has a limit of 500 tokens a day, which is used up")
            assert 0 < int(answer.headers["retry-after"]) <= 40
            charged = sum(one["cost"]["tokens"] for one in told)
            assert charged <= 500
            too_long = await ask(url, "ann", "word " * 600, model=NONE, max_tokens=20)
            assert (too_long.status, too_long.error["code"]) == (400, "budget_too_small")
            sums.append(charged)

    sums: list[float] = []
    run(go())
    ((charged, taken),) = spent(path).values()
    assert charged == taken == sums[0]


def test_a_burst_with_large_worst_cases_is_answered(path: Path) -> None:
    """Twenty requests at once, of which two would fit if each took what it may."""

    async def go() -> None:
        limits = {"ann": "2400-tokens/day"}
        slow = Fault(before=0.2)
        async with Server(says(FOUR), always=slow) as up, serving(up, **parts(path, **limits)) as (url, _):
            answers = await asyncio.gather(*(ask(url, "ann", model=NONE, max_tokens=900) for _ in range(20)))
            assert {answer.status for answer in answers} == {200}

    run(go())


def test_who_waits_for_others_to_the_end_is_told_to_come_again(path: Path) -> None:
    async def go() -> None:
        async with (
            Server(says(FOUR), always=Fault(before=30)) as up,
            serving(up, **parts(path, ann="1200-tokens/day")) as (url, _),
        ):
            first = asyncio.create_task(ask(url, "ann", model=NONE, max_tokens=900))
            await asyncio.sleep(1)
            late = await ask(url, "ann", model=NONE, max_tokens=900, outthink={"budget": {"seconds": 2}})
            assert (late.status, late.error["code"], late.headers["retry-after"]) == (429, "busy", "1")
            assert (await first).status == 200

    run(go())


def test_so_many_requests_at_once(path: Path) -> None:
    async def go() -> None:
        slow = Fault(before=1.0)
        async with Server(says(FOUR), always=slow) as up, serving(up, **parts(path, ann="2-concurrent")) as (url, _):
            answers = await asyncio.gather(*(ask(url, "ann", model=NONE) for _ in range(3)))
            assert sorted(answer.status for answer in answers) == [200, 200, 429]
            refused = next(answer for answer in answers if answer.status == 429)
            assert "2 requests at once, and all of them are running" in refused.error["message"]
            assert (await ask(url, "ann", model=NONE)).status == 200
            bad = [await ask(url, "ann", model="m+nothing") for _ in range(3)]  # which hold no place
            assert [answer.status for answer in bad] == [400] * 3
            quotes = [
                await asked(url, chat(), path="/v1/quote", headers=[("Authorization", "Bearer ann")]) for _ in range(3)
            ]
            assert [answer.status for answer in quotes] == [200] * 3
            assert (await ask(url, "ann", model=NONE)).status == 200

    run(go())


def test_what_cannot_be_counted_is_not_served(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outthink.server.book._PATIENCE", 0.0)

    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up, **parts(path, ann="9000-tokens/day", bob="")) as (url, _):
            assert (await ask(url, "ann", model=NONE)).status == 200
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            sent = len(up.asked)
            refused = await ask(url, "ann", model=NONE)
            assert (refused.status, refused.error["code"]) == (503, "spending_unknown")
            assert str(path) not in refused.body.decode()
            assert len(up.asked) == sent
            assert (await ask(url, "bob", model=NONE)).status == 200
            other.close()
            await asyncio.sleep(2)
            assert (await ask(url, "ann", model=NONE)).status == 200

    run(go())


def test_a_limit_in_dollars_needs_a_price(path: Path) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up, **parts(path, ann="1usd/day")) as (url, _):
            refused = await ask(url, "ann", model=NONE)
            assert refused.status == 400
            assert "what this model costs is not known" in refused.error["message"]
            assert not up.asked

    run(go())


def test_every_token_has_a_key(path: Path, tmp_path: Path) -> None:
    """In the metrics the tokens of keys and of shadows are all tokens; what is recorded says whose it is."""

    async def go() -> None:
        with Recorder(tmp_path / "kept", {"kind": "traffic"}, {"kind": "traffic"}) as recorder:
            own = {**parts(path, ann="", bob="9k-tokens/day", metrics=""), "recorder": recorder}
            shadows = {"shadow": 1.0, "alternative": "none"}
            async with Server(says(FOUR)) as up, serving(up, settings=shadows, **own) as (url, service):
                for name in ("ann", "bob", "bob"):
                    assert (await ask(url, name, model=SC, outthink={"n": 2, "answer": "math"})).status == 200
                await asyncio.gather(*service.running.tasks)
                values = counted(service)
                tokens = {name: value for name, value in values.items() if name.startswith("outthink_key_tokens_total")}
                assert {name.split()[1] for name in tokens} == {"ann", "bob", "(shadow)"}
                total = sum(value for name, value in values.items() if name.startswith("outthink_tokens_total"))
                assert sum(tokens.values()) == total > 0
                assert values["outthink_key_requests_total bob 200"] == 2
                refused = await measured(url, "bob")
                assert (refused.status, refused.error["code"]) == (403, "wrong_key")
                assert (await ask(url, "metrics")).status == 403
                text = (await measured(url)).body.decode()
                assert 'key="bob"' in text
                assert (await asked(url, None, method="GET", path="/metrics")).status == 401
            assert up.made

    run(go())
    owners = [[result.owner for result in read_results(tmp_path / "kept" / part)] for part in ("served", "shadow")]
    assert [sorted(map(str, names)) for names in owners] == [["ann", "bob", "bob"], ["ann", "bob", "bob"]]


# ---------------------------------------------------------------- changes while it serves


def test_changes_count_for_the_next_request_and_those_that_run_go_on(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "keys"
    held = {name: make_key(file, name)[1] for name in ("ann", "bob")}

    async def go() -> None:
        opened: list[Accounts] = []

        def accounts() -> Accounts:
            opened.append(Accounts(partial(Book, path), clock=Wall(), executor=Inline()))
            return opened[-1]

        own: dict[str, Any] = {"keys": Keys.open(file), "accounts": accounts}
        async with Server(says(FOUR), always=Fault(before=5.0)) as up, serving(up, **own) as (url, service):
            running = asyncio.create_task(ask(url, held["ann"], model=NONE))
            await asyncio.sleep(1)
            assert not opened  # nobody has limits
            revoke_key(file, "ann")
            limit_key(file, "bob", read_allowances("1-requests/minute"))
            _, cat = make_key(file, "cat")
            service.reload()
            assert (await ask(url, held["ann"], model=NONE)).status == 401
            assert (await running).status == 200
            assert [(await ask(url, held["bob"], model=NONE)).status for _ in range(2)] == [200, 429]
            assert (await ask(url, cat, model=NONE)).status == 200
            damage(file)
            service.reload()
            assert (await ask(url, cat, model=NONE)).status == 200
            file.write_text("# nobody\n", encoding="utf-8")  # as when the last key is revoked
            service.reload()
            assert (await ask(url, cat, model=NONE)).status == 401

    run(go())


def test_a_revocation_counts_also_where_nothing_can_be_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file of what is spent cannot be opened when the first limits come; once it can be, they are kept."""
    file, spending = tmp_path / "keys", tmp_path / "away" / "spent"
    held = {name: make_key(file, name)[1] for name in ("ann", "bob", "cat")}

    async def go() -> None:
        own: dict[str, Any] = {
            "keys": Keys.open(file),
            "accounts": lambda: Accounts(partial(Book, spending), clock=Wall(), executor=Inline()),
        }

        async def statuses() -> list[int]:
            return [(await ask(url, held[name], model=NONE)).status for name in held]

        async with Server(says(FOUR)) as up, serving(up, **own) as (url, service):
            assert await statuses() == [200, 200, 200]
            revoke_key(file, "ann")
            limit_key(file, "bob", read_allowances("1-requests/minute"))
            service.reload()
            assert await statuses() == [401, 503, 200]
            assert sum(record.levelname == "ERROR" for record in caplog.records) == 1
            spending.parent.mkdir()
            assert await statuses() == [401, 200, 200]
            assert await statuses() == [401, 429, 200]

    run(go())


def damage(file: Path) -> None:
    file.write_text("nonsense\n")


def test_limits_that_nobody_counts_are_refused() -> None:
    from outthink.server.callers import Callers

    with pytest.raises(UsageError, match="The key ann has limits, and nothing counts what is spent"):
        Callers(keys(ann="5-tokens/day"))


# ---------------------------------------------------------------- the commands


@pytest.fixture
def outthink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: main(words, capsys, monkeypatch)


def test_keys_are_limited_listed_and_revoked(outthink: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the team\n")
    file.chmod(0o600)
    held = {name: outthink("key", str(file), "--name", name).out.strip() for name in ("ann", "bob", "list")}
    limited = outthink("key", "limit", str(file), "ann", "60-requests/minute,100k-tokens/day,20usd/month,8-concurrent")
    assert (limited.code, limited.out) == (0, "")
    assert (
        "The key ann has 60 requests a minute, 100,000 tokens a day, 20 usd a month, 8 requests at once." in limited.err
    )
    known = Keys.open(file)
    assert [known.owner(key) for key in held.values()] == ["ann", "bob", "list"]
    assert list(known.limits) == ["ann"]
    shown = outthink("key", "list", str(file))
    assert shown.code == 0
    assert not any(key in shown.out for key in held.values())
    assert [row.split()[0] for row in shown.out.splitlines()[1:]] == ["ann"] * 4 + ["bob", "list"]
    assert outthink("key", "limit", str(file), "ann", "none").code == 0
    assert outthink("key", "revoke", str(file), "bob").code == 0
    known = Keys.open(file)
    assert [known.owner(key) for key in held.values()] == ["ann", None, "list"]
    assert not known.limits
    assert file.read_text().startswith("# the team\nann ")
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("revoke", "KEYS", "cat"), "There is no key cat in "),
        (("limit", "KEYS", "cat", "none"), "There is no key cat in "),
        (
            ("limit", "KEYS", "ann", "5-tokens"),
            "Cannot read the limit '5-tokens'; write limits like 60-requests/minute",
        ),
        (("limit", "KEYS", "ann", ""), "The key ann has no limits."),
        (("list", "NOTHING"), "Cannot read the keys in "),
        (("list",), "Missing argument"),
        ((), "Usage"),
    ],
)
def test_what_the_commands_say(outthink: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    file = tmp_path / "keys"
    make_key(file, "ann")
    given = [str(file) if word == "KEYS" else word for word in words]
    result = outthink("key", *given)
    assert told in result.err + result.out


# ---------------------------------------------------------------- a price that follows the load


@pytest.mark.parametrize("follows", [False, True])
def test_answers_get_cheaper_while_many_wait(follows: bool) -> None:
    """`auto` goes on while votes gain more than they cost; crowded, the same split of votes is not worth another."""

    async def go() -> list[int]:
        settings = {"concurrency": 4, "price_follows_load": follows}
        async with (
            Server(lambda ask: f"#### {ask.rng.randrange(2)}", always=Fault(before=1.0)) as up,
            serving(up, settings=settings) as (url, _),
        ):
            body = {"model": "m+auto", "outthink": {"answer": "math"}}
            alone = await ask(url, "", **body)
            crowd = await asyncio.gather(*(ask(url, "", f"What is {number}?", **body) for number in range(12)))
            return [answer.json["outthink"]["samples"] for answer in (alone, *crowd)]

    alone, *crowd = run(go())
    assert alone > 8
    if follows:
        assert max(crowd[:8]) <= 4  # which were in flight together
    else:
        assert max(crowd) > 8


@pytest.mark.parametrize(("running", "waiting", "dear"), [(0, 0, 1), (4, 0, 1), (5, 0, 4), (8, 0, 256), (8, 4, 65536)])
def test_the_price_doubles_with_every_sixteenth_of_the_places(running: int, waiting: int, dear: float) -> None:
    desk: Any = SimpleNamespace(running=running, waiting=waiting)
    gate = Gate(8, 8, desk=desk)
    assert gate.dearness() == dear


def test_each_of_several_prompts_counts_and_one_too_many_frees_the_others(path: Path) -> None:
    async def go() -> None:
        limits = {"ann": "2-concurrent,5-requests/minute"}
        async with Server(says(FOUR)) as up, serving(up, **parts(path, **limits)) as (url, _):

            async def complete(*prompts: str) -> Answer:
                body = {"model": NONE, "prompt": [*prompts]}
                return await asked(url, body, path="/v1/completions", headers=[("Authorization", "Bearer ann")])

            assert (await complete("a", "b", "c")).status == 429
            assert not up.asked
            two = await complete("a", "b")
            assert two.status == 200
            assert len(up.asked) == 2
            assert two.headers["x-ratelimit-limit-requests"] == "5"
            response = {"model": NONE, "input": "a"}
            headers = [("Authorization", "Bearer ann")]
            last = await asked(url, response, path="/v1/responses", headers=headers)
            assert (last.status, last.headers["x-ratelimit-remaining-requests"]) == (200, "0")
            assert (await asked(url, response, path="/v1/responses", headers=headers)).status == 429

    run(go())
    assert sum(used for used, _ in spent(path).values()) > 0
