"""`outthink serve` from a file: what counts, what is refused, and all mistakes told together."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from outthink.cli import serving
from outthink.cli.configured import ConfiguredCommand
from outthink.cli.parsing import takes_blocks
from outthink.cli.program import run, tree
from outthink.errors import UsageError
from outthink.server.allowances import read_allowances
from outthink.server.keys import limit_key, make_key


def words(text: str, *typed: str, folder: Path) -> dict[str, Any]:
    """The options that the command gets, with the further ones under "args"."""
    (folder / "outthink.toml").write_text(text, encoding="utf-8")
    command = tree().commands["serve"]
    assert isinstance(command, ConfiguredCommand)
    context = command.make_context("serve", list(typed))
    return {**context.params, "args": context.args}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OUTTHINK_KEYS", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def checked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *typed: str) -> tuple[int, list[str]]:
    monkeypatch.setattr("sys.argv", ["outthink", "serve", "--check", *typed])
    code = run()
    return code, capsys.readouterr().err.splitlines()


OPTIONS = inspect.signature(takes_blocks(serving.serve)).parameters


def given(parameter: inspect.Parameter) -> tuple[Any, Any]:
    """A value for an option in the file, and what the command gets of it."""
    kind = str(parameter.annotation)
    if parameter.annotation is bool or "bool" in kind:
        return True, True
    if "list[str]" in kind:
        return ["a=b", "c=d"], ["a=b", "c=d"]
    if "float" in kind:
        return 0.5, 0.5
    if "int" in kind:
        return 7, 7
    return ("text", Path("text")) if "Path" in kind else ("text", "text")


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("context", "config", "check", "strategy")])
def test_every_option_may_stand_in_the_file(name: str, tmp_path: Path) -> None:
    value, expected = given(OPTIONS[name])
    got = words(f"{name} = {json.dumps(value)}", folder=tmp_path)[name]
    assert str(got) == str(expected)
    assert str(words(f"{name.replace('_', '-')} = {json.dumps(value)}", folder=tmp_path)[name]) == str(expected)


def test_what_is_typed_goes_before_the_file(tmp_path: Path) -> None:
    text = 'port = 1\nshed = true\nplan = {a = "x", b = "y"}\nupstream = "http://a/v1"\n'
    text += 'strategy = "self_consistency"\nn = 8'
    plain = words(text, folder=tmp_path)
    assert (plain["port"], plain["shed"], plain["plan"], plain["args"]) == (1, True, ["a=x", "b=y"], ["--n=8"])
    typed = words(text, "--port", "2", "--plan=c=z", "--n", "3", folder=tmp_path)
    assert (typed["port"], typed["plan"], typed["args"]) == (2, ["c=z"], ["--n=3"])
    assert words(text, "-m", "some", folder=tmp_path)["upstream"] is None, "one model instead of the other"
    assert words(text, "-s", "greedy", folder=tmp_path)["args"] == [], "they are another strategy's"
    assert words(text, "-s", "self_consistency", folder=tmp_path)["args"] == ["--n=8"]
    assert words("n = 8", "-s", "esc", folder=tmp_path)["args"] == ["--n=8"]
    assert words(text, "-s", "esc", "--n", "9", folder=tmp_path)["args"] == ["--n=9"]


def test_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 3", encoding="utf-8")
    assert words("port = 1", "--config", "other.toml", folder=tmp_path)["port"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "outthink.toml: There is no option of serve 'prot'; did you mean 'port'?"),
        ("api_key = 'secret'", "did you mean 'api_key_file'?"),
        ("config = 'x'", "There is no option of serve 'config'"),
        ("port = [1, 2]", "port takes one value and no list"),
        ("port = {a = 1}", "port takes one value and no table"),
        ("port = 99999", "outthink.toml: Invalid value for '--port'"),
        ("shed = 'yes'", "shed is true or false"),
        ("port = 2020-01-01", "port must be text, a number"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 1", "is not TOML"),
        ("n = " + "[" * 20_000, "outthink.toml has lists or tables too deep in each other"),
        ("n = " + "9" * 5000, "outthink.toml has a number that is too long"),
        ("n = 0x" + "f" * 5000, "outthink.toml: n is a number that is too long"),
        ('price = "a\\u0000.json"', "outthink.toml: price holds a character NUL"),
        ("timeout = inf", "outthink.toml: Invalid value for '--timeout'"),
        ("max_tokens = 99999999999999999999", "outthink.toml: Invalid value for '--max-tokens'"),
        ("api_key_file = 'a'\napi-key-file = 'b'", "is there twice"),
        ("strategy = 'self_consistency'\nm = 3", "There is no option of serve 'm'"),
    ],
)
def test_what_a_file_cannot_say_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        words(text, folder=tmp_path)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_byte_order_mark_says_nothing(tmp_path: Path) -> None:
    assert words("\ufeffport = 81", folder=tmp_path)["port"] == 81


def test_what_is_served_is_typed_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--upstream is given twice, as 'http://a' and 'http://b'"):
        words("", "--upstream", "http://a", "--upstream=http://b", folder=tmp_path)
    with pytest.raises(UsageError, match="--strategy is given twice, as 'esc' and 'mbr'"):
        words("", "-s", "esc", "--strategy=mbr", folder=tmp_path)
    assert words("", "--host", "0.0.0.0", "--host", "::1", folder=tmp_path)["host"] == "::1", "as in a container"


WRONG = """
prot = 80
port = 99999
budget = "0.01usd"
strategy = "best_of_n"
n = 8
shed = "yes"
plan = ["a=x.json"]
api_key_file = "nowhere"
role = ["judge=nothing-such", "judge=other"]
price = ["judge=1,2", "judge=3,4"]
shadow = 0.5
embedder = "nothing"
resource = ["memory=nowhere:Thing"]
view = true
"""


def test_everything_that_is_wrong_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outthink.toml").write_text(WRONG, encoding="utf-8")
    code, told = checked(capsys, monkeypatch, "--upstream", "http://127.0.0.1:1/v1")
    assert code == 2
    for said in (
        "'prot'; did you mean 'port'?",
        "Invalid value for '--port'",
        "shed is true or false",
        "best_of_n needs a verifier",
        "Cannot read the plan x.json",
        "Cannot read the keys in nowhere",
        "The role 'judge' is given twice",
        "The role judge has two prices",
        "--shadow needs --record",
        "--view shows what is recorded",
        "A budget in usd needs the price of http://127.0.0.1:1/v1",
        "embedder 'nothing'",
        "nowhere",
    ):
        assert sum(said in line for line in told) >= 1, said
    assert len(told) == len(set(told)) == 13


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--upstream", "http://a/v1", "--model", "x"), "Name what to serve"),
        (("--upstream", "localhost:8000"), "is not the address of a server"),
        (("--upstream", "http://u:p@a/v1"), "holds a user or a password"),
        (("--upstream", "http://a/v1", "--host", "0.0.0.0"), "give --api-key-file"),
        (("--upstream", "http://a/v1", "--plan", "p=x", "--plan", "p=y"), "Cannot read the plan"),
        (("--upstream", "http://a/v1", "--price", "auto.json"), "Cannot read auto.json"),
        (("--upstream", "http://a/v1", "--price", "judge=1,2"), "no model; add --role judge=MODEL"),
        (("--upstream", "http://a/v1", "--budget", "1T-flops"), "needs the shape"),
        (("--upstream", "http://a/v1", "--budget", "5kernels"), "cannot read the budget"),
        (("--model", "nothing"), "There is no model 'nothing'"),
        (("--model", "nothing.jsonl"), "There is no nothing.jsonl"),
        (("--config", "nothing.toml", "--upstream", "http://a/v1"), "Cannot read nothing.toml"),
        (("--upstream", "http://a/v1", "--prot", "80"), "did you mean '--port'?"),
        (("--upstream", "http://a/v1", "word"), "Unexpected argument 'word'"),
        (("--upstream", "http://a/v1", "--record", "x" * 5000), "File name too long"),
    ],
)
def test_one_mistake_is_told_once(
    typed: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, told = checked(capsys, monkeypatch, *typed)
    assert code == 2
    assert sum(said in line for line in told) == (2 if "--plan" in typed else 1), told
    assert len(told) == (2 if "--plan" in typed else 1), told


def test_what_is_right_is_said_and_nothing_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outthink.toml").write_text('upstream = "http://127.0.0.1:1/v1"\nrecord = "kept"', encoding="utf-8")
    monkeypatch.setattr("outthink.server.start.models", lambda upstream: pytest.fail("the upstream was asked"))
    code, told = checked(capsys, monkeypatch, "--budget", "0.1usd", "--price", "1,2")
    assert (code, told) == (0, ["Nothing is wrong with outthink.toml and the options."])
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("spending", "said"),
    [
        ("nowhere/spent", "there is no folder nowhere"),
        ("folder", "Cannot read what keys have spent in folder"),
        ("other", "Cannot read what keys have spent in other"),
        ("x" * 5000, "File name too long"),
        ("empty", ""),
        ("new", ""),
    ],
)
def test_where_spending_cannot_be_kept_is_told(
    spending: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(Path("keys"), "ann")
    limit_key(Path("keys"), "ann", read_allowances("5-requests/day"))
    Path("folder").mkdir()
    Path("other").write_text("something else, and more than nothing", encoding="utf-8")
    Path("empty").touch()
    typed = ("--upstream", "http://a/v1", "--api-key-file", "keys", "--spending", spending)
    code, told = checked(capsys, monkeypatch, *typed)
    assert (code, len(told)) == (2 if said else 0, 1)
    assert said in told[0]
    assert not Path("new").exists()


def test_a_key_file_of_the_upstream_that_others_can_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.toml").write_text('"a" = "very-secret"', encoding="utf-8")
    (tmp_path / "keys.toml").chmod(0o644)
    monkeypatch.setenv("OUTTHINK_KEYS", str(tmp_path / "keys.toml"))
    code, told = checked(capsys, monkeypatch, "--upstream", "http://a/v1")
    assert code == 2
    assert len(told) == 1
    assert "keys.toml" in told[0]
    assert "very-secret" not in told[0]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--metrics-key", "ann"), "--metrics-key ann names a key, and there are none"),
        (("--api-key-file", "keys", "--metrics-key", "prom"), "--metrics-key prom names no key of the file"),
        (("--api-key-file", "keys", "--metrics-key", "a b"), "--metrics-key a b names no key of the file"),
        (("--api-key-file", "keys", "--metrics-key", "ann"), ""),
        (("--api-key-file", "keys"), ""),
    ],
)
def test_a_key_for_metrics_that_nobody_can_have_is_told(
    typed: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(Path("keys"), "ann")
    code, told = checked(capsys, monkeypatch, "--upstream", "http://a/v1", *typed)
    assert (code, len(told)) == (2 if said else 0, 1)
    assert said in told[0]
    if said:  # and so when it starts
        monkeypatch.setattr("sys.argv", ["outthink", "serve", "--upstream", "http://a/v1", *typed])
        assert run() == 2
        assert said in capsys.readouterr().err
