"""The command line as a new user meets it: nearest names, one sentence per mistake, Ctrl-C, what importing costs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outthink import cli
from outthink.cli import measuring
from outthink.errors import EngineError
from outthink.models.scripted import ScriptedEngine
from outthink.types import Trace

QUESTION = "What is 2+2?"
OUTTHINK = Path(sysconfig.get_path("scripts")) / ("outthink.exe" if sys.platform == "win32" else "outthink")


@dataclass(frozen=True)
class Result:
    code: int | str | None
    out: str
    err: str


def main(words: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run the program's own entry point in this process."""
    monkeypatch.setattr(sys, "argv", ["outthink", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    return Result(ended.value.code or 0, shown.out, shown.err)


def write_pool(path: Path, question: str = QUESTION) -> None:
    """Four samples of one question, three of them right, as `outthink pool` writes them."""
    samples = [
        {
            "text": text,
            "tokens": len(text),
            "logprobs": [-logprob] * len(text),
            "finish": "eos",
            "answer": text[-1],
            "key": text[-1],
            "correct": text[-1] == "4",
        }
        for text, logprob in (("2+2=4\n#### 4", 0.2), ("#### 5", 0.9), ("So\n#### 4", 0.3), ("#### 4", 0.1))
    ]
    row = {"id": question, "question": question, "answer": "4", "prompt_tokens": 20, "samples": samples, "meta": {}}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")


def solve(*words: str) -> tuple[str, ...]:
    return ("solve", QUESTION, "--model", "pool.jsonl", *words)


def bench(*words: str) -> tuple[str, ...]:
    return ("bench", "own.jsonl", "--model", "pool.jsonl", *words)


# ---------------------------------------------------------------- what works


def test_solve_says_answer_cost_and_reason(outthink: Any) -> None:
    result = outthink(*solve("--n", "4", "--budget", "5k-tokens"))
    assert result.code == 0
    assert "Answer: 4" in result.out
    assert "stopped: finished; budget: 5,000 tokens" in result.out
    assert "Total: 53 tokens" in result.out  # 20 of the prompt, read once, and 33 written


def test_solve_json_is_json_and_nothing_else(outthink: Any) -> None:
    result = outthink(*solve("--strategy", "self_consistency", "--n", "4", "--json"))
    told = json.loads(result.out)
    assert (told["answer"], told["confidence"], told["stopped"]) == ("4", 0.75, "finished")
    assert told["strategy"] == {"name": "self_consistency", "n": 4}
    assert told["cost"]["tokens"] == sum(line["cost"]["tokens"] for line in told["ledger"]) == 53
    assert result.code == 0


def test_solve_appends_its_trace(outthink: Any) -> None:
    for _ in range(2):
        assert outthink(*solve("--n", "4", "--trace", "traces.jsonl")).code == 0
    traces = [Trace.from_json(line) for line in Path("traces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [trace.answer for trace in traces] == ["4", "4"]


def test_no_readable_answer_is_exit_3(outthink: Any) -> None:
    text = Path("pool.jsonl").read_text(encoding="utf-8")
    Path("pool.jsonl").write_text(text.replace('"eos"', '"length"'), encoding="utf-8")
    result = outthink(*solve("--n", "4", "--answer", "math"))
    assert result.code == 3
    assert result.out.startswith("2+2=4\n#### 4\n\nAnswer: none: no sample ended with a readable answer")
    chat = outthink(*solve("--n", "4"))
    assert chat.code == 0, "a chat has a text all the same"
    assert chat.out.startswith("2+2=4\n#### 4\n\nNote: the first replies were all cut off or empty")


def test_bench_goes_on_and_report_compares(outthink: Any) -> None:
    first = outthink(*bench("--n", "4", "--out", "runs/a", "--json"))
    assert json.loads(first.out)["runs/a"]["accuracy"] == 1.0
    again = outthink(*bench("--n", "4", "--out", "runs/a", "--json"))
    assert again.out == first.out
    assert "Going on" in again.err
    scored = bench("--strategy", "best_of_n", "--verifier", "confidence", "--n", "2", "--out", "runs/b")
    assert outthink(*scored).code == 0
    report = json.loads(outthink("report", "runs/a", "runs/b", "--json").out)
    assert list(report["runs"]) == ["runs/a", "runs/b"]
    assert report["differences"]["runs/b"]["problems"] == 1
    assert "| runs/a | 1 |" in outthink("report", "runs/a", "--markdown").out
    against = outthink("report", "runs/a", "--against", "pool.jsonl")
    assert "runs/a minus the vote of 4.0 samples" in against.out


def test_a_pool_can_be_recorded_from_a_pool(outthink: Any) -> None:
    result = outthink("pool", "own.jsonl", "--model", "pool.jsonl", "--n", "4", "--out", "copy.jsonl")
    assert result.out == "copy.jsonl: 1 of 1 problems with 4 samples; 53 tokens now\n"
    assert outthink("bench", "own.jsonl", "--model", "copy.jsonl", "--n", "4", "--out", "runs/c").code == 0


def test_lists(outthink: Any) -> None:
    entries = json.loads(outthink("strategies", "--json").out)
    table = outthink("strategies").out
    assert all(entry["name"] in table and entry["summary"] and entry["source"] for entry in entries)
    assert "smollm2-135m-instruct" in outthink("models", "list").out
    assert "solve" in outthink().out
    assert outthink("--version").out.strip()


def test_hyperparameters_that_a_command_has_an_option_for_are_shown_as_part_of_the_strategy(outthink: Any) -> None:
    """--tests of `solve` and --price of `bench` are others; what is shown is what sets it."""
    for name, hyperparameter in (("codet", "tests"), ("ets", "price"), ("chops", "temperature")):
        shown = outthink("strategies", name).out
        assert f"--strategy {name}?{hyperparameter}=VALUE" in shown
        assert f"  --{hyperparameter} " not in shown
    assert "  --comparisons " in outthink("strategies", "v1_infer").out
    assert "  --m " in outthink("strategies", "v1_infer").out, "-m is another one"


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes every model say one thing; what it returns lists the names of those that were opened."""

    def say(said: str | EngineError) -> list[str]:
        names: list[str] = []

        def opened(name: str, *, price: object = None) -> ScriptedEngine:
            names.append(name)
            return ScriptedEngine(lambda request, child, rng: said)

        monkeypatch.setattr("outthink.models.open_engine", opened)
        return names

    return say


def test_each_role_has_its_price(outthink: Any) -> None:
    Path("judge.jsonl").write_bytes(Path("pool.jsonl").read_bytes())
    options = ("--n", "4", "--role", "judge=judge.jsonl", "--price", "1,10", "--budget", "1usd", "--json")
    told = json.loads(outthink(*solve(*options, "--price", "judge=2,20")).out)
    assert told["cost"]["usd"] == pytest.approx((4 * 20 + 10 * 33) / 1e6)  # cached tokens cost as much as others
    assert "needs the price of recorded:judge.jsonl" in outthink(*solve(*options)).err


def test_a_role_that_nothing_asked_is_told(outthink: Any) -> None:
    Path("judge.jsonl").write_bytes(Path("pool.jsonl").read_bytes())
    roles = ("--n", "2", "--role", "jugde=judge.jsonl,generator=pool.jsonl")
    for words in (solve(*roles), bench(*roles)):
        assert "Nothing was asked of the model of the role 'jugde'." in outthink(*words).err
    assert "Nothing was asked" not in outthink(*solve("--n", "2")).err


def test_where_nothing_came_back_the_bill_is_still_given(outthink: Any, opening: Any) -> None:
    opening(EngineError("the endpoint is gone"))
    words = ("solve", QUESTION, "--answer", "math", "-s", "self_consistency", "--n", "3", "--trace", "traces.jsonl")
    result = outthink(*words, "--json")
    told = json.loads(result.out)
    assert (told["answer"], told["stopped"], told["ledger"][0]["failed"]) == (None, "error", 3)
    assert told["cost"]["tokens"] > 0
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "the endpoint is gone" in result.err
    assert Trace.from_json(Path("traces.jsonl").read_bytes()).cost == told["cost"]
    result = outthink(*words)
    assert "Answer: none" in result.out
    assert f"Total: {told['cost']['tokens']:,.0f} tokens" in result.out
    assert result.code == 1


@pytest.mark.parametrize("path", ["nowhere/traces.jsonl", "."])
def test_a_trace_that_cannot_be_written_is_refused_before_a_model_is_opened(
    outthink: Any, opening: Any, path: str
) -> None:
    names = opening("#### 4")
    result = outthink("solve", QUESTION, "--trace", path)
    assert (result.code, result.out, names) == (2, "", [])
    assert f"Cannot write {path}: " in result.err


def test_a_question_in_another_encoding_is_answered(outthink: Any, opening: Any) -> None:
    opening("#### 4")
    result = outthink("solve", "caf\udce9?", "--trace", "traces.jsonl")
    assert result.code == 0
    assert "Answer: 4" in result.out
    assert Trace.from_json(Path("traces.jsonl").read_bytes()).answer == "4"


def test_a_vote_on_what_is_never_equal_is_told_how_to_be_one(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    poems = ("Roses are red.", "Old roofs drum softly.", "A bowl full of April!", "Boots come, and the sky is gone.")

    def opened(name: str, *, price: object = None) -> ScriptedEngine:
        return ScriptedEngine(lambda request, child, rng: poems[child % 4])

    monkeypatch.setattr("outthink.models.open_engine", opened)
    for strategy, told in (("self_consistency", 1), ("auto", 0)):
        result = outthink("solve", "Write a poem", "-s", strategy)
        assert result.code == 0
        assert result.out.startswith(f"{poems[0]}\n\nNote: no two of the first replies are equal")
        assert "Answer:" not in result.out
        assert result.err.count("--answer math") == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--schema", "none.json"), "Cannot read none.json"),
        (("--schema", "list.json"), "list.json holds no JSON Schema"),
        (("--tests", "none.py"), "Cannot read none.py"),
        (("--tests", "bytes.py"), "it is not UTF-8 text"),
    ],
)
def test_files_that_say_what_an_answer_is_like(outthink: Any, words: tuple[str, ...], said: str) -> None:
    Path("list.json").write_text("[1]")
    Path("bytes.py").write_bytes(b"\xff\xfe")
    result = outthink(*solve(*words))
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_live_progress_shows_an_answer_as_it_is(outthink: Any, opening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, on which there is live progress
    opening("Answer: [/INST] 42")
    result = outthink("solve", QUESTION, "--answer", "text")
    assert result.code == 0
    assert "answer so far: [/INST] 42" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.err)


def test_ctrl_c_while_a_model_loads_ends_the_program(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, *, price: object = None) -> ScriptedEngine:
        signal.raise_signal(signal.SIGINT)
        return ScriptedEngine(lambda request, child, rng: "#### 4")

    monkeypatch.setattr("outthink.models.open_engine", opened)
    result = outthink("solve", QUESTION)
    assert (result.code, result.out) == (130, "")
    assert result.err == "Interrupted.\n"


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (solve("--strategy", "self_consistncy"), "did you mean 'self_consistency'?"),
        (("solve", QUESTION, "--model", "smollm2-135m"), "did you mean 'smollm2-135m-instruct'?"),
        (("models", "pull", "smollm2-135m"), "did you mean 'smollm2-135m-instruct'?"),
        (("models", "path", "smollm2-135m"), "did you mean 'smollm2-135m-instruct'?"),
        (("bench", "gsm8", "--model", "pool.jsonl"), "did you mean 'gsm8k'?"),
        (solve("--strategy", "best_of_n", "--verifier", "confidnce"), "did you mean 'confidence'?"),
        (solve("--temprature", "0.5"), "temperature"),
        (solve("--nn", "4"), "did you mean '--n'?"),
        (solve("--answer", "txt"), "did you mean 'text'?"),
        (("slove", QUESTION), "solve"),
        (("models", "lst"), "list"),
        (("strategies", "--jsn"), "--json"),
        (("solve", ""), "question is empty"),
        (("solve", "  \n"), "question is empty"),
        (("solve", "--model", "pool.jsonl"), "question"),
        (("solve", "What", "is", "--model", "pool.jsonl"), "quotes"),
        (solve("--n", "0"), "n must be at least 1, not 0"),
        (solve("--n", "-3"), "n must be at least 1, not -3"),
        (solve("--n", "abc"), "n: "),
        (solve("--n"), "--n needs a value"),
        (solve("--n", "--json"), "--n needs a value"),
        (solve("--budget"), "--budget"),
        (solve("--budget", ""), "20k-tokens"),
        (solve("--budget", "12foo"), "20k-tokens"),
        (solve("--budget", "0tokens"), "positive"),
        (solve("--budget", "1e999tokens"), "positive"),
        (solve("--budget", "1s,2s"), "twice"),
        (solve("--budget", "100-tokens"), "allow at least 532 tokens"),
        (solve("--budget", "1usd"), "price"),
        (solve("--budget", "1T-flops"), "shape"),
        (solve("--price", "x"), "PROMPT,COMPLETION"),
        (solve("--price", "1"), "PROMPT,COMPLETION"),
        (solve("--price", "-1,1"), "PROMPT,COMPLETION"),
        (solve("--role", "judge"), "ROLE=MODEL"),
        (solve("--role", "judge=nobody"), "no model 'nobody'"),
        (solve("--role", "model=pool.jsonl"), "ROLE=MODEL"),
        (solve("--price", "judge=1,2"), "--role judge=MODEL"),
        (solve("--seed", "abc"), "--seed"),
        (solve("--temperature", "-1"), "temperature"),
        (solve("--top-p", "0"), "top_p"),
        (solve("--max-tokens", "0"), "--max-tokens must be"),
        (solve("--prompt-template", "hello"), "{question}"),
        (solve("--strategy", "best_of_n"), "scorer"),
        (solve("--strategy", "rebase", "--prm", "confidence"), "prefix"),
        (solve("--strategy", "nomodule:Name"), "nomodule"),
        (solve("--strategy", "os:nothing"), "nothing"),
        (solve("--strategy", "best_of_n", "--verifier", "math:pi"), "verifier"),
        (solve("--strategy", "best_of_n", "--verifier", "confidence", "--aggregate", "sum"), "'last', 'min'"),
        (solve("-s", "mbr", "--n", "9"), "holds 4 samples"),
        (("solve", QUESTION, "--model", "nothing.jsonl"), "nothing.jsonl"),
        (("solve", QUESTION, "--model", "own.jsonl"), "Line 1 of own.jsonl"),
        (("solve", "What is 3+3?", "--model", "pool.jsonl", "--n", "2"), "1 problems, but not"),
        (("bench", "nothing.jsonl", "--model", "pool.jsonl"), "nothing.jsonl"),
        (("bench", "math500", "--model", "pool.jsonl"), "MATH-500"),
        (("bench", "gsm8k", "--file", "nothing.jsonl"), "nothing.jsonl"),
        (bench("--file", "x"), "gsm8k, math500, humaneval, mbpp"),
        (("bench", "humaneval", "--model", "pool.jsonl"), "openai_humaneval"),
        (solve("--model", "ftp://host/v1"), "ftp"),
        (solve("--model", "http://user:secret@localhost/v1"), "holds a user or a password"),
        (solve("--model", "http://localhost:99999/v1"), "is not the address of a server"),
        (("models", "probe", "localhost:8000"), "is not the address of a server"),
        (("replay", "pool.jsonl", "--n", "one"), "1,2,4"),
        (("replay", "pool.jsonl", "--n", "0"), "from 1 to 4"),
        (("replay", "pool.jsonl", "--strategies", "self_consistenc"), "did you mean 'self_consistency'?"),
        (("replay", "pool.jsonl", "--strategies", "self_consistency?m=3"), "hyperparameter"),
        (("replay", "pool.jsonl", "--strategies", "best_of_n"), "needs scores"),
        (("replay", "own.jsonl"), "Line 1 of own.jsonl has no samples"),
        (("replay", "nothing.jsonl"), "nothing.jsonl"),
        (("report", "pool.jsonl", "run"), "not both"),
        (("report", "own.jsonl"), "Line 1 of own.jsonl"),
        (bench("--limit", "0"), "limit must be at least 1"),
        (bench("--concurrency", "0"), "--concurrency"),
        (bench("--answer", "choice"), "options"),
        (bench("--shard", "half"), "I/K"),
        (bench("--shard", "2/2"), "0/2"),
        (bench("--out", "own.jsonl"), "own.jsonl"),
        (("pool", "own.jsonl", "--model", "pool.jsonl", "--n", "0"), "n must be at least 1"),
        (("pool", "own.jsonl", "--model", "pool.jsonl", "--out", "p.json"), ".jsonl"),
        (("report",), "runs"),
        (("report", "nothing"), "no run in nothing"),
        (("merge", "out", "nothing"), "no run in nothing"),
        (("merge", ".", "nothing"), "there already"),
        (solve("--strategy", "os:getcwd"), "os:getcwd"),
        (solve("--strategy", "outthink.types:Usage"), "run"),
        (solve("--n", "2", "--price", "nan,1"), "PROMPT,COMPLETION"),
        (solve("--n", "2", "--trace", "nowhere/traces.jsonl"), "nowhere"),
        (solve("--strategy", "best_of_n", "--n", "2", "--verifier", "judge?vote=5"), "did you mean 'votes'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_sentence_and_exit_2(outthink: Any, words: tuple[str, ...], said: str) -> None:
    result = outthink(*words)
    sentences = [line for line in result.err.splitlines() if line.strip()]
    assert len(sentences) == 1
    assert sentences[0].startswith("outthink: ")
    assert said in sentences[0]
    assert "Internal error" not in sentences[0]
    assert result.code == 2
    assert result.out == ""


def test_another_run_in_the_same_folder_is_refused(outthink: Any) -> None:
    assert outthink(*bench("--n", "4", "--out", "run")).code == 0
    result = outthink(*bench("--n", "2", "--out", "run"))
    assert result.code == 2
    assert "strategy.n is 4 there, 2 now" in result.err


def test_a_question_from_standard_input(outthink: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "question is empty" in outthink("solve", "-", "--model", "pool.jsonl").err
    monkeypatch.setattr(sys, "stdin", io.StringIO(QUESTION))
    assert outthink("solve", "-", "--model", "pool.jsonl", "--n", "2").code == 0


# ---------------------------------------------------------------- in a process of its own


def start(
    *words: str, path: Path | None = None, out: Any = subprocess.PIPE, given: str | None = None
) -> subprocess.Popen[str]:
    """The installed program; `given` goes to its standard input when it is finished with it."""
    folders = [str(path)] if path else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [OUTTHINK, *words],
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], given: str | None = None) -> Result:
    with process:
        try:
            out, err = process.communicate(given, timeout=40)
        finally:
            process.kill()  # where it has not ended
    return Result(process.returncode, out, err)


def test_the_installed_program_fails_without_a_traceback() -> None:
    result = finish(start(*solve("--n", "abc")))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("outthink: ")
    assert "Traceback" not in result.err


def test_a_strategy_from_outside_runs_by_its_module_name() -> None:
    examples = Path(__file__).parents[2] / "examples"
    result = finish(start(*solve("--strategy", "skeleton:FirstValid", "--n", "3", "--json"), path=examples))
    assert json.loads(result.out)["strategy"] == {"name": "skeleton:FirstValid", "n": 3}
    assert result.code == 0


@contextlib.contextmanager
def scoring(folder: Path, form: str = "async") -> Any:
    """A verifier that tells by a file that it was called, and does not answer while another file is there.

    Where it is synchronous it blocks its thread; where it is stubborn it cannot be cancelled.
    """
    wait = {
        "async": "await asyncio.sleep(0.02)",
        "stubborn": "await asyncio.shield(asyncio.sleep(0.02))",
        "sync": "time.sleep(0.02)",
    }[form]
    (folder / "slow.py").write_text(
        "import asyncio, pathlib, time\n"
        f"{'' if form == 'sync' else 'async '}def score(question, solution):\n"
        "    pathlib.Path('called').touch()\n"
        "    while pathlib.Path('hold').exists():\n"
        "        try:\n"
        f"            {wait}\n"
        "        except asyncio.CancelledError:\n"
        f"            {'asyncio.current_task().uncancel()' if form == 'stubborn' else 'raise'}\n"
        "    return float(solution.endswith('4'))\n"
    )
    Path("hold").touch()
    try:
        yield ("--strategy", "best_of_n", "--n", "4", "--verifier", "slow:score")
    finally:
        Path("hold").unlink()


def interrupt(process: subprocess.Popen[str]) -> Result:
    for _ in range(3000):
        if Path("called").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    return finish(process)


@pytest.mark.parametrize("form", ["async", "sync"])
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send to one process")
def test_ctrl_c_keeps_the_best_answer(folder: Path, form: str) -> None:
    with scoring(folder, form) as options:
        result = interrupt(start(*solve(*options, "--json"), path=folder))
    told = json.loads(result.out)
    assert (told["answer"], told["stopped"], result.code) == ("4", "cancelled", 130)
    assert result.err == "Interrupted; what is shown is what was paid for until then.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send to one process")
def test_a_second_ctrl_c_says_what_was_paid_for(folder: Path) -> None:
    with scoring(folder, "stubborn") as options:
        process = start(*solve(*options), path=folder)
        for _ in range(3000):
            if Path("called").exists():
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # the first one is being handled, and cannot be done
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    result = finish(process)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines()[-1].startswith("Interrupted, without an answer. Total: 53 tokens")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("place", ["outthink.cli.program.run", "outthink.cli.parsing.Command.parse_args"])
def test_ctrl_c_before_a_command_begins(outthink: Any, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def interrupted(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    result = outthink(*solve("--n", "4"))
    assert (result.code, result.out, result.err) == (130, "", "Interrupted.\n")


def test_a_deadline_ends_the_program_although_a_verifier_hangs(folder: Path) -> None:
    with scoring(folder, "sync") as options:
        result = finish(start(*solve(*options, "--budget", "1s", "--json"), path=folder))
    told = json.loads(result.out)
    assert (told["answer"], told["stopped"], result.code) == ("4", "deadline", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send to one process")
def test_ctrl_c_in_a_bench_can_be_gone_on_with(folder: Path) -> None:
    with scoring(folder) as options:
        result = interrupt(start(*bench(*options, "--out", "run"), path=folder))
        assert result.code == 130
        assert "run the same command again" in result.err
        assert "Traceback" not in result.err
    again = finish(start(*bench(*options, "--out", "run", "--json"), path=folder))
    assert json.loads(again.out)["run"]["accuracy"] == 1.0
    assert "paid again: 53 tokens" in again.err


def loaded_by(code: str) -> set[str]:
    """Which modules a new Python has after running `code`."""
    program = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=True)
    return set(told.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_slow() -> None:
    assert not loaded_by("import outthink") & {"numpy", "scipy", "pydantic", "typer", "rich", "sympy", "openvino_genai"}


def test_help_imports_no_numbers() -> None:
    help_only = "from outthink import cli\nsys.argv = ['outthink', '--help']\ntry: cli.main()\nexcept SystemExit: pass"
    assert not loaded_by(help_only) & {"numpy", "scipy", "pydantic", "sympy", "openvino_genai"}


def test_public_names_are_no_modules_whatever_was_imported_before() -> None:
    program = (
        "import importlib, pkgutil, types, outthink\n"
        "for module in pkgutil.iter_modules(outthink.__path__):\n"
        "    importlib.import_module(f'outthink.{module.name}')\n"
        "print([name for name in outthink.__all__ if isinstance(getattr(outthink, name), types.ModuleType)])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=True)
    assert told.stdout == "[]\n"


def test_a_pool_is_reported_and_replayed(outthink: Any) -> None:
    reported = outthink("report", "pool.jsonl", "--json")
    assert json.loads(reported.out)["pool.jsonl"]["at"]["1"][0] == pytest.approx(0.75)
    assert "no power law" in outthink("report", "pool.jsonl").out
    replayed = outthink("replay", "pool.jsonl", "--n", "1,4", "--subsamples", "200", "--json")
    curves = json.loads(replayed.out)["curves"]
    assert [at["n"] for at in curves["self_consistency"]] == [1, 4]
    assert curves["self_consistency"][1]["accuracy"] == pytest.approx(1.0)
    assert curves["self_consistency"][1]["tokens"] == pytest.approx(20 + 12 + 6 + 9 + 6)
    assert "| self_consistency | 4 |" in outthink("replay", "pool.jsonl", "--markdown").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "0"], "n must be at least 1, not 0."),
        (["--until", "1"], "--until must be from 2 to --n (32), not 1."),
        (["--probe-every", "0"], "--probe-every must be at least 1, not 0."),
        (["--probe-every", "5", "--until", "2"], "Give --until or --probe-every, not both."),
        (["--forced", "So"], "--forced is what --probe-every writes; give both."),
        (["--out", "x.json"], "A pool is recorded into a .jsonl file, not x.json; compress it when it is complete."),
    ],
)
def test_a_pool_that_cannot_be_meant_is_refused_before_a_model_is_opened(
    words: list[str], said: str, outthink: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "opened_engines", lambda *_: pytest.fail("a model was opened"))
    came = outthink("pool", "own.jsonl", *words)
    assert (came.code, came.err) == (2, f"outthink: {said}\n")
