"""Keys: whom they are sent to, and all the places where they must not show."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import outthink
from outthink import cli
from outthink.bench.pool import record_pool
from outthink.bench.run import bench
from outthink.errors import EngineError, Refused, UsageError
from outthink.models.credentials import Key, find_key
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.openai.engine import OpenAIEngine
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Budget, Sampling
from tests.tools.server import BARE, HANG, Fault, Server, run, says, threaded
from tests.tools.toys import problem

SECRET = "sk-proj-0123456789/abc+def=ghi"
CHAT, ASK = "chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
HOME = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own keys and caches."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OUTTHINK_KEYS", "OUTTHINK_DATA", "OUTTHINK_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of keys, which nobody else may read."""
    file = tmp_path / "keys.toml"
    file.touch(mode=0o600)
    monkeypatch.setenv("OUTTHINK_KEYS", str(file))
    return file


def sent_to(url: str) -> bool:
    return find_key(url) is not None


# ---------------------------------------------------------------- whom a key belongs to


@pytest.mark.parametrize(
    ("base", "url", "belongs"),
    [
        (None, HOME, True),
        (None, "https://api.openai.com", True),
        (None, "https://API.OpenAI.com:443/v1/x", True),
        ("", HOME, True),
        (None, "http://api.openai.com/v1", False),
        (None, "https://api.openai.com:8443/v1", False),
        (None, "https://api.openai.com.evil.example/v1", False),
        (None, "https://openai.com/v1", False),
        (None, "http://localhost:8000/v1", False),
        ("http://localhost:8000/v1", "http://localhost:8000/v2", True),
        ("http://localhost:8000/v1", "http://localhost:8001/v1", False),
        ("http://localhost:8000/v1", "http://127.0.0.1:8000/v1", False),
        ("http://localhost:8000/v1", HOME, False),
        ("http://localhost/v1", "http://localhost:80/v1", True),
        ("https://[::1]:8000/v1", "https://[::1]:8000/v1", True),
    ],
)
def test_the_key_of_the_environment_belongs_to_one_host(
    base: str | None, url: str, belongs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    if base is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", base)
    assert sent_to(url) == belongs


@pytest.mark.parametrize("base", ["localhost:8000/v1", "http://", "http://h:port/v1", "http://[::1", "ftp://h/v1"])
def test_an_address_that_is_none_has_no_key(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    assert not sent_to(HOME)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(UsageError, match="OPENAI_BASE_URL must be an address like"):
        find_key(HOME)


@pytest.mark.parametrize(
    ("host", "url", "belongs"),
    [
        ("localhost:8000", "http://localhost:8000/v1", True),
        ("localhost:8000", "https://localhost:8000/v1", True),
        ("localhost:8000", "http://localhost:8001/v1", False),
        ("localhost", "https://localhost/v1", True),
        ("localhost", "http://localhost/v1", False),
        ("localhost:80", "http://localhost/v1", True),
        ("localhost", "http://localhost:8000/v1", False),
        ("API.example.com", "https://api.EXAMPLE.com/v1", True),
        ("example.com", "https://api.example.com/v1", False),
        ("[::1]:8000", "http://[::1]:8000/v1", True),
    ],
)
def test_a_key_of_the_file_belongs_to_one_host(host: str, url: str, belongs: bool, keys: Path) -> None:
    keys.write_text(f'"other:1" = "x"\n"{host}" = "{SECRET}"\n')
    assert sent_to(url) == belongs


def test_the_environment_goes_before_the_file(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys.write_text('"api.openai.com" = "from-the-file"\n')
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    for name in ("from-the-environment", "from-the-file"):
        key = find_key(HOME)
        assert key is not None
        assert key.header() == {"Authorization": f"Bearer {name}"}
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_the_file_is_looked_for_in_the_folder_of_the_configuration(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the folder of another system")
    assert not sent_to(HOME)
    file = tmp_path / "config" / "outthink" / "keys.toml"
    file.parent.mkdir(parents=True)
    file.touch(mode=0o600)
    file.write_text(f'"api.openai.com" = "{SECRET}"\n')
    assert sent_to(HOME)


# ---------------------------------------------------------------- files that are not as they should be


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666, 0o777])
def test_a_file_that_others_can_read_is_refused(mode: int, keys: Path) -> None:
    keys.write_text(f'"localhost:80" = "{SECRET}"\n')
    keys.chmod(mode)
    with pytest.raises(UsageError, match=f"Others can read the keys in {keys}; run: chmod 600 {keys}"):
        find_key("http://elsewhere/v1")
    keys.chmod(0o400)
    assert sent_to("http://localhost")


@pytest.mark.parametrize(
    "content",
    [
        f'"localhost" = "{SECRET}'.encode(),
        f"localhost = {SECRET}".encode(),
        f'{SECRET} = "x" "y"'.encode(),
        f'api.example.com = "{SECRET}"'.encode(),
        f'["localhost"]\nkey = "{SECRET}"'.encode(),
        f'"http://localhost" = "{SECRET}"'.encode(),
        f'"me@localhost" = "{SECRET}"'.encode(),
        f'"localhost:port" = "{SECRET}"'.encode(),
        f'"localhost" = ["{SECRET}"]'.encode(),
        b'"localhost" = 5',
        b'"localhost" = ""',
        b'"localhost" = " "',
        b'"" = "x"',
        SECRET.encode() + b"\xff\xfe",
        b"\x00",
    ],
)
def test_a_damaged_file_is_refused_without_showing_it(content: bytes, keys: Path) -> None:
    keys.write_bytes(content)
    with pytest.raises(UsageError, match=f"file of keys {keys}") as failure:
        find_key("http://elsewhere/v1")
    assert SECRET not in everything(failure.value)


@pytest.mark.parametrize("named", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_told(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("OUTTHINK_KEYS", str(tmp_path / named))
    with pytest.raises(UsageError, match="Cannot read the file of keys"):
        find_key(HOME)


@pytest.mark.parametrize("wrong", ["two words", "line\nbreak", "ünïcode", "nul\x00", ""])
def test_what_cannot_be_a_key_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(UsageError, match="A key must be printable characters without blanks") as failure:
        Key(wrong)
    assert not wrong or repr(wrong) not in everything(failure.value)


# ---------------------------------------------------------------- where it must not show


def everything(failure: BaseException, *, variables: bool = True) -> str:
    """All that a traceback can show of it, with the local variables of everything but the tests."""
    told = traceback.TracebackException.from_exception(failure, capture_locals=variables)
    for frame in told.stack:
        if str(Path(__file__).parents[1]) in frame.filename:
            frame.locals = None
    return "".join(told.format()) + repr(failure)


def test_a_key_does_not_show_itself() -> None:
    key = Key(SECRET)
    for shown in (repr(key), str(key), f"{key}", f"{key!r}", "%s" % key, str([key]), str({"key": key})):  # noqa: UP031
        assert SECRET not in shown
    assert not hasattr(key, "__dict__")


def test_a_key_is_not_written_to_a_file() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="a key is not written to a file"):
            pickle.dumps(Key(SECRET), protocol)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a key is not written to a file"):
            copied(Key(SECRET))
    with pytest.raises(TypeError):
        pickle.dumps(Endpoint("http://h/v1", find=lambda url: Key(SECRET)))


FAULTS = {
    "echoed": Fault(status=401, body=b'{"error": {"message": "Incorrect API key provided: %s"}}' % SECRET.encode()),
    "echoed raw": Fault(status=403, body=b"no entry for Bearer %s" % SECRET.encode()),
    "echoed in a link": Fault(status=403, body=b"/login?key=sk-proj-0123456789%2Fabc%2Bdef%3Dghi"),
    "echoed at length": Fault(status=400, body=b"x" * 290 + SECRET.encode()),
    "echoed in a 200": Fault(body=b'{"error": "%s"}' % SECRET.encode()),
    "echoed as a reason": Fault(
        body=b'{"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "%s"}]}' % SECRET.encode()
    ),
    "echoed as a head": Fault(status=500, headers={"X-Key": SECRET, "Retry-After": SECRET}),
    "echoed as a place": Fault(status=302, headers={"Location": f"http://127.0.0.1:9/?key={SECRET}"}),
    "cut off": Fault(piece=20, after=1),
    "broken": Fault(body=b"{"),
    "silent": HANG,
    "a login page": Fault(body=SECRET.encode(), kind="text/html"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_no_error_shows_the_key(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def go() -> None:
        async with Server(always=fault, key=SECRET) as server:
            endpoint = Endpoint(server.url, find=lambda url: Key(SECRET), patience=Patience(attempts=2))
            engine = OpenAIEngine(endpoint, BARE)
            with pytest.raises(EngineError) as failure:
                await outthink.solve_async(problem(), make_strategy("self_consistency", {"n": 2}), model=engine)
            echoed = SECRET in repr(fault)  # then the variables hold the server's words
            assert SECRET not in everything(failure.value, variables=not echoed)
            assert quote(SECRET, safe="") not in str(failure.value)
            assert failure.value.trace is not None
            assert SECRET not in failure.value.trace.to_json()
            if not echoed:
                with pytest.raises(EngineError) as failure:
                    await endpoint.post(CHAT, ASK)
                assert SECRET not in everything(failure.value)
            assert SECRET not in repr(endpoint) + repr(vars(endpoint)) + repr(vars(engine))
            assert all(seen.headers["Authorization"] == f"Bearer {SECRET}" for seen in server.seen)
            await endpoint.close()

    run(go())
    assert SECRET not in "".join(f"{record!r} {record.getMessage()} {record.args}" for record in caplog.records)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_is_not_sent_to_where_a_server_redirects(status: int) -> None:
    async def go() -> None:
        async with Server() as other, Server() as server:
            server.always = Fault(status=status, headers={"Location": f"{other.url}/{CHAT}"})
            endpoint = Endpoint(server.url, find=lambda url: Key(SECRET))
            with pytest.raises(Refused, match="redirects elsewhere"):
                await endpoint.post(CHAT, ASK)
            await endpoint.close()
            assert other.seen == []

    run(go())


def test_a_key_is_not_sent_to_another_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with Server() as other, Server() as server:
            monkeypatch.setenv("OPENAI_API_KEY", SECRET)
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            for url in (server.url, other.url):
                endpoint = Endpoint(url)
                await endpoint.post(CHAT, ASK)
                await endpoint.post("../tokenize", ASK)
                await endpoint.get("models")
                await endpoint.close()
            assert [seen.headers.get("Authorization") for seen in server.seen] == [f"Bearer {SECRET}"] * 3
            assert [seen.headers.get("Authorization") for seen in other.seen] == [None] * 3

    run(go())


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that demands the key, which stands in the environment."""
    with threaded(Server(says("so #### 42", "#### 7", "#### 42"), key=SECRET)) as started:
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        monkeypatch.setenv("OPENAI_BASE_URL", started.url)
        yield started


def clean(folder: Path) -> int:
    """How many files the folder holds; none of them holds the key."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
        assert SECRET not in file.name
    return len(files)


def test_runs_pools_and_logs_do_not_hold_the_key(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    examples = [Example(problem(f"p{number}"), ("42",)) for number in range(3)]
    engine = OpenAIEngine.open(server.url)
    options: dict[str, Any] = {"model": engine, "sampling": Sampling(max_tokens=30)}

    async def go() -> None:
        await bench(examples, "self_consistency", store=tmp_path / "run", **options)
        server.faults = [FAULTS["echoed"], FAULTS["echoed in a 200"]] * 3
        await bench(examples, "self_consistency", store=tmp_path / "failed", **options)
        server.faults = []
        await record_pool(examples, n=4, path=tmp_path / "pool.jsonl", **options)

    asyncio.run(go())
    trace = outthink.solve(problem(), "self_consistency", verifier="judge", budget=Budget({"tokens": 4000}), **options)
    assert trace.answer == "42"
    assert SECRET not in trace.to_json() + repr(trace)
    assert clean(tmp_path) >= 6
    logging.getLogger("outthink").info("%s %s", engine, vars(engine))
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err
    assert SECRET not in "".join(f"{record!r} {record.getMessage()} {record.args}" for record in caplog.records)
    asyncio.run(engine.close())


@pytest.mark.parametrize("echo", [True, False])
def test_the_command_line_does_not_show_the_key(
    echo: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["models", "probe", server.url],
        ["models", "probe", server.url, "--json"],
        ["solve", "What is 6 * 7?", "--model", server.url, "--n", "3", "--max-tokens", "30"],
        ["solve", "What is 6 * 7?", "--model", server.url, "--n", "3", "--max-tokens", "30", "--json"],
    ):
        if echo:
            server.faults = [FAULTS["echoed"]] * 30
        monkeypatch.setattr(sys, "argv", ["outthink", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capfd.readouterr()
        assert SECRET not in shown.out + shown.err
        assert bool(ended.value.code) == echo, shown
        assert not echo or re.search(r"Incorrect API key provided: \*\*\*", shown.out + shown.err)
    clean(tmp_path)
    assert os.environ["OPENAI_API_KEY"] == SECRET
