"""Words of the command line: what is unknown is refused with near names, before anything is opened; help is near."""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from outthink.cli.program import tree
from outthink.strategies.listing import arguments
from tests.cli.test_cli import QUESTION, bench, solve

GROUPS = ((), ("models",), ("plan",), ("prm",), ("cascade",))


def every_command() -> list[tuple[str, ...]]:
    root = tree()
    nested = [(name, inner) for name, command in root.commands.items() for inner in getattr(command, "commands", ())]
    return [*((name,) for name in root.commands), *nested]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are opened, which none can be."""
    names: list[str] = []

    def refuse(name: str, *, price: object = None) -> Any:
        names.append(name)
        raise AssertionError("a model was opened")

    monkeypatch.setattr("outthink.models.open_engine", refuse)
    return names


@pytest.mark.parametrize("command", [(), *every_command()], ids=" ".join)
def test_h_is_help_everywhere(outthink: Any, command: tuple[str, ...]) -> None:
    short, long = outthink(*command, "-h"), outthink(*command, "--help")
    assert (short.code, short.err) == (0, "")
    assert short.out == long.out
    assert short.out.startswith("Usage: outthink")


@pytest.mark.parametrize("columns", ["1", "2", "3", "11"])
def test_help_is_there_however_narrow_the_terminal(
    outthink: Any, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for command in ((), ("solve",), ("plan", "fit")):
        assert outthink(*command, "-h").code == 0


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
@pytest.mark.parametrize("columns", ["80", "200"])
def test_no_summary_is_cut_off_or_wrapped(
    outthink: Any, monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = outthink(*group, "-h").out.splitlines()
    assert not [line for line in lines if "..." in line and not line.startswith("Usage: ")]
    names = [command[len(group)] for command in every_command() if command[: len(group)] == group and command != group]
    for name in names:
        listed = [line for line in lines if line.split()[:1] == [name]]
        assert len(listed) == 1, name
        assert listed[0].endswith("."), listed[0]


def test_commands_are_listed_by_what_people_want_to_do(outthink: Any) -> None:
    text = outthink("-h").out
    heads = ["Ask:", "Measure:", "Look at what was recorded:", "Learn:", "Serve:", "Models:"]
    places = [text.index(f"\n{head}\n") for head in heads]
    assert places == sorted(places)
    assert "\nCommands:" not in text


def test_help_says_whose_further_options_are(outthink: Any) -> None:
    for command in ("solve", "bench", "serve"):
        assert "`outthink strategies NAME` lists" in " ".join(outthink(command, "-h").out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("solve", "--hlep"), "did you mean '--help'?"),
        (("solve", "--hlep", "--json"), "did you mean '--help'?"),
        (("solve", "--hlep=1", QUESTION), "did you mean '--help'?"),
        (("bench", "--hlep", "gsm8k"), "did you mean '--help'?"),
        (("serve", "--prot", "80"), "did you mean '--port'?"),
        (("serve", "--strategy", "none", "--n", "3", "--model", "m"), "none, which is one sample"),
        (("solve", QUESTION, "-n", "4"), "did you mean '--n'?"),
        (("solve", QUESTION, "-x"), "no option '-x'"),
        (("solve", QUESTION, "--agregate", "last", "-sbest_of_n"), "did you mean '--aggregate'?"),
        (("solve", QUESTION, "--agregate", "last", "--strategy=best_of_n"), "did you mean '--aggregate'?"),
        (("solve", QUESTION, "--max_tokns", "9"), "did you mean '--max-tokens'?"),
        (("solve", QUESTION, "--zzzz", "4"), "auto has --ahead, --calibration, --mean-cost, --n"),
        (("solve", "-5 + 3 = ?"), "goes last, after --"),
        (("solve", "--what is 2+2?"), "goes last, after --"),
        (("solve", QUESTION, "--n", "--budget", "5s"), "--n needs a value"),
        (("solve", QUESTION, "--verifier", "--json"), "--verifier needs a value"),
        (("solve", QUESTION, "--verifier", "--nonsense"), "--verifier needs a value"),
        (("solve", QUESTION, "extra"), "Unexpected argument 'extra'"),
        (("report", "--jsn"), "did you mean '--json'?"),
        (("models", "path", "--bogus"), "no option '--bogus' of path"),
        (("key", "--nam", "x", "file"), "did you mean '--name'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_unknown_is_refused_before_anything_is_opened(
    outthink: Any, opened: list[str], words: tuple[str, ...], said: str
) -> None:
    result = outthink(*words)
    assert (result.code, result.out, opened) == (2, "", [])
    assert result.err.count("\n") == 1
    assert said in result.err


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_never_a_question_or_a_value(outthink: Any, opened: list[str], word: str, place: int) -> None:
    words = ["--n", "4", "--strategy", "best_of_n"]
    words.insert(place, word)
    result = outthink("solve", *words)
    assert (result.code, opened) == (0, [])
    assert result.out.startswith("Usage: outthink solve")


def test_a_question_may_begin_with_a_dash_after_two(outthink: Any) -> None:
    row = json.loads(Path("pool.jsonl").read_text(encoding="utf-8"))
    for question in ("-5 + 3 = ?", "--help"):
        Path("dash.jsonl").write_text(json.dumps({**row, "id": question, "question": question}) + "\n")
        assert outthink("solve", "--model", "dash.jsonl", "--n", "2", "--", question).code == 0


def test_hyperparameters_stand_anywhere_and_may_begin_with_a_dash(outthink: Any) -> None:
    words = (("--n", "3"), ("--model", "pool.jsonl"), (QUESTION,), ("--json",))
    for order in itertools.permutations(words):
        told = json.loads(outthink("solve", *itertools.chain(*order)).out)
        assert told["strategy"]["n"] == 3
    scored = solve("--strategy", "best_of_n", "--verifier", "confidence", "--n", "2", "--json")
    for given in (("--delimiter", "---"), ("--delimiter=--json",), ("--delimiter", "- ")):
        told = json.loads(outthink(*scored, *given).out)
        assert told["strategy"]["delimiter"] == given[-1].removeprefix("--delimiter=")


def test_the_question_may_be_piped_in(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ((), ("-",)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(QUESTION + "\n"))
        assert outthink("solve", *words, "--model", "pool.jsonl", "--n", "4").code == 0


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (None, "write it in quotes, or pipe it in"),
        (io.StringIO(" \n"), "question is empty"),
        (io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8"), "is not utf-8 text"),
        (io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8", errors="surrogateescape"), "is not utf-8 text"),
    ],
)
def test_without_a_question_one_is_asked_for(
    outthink: Any, opened: list[str], monkeypatch: pytest.MonkeyPatch, stdin: Any, said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    result = outthink("solve")
    assert (result.code, result.out, opened) == (2, "", [])
    assert said in result.err


def test_a_terminal_is_not_waited_for(outthink: Any, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(QUESTION))
    result = outthink("solve")
    assert (result.code, opened) == (2, [])
    assert "write it in quotes, or pipe it in" in result.err


def test_default_names_are_not_doubled(outthink: Any) -> None:
    assert outthink("pool", "own.jsonl", "--model", "pool.jsonl", "--n", "2").out.startswith("pool-own.jsonl: ")
    assert outthink(*bench("--n", "2")).code == 0
    assert Path("runs/own-self_consistency").is_dir()


def test_one_strategy_is_shown_whole(outthink: Any) -> None:
    text = outthink("strategies", "best_of_n").out
    for part in ("Source: ", "Differs: ", "Pays: ", "--aggregate  [default: 'last']", "where steps end", "verifier?"):
        assert part in text
    entry = json.loads(outthink("strategies", "best_of_n", "--json").out)
    assert entry["hyperparameters"]["n"] == 16
    assert entry["descriptions"]["n"].startswith("samples drawn")
    assert "did you mean 'best_of_n'?" in outthink("strategies", "best_of").err
    assert "--strategy fusion?temperature=VALUE" in outthink("strategies", "fusion").out


def test_every_hyperparameter_has_a_description(outthink: Any) -> None:
    entries = json.loads(outthink("strategies", "--json").out)
    lacking = {}
    for name in (entry["name"] for entry in entries):
        shown = json.loads(outthink("strategies", name, "--json").out)
        if missing := [field for field in shown["hyperparameters"] if not shown["descriptions"].get(field)]:
            lacking[name] = missing
    assert not lacking


def test_descriptions_of_several_names_and_lines() -> None:
    text = "What it is.\n\nArgs:\n    a, b: two of\n        them: both.\n    c: one.\n\nRaises nothing: at all."
    assert arguments(text) == {"a": "two of them: both.", "b": "two of them: both.", "c": "one."}
    assert arguments("No arguments.") == {}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("solve --strategy best", {"best_of_n"}),
        ("solve --n 4 -s self", {"self_consistency"}),
        ("solve --model smol", {"smollm2-135m-instruct"}),
        ("models path smol", {"smollm2-135m-instruct"}),
        ("bench gs", {"gsm8k"}),
        ("law cov", {"coverage"}),
        ("strategies feature", {"feature_vote"}),
        ("answers x --answer te", {"text"}),
        ("solve q --verifier conf", {"confidence"}),
        ("solve --prompt-t", {"--prompt-template"}),
        ("rep", {"report", "replay"}),
    ],
)
def test_a_shell_completes(outthink: Any, monkeypatch: pytest.MonkeyPatch, words: str, offered: set[str]) -> None:
    monkeypatch.setenv("_OUTTHINK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"outthink {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    result = outthink()
    assert (result.code, result.err) == (0, "")
    assert offered <= set(result.out.split())


LONG = "a" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("answers", LONG),
        ("calibrate", LONG),
        ("grade", LONG, "--gold", LONG, "--out", LONG),
        ("law", "coverage", LONG),
        ("merge", LONG, LONG),
        ("plan", "fit", LONG),
        ("report", LONG),
        ("solve", "q", "--model", LONG),
    ],
    ids=lambda words: words[0],
)
def test_a_path_that_no_folder_can_hold_is_said_to_be_so(outthink: Any, words: tuple[str, ...]) -> None:
    result = outthink(*words)
    assert (result.code, result.out) == (2, "")
    assert "Internal" not in result.err
