"""A budget as people mean it, through every door: what the model was asked, what ran at once, what was said and billed.

The upstream records every request; time jumps, but for what brings a loop of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import outthink
from outthink.bench.run import bench
from outthink.cli.given import priced_engine
from outthink.cli.shown import print_trace, trace_json
from outthink.driver import solve_async
from outthink.errors import BudgetTooSmall, UsageError
from outthink.models.endpoint import Endpoint
from outthink.models.engine import Engine, EngineSpec, Price
from outthink.models.openai.engine import OpenAIEngine
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, read_results
from outthink.reports.report import cells, summary
from outthink.server.models import Served
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.tasks.example import Example
from outthink.types import Budget, Sampling
from tests.tools.server import BARE, Ask, Server, run, says, threaded
from tests.tools.serving import asked, chat, serving
from tests.tools.toys import problem

FOUR = "The answer is 4."
PRICE = Price(prompt=1.0, completion=10.0)
EACH = replace(BARE, stream=True, context=None)  # a request for each sample, streamed


def priced(up: Server) -> OpenAIEngine:
    return OpenAIEngine(Endpoint(up.url), EACH, price=PRICE)


@dataclass(frozen=True)
class Ran:
    """The caps that the model was asked for, how many samples ran at once, what was said and billed."""

    caps: list[int]
    at_once: int
    notes: list[str]
    usd: float
    kept: int
    """The cap that the result tells of."""


Door = Callable[[Server, dict[str, float], int | None, Path], Awaitable[Ran]]


def ran(up: Server, notes: Any, usd: float, kept: int | None) -> Ran:
    assert kept is not None
    return Ran([seen.body["max_tokens"] for seen in up.asked], up.most, list(notes), usd, kept)


async def by_library(up: Server, limits: dict[str, float], cap: int | None, folder: Path) -> Ran:
    engine = priced(up)
    sampling = Sampling(max_tokens=cap)
    trace = await solve_async(problem(), SelfConsistency(n=4), model=engine, sampling=sampling, budget=Budget(limits))
    await engine.close()
    return ran(up, trace.notes, trace.cost["usd"], trace.sampling.max_tokens)


async def by_bench(up: Server, limits: dict[str, float], cap: int | None, folder: Path) -> Ran:
    engine = priced(up)
    sampling = Sampling(max_tokens=cap)
    await bench(
        [Example(problem(), ("4",))],
        SelfConsistency(n=4),
        store=folder / "run",
        model=engine,
        sampling=sampling,
        budget=Budget(limits),
    )
    await engine.close()
    (result,) = read_results(folder / "run")
    assert result.trace is not None, result.error
    return ran(up, result.trace.notes, result.trace.cost["usd"], result.trace.sampling.max_tokens)


async def by_server(up: Server, limits: dict[str, float], cap: int | None, folder: Path) -> Ran:
    served = Served({"m": priced(up)})
    async with serving(up, served=served, strategy="self_consistency") as (url, _):
        given = {} if cap is None else {"max_tokens": cap}
        wish = {"n": 4, "answer": "math", "budget": limits}
        answer = await asked(url, chat("What is 1+1?", outthink=wish, **given))
    assert answer.status == 200, answer.body
    told = answer.json["outthink"]
    return ran(up, told["notes"], told["cost"]["usd"], told["max_tokens"])


DOORS: dict[str, Door] = {"library": by_library, "bench": by_bench, "server": by_server}
every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


def opened(door: Door, usd: float, cap: int | None, folder: Path, reply: Any = None) -> Ran:
    async def go() -> Ran:
        async with Server(reply or says(FOUR), pace=0.0 if reply else 1.0) as up:
            return await door(up, {"usd": usd}, cap, folder)

    return run(go())


# ---------------------------------------------------------------- several samples at once


@every_door
def test_the_cap_is_such_that_the_samples_fit_the_budget_at_once(door: Door, tmp_path: Path) -> None:
    """With a cap of 512 (4,096 on the server) there is room for two (none); all four run at once."""
    usd = 0.022 if door is by_server else 0.0125
    outcome = opened(door, usd, None, tmp_path)
    (cap,) = set(outcome.caps)
    assert outcome.kept == cap
    assert 256 <= cap < (4096 if door is by_server else 512)
    assert (len(outcome.caps), outcome.at_once) == (4, 4)
    assert outcome.usd <= usd
    prompt = outcome.usd  # more than the prompts of all samples
    assert 4 * cap * 10e-6 <= usd < 4 * (cap + 1) * 10e-6 + prompt, "it is the largest with which they fit"
    assert f"Samples have up to {cap:,} tokens, so that 4 fit the budget at once." in outcome.notes


@every_door
def test_a_cap_that_was_said_wins(door: Door, tmp_path: Path) -> None:
    outcome = opened(door, 0.0125, 700, tmp_path)
    assert (set(outcome.caps), outcome.kept, outcome.at_once) == ({700}, 700, 1)
    assert not any("fit" in note for note in outcome.notes)


@every_door
def test_where_there_is_room_the_cap_is_as_it_was(door: Door, tmp_path: Path) -> None:
    outcome = opened(door, 1.0, None, tmp_path)
    assert (set(outcome.caps), outcome.at_once) == ({4096 if door is by_server else 512}, 4)
    assert not any("fit" in note for note in outcome.notes)


@every_door
def test_a_budget_for_one_sample_at_a_time_is_told(door: Door, tmp_path: Path) -> None:
    """Several would be too short to be of use, so they run one after the other, as long as the default."""
    outcome = opened(door, 0.00525, None, tmp_path)
    assert outcome.at_once == 1
    assert min(outcome.caps) >= 512
    assert any("usd would do for 4" in note for note in outcome.notes)


@every_door
def test_what_the_budget_has_cut_off_is_told(door: Door, tmp_path: Path) -> None:
    def texts(ask: Ask) -> str:
        turns.append(None)
        return "and so on " * 2000 if len(turns) == 2 else FOUR

    turns: list[None] = []
    outcome = opened(door, 0.022 if door is by_server else 0.0125, None, tmp_path, texts)
    assert any(f"1 of 4 samples were cut off at {outcome.kept:,} tokens" in note for note in outcome.notes)


def test_the_server_learns_how_long_answers_are() -> None:
    """Many short answers allow a lower cap than what is taken for usual, many long ones forbid it."""

    async def go(words: int) -> tuple[set[int], int]:
        text = " ".join(["so"] * (words // 2)) + " 4"
        async with Server(says(text)) as up:
            served = Served({"m": priced(up)})
            async with serving(up, served=served, strategy="self_consistency") as (url, _):
                for _ in range(4):
                    await asked(url, chat(outthink={"n": 4, "answer": "math"}))
                before = len(up.asked)
                wish = {"n": 8, "answer": "math", "budget": {"usd": 0.012}}
                answer = await asked(url, chat(outthink=wish))
                assert answer.status == 200
                return {seen.body["max_tokens"] for seen in up.asked[before:]}, answer.json["outthink"]["max_tokens"]

    (short,), kept = run(go(60))
    assert short == kept
    assert 75 <= short < 150, "eight fit"
    (long,), _ = run(go(800))
    assert long >= 1000, "one of them fits, with what they take"


def test_what_a_caller_s_own_cap_cuts_off_says_nothing_of_others_answers() -> None:
    async def go(before: int) -> int:
        wish = {"n": 4, "answer": "math"}
        async with (
            Server(says(" ".join(["so"] * 400) + " 4")) as up,
            serving(up, served=Served({"m": priced(up)}), strategy="self_consistency") as (url, _),
        ):
            for _ in range(before):
                assert (await asked(url, chat(max_tokens=5, outthink=wish))).status == 200
            answer = await asked(url, chat(outthink={**wish, "budget": {"usd": 0.012}}))
            return int(answer.json["outthink"]["max_tokens"])

    assert run(go(4)) == run(go(0)) > 5


def test_the_operator_s_cap_wins() -> None:
    async def go() -> tuple[int, str]:
        async with Server(says(FOUR)) as up:
            settings = {"max_tokens": 4096}
            async with serving(up, served=Served({"m": priced(up)}), settings=settings) as (url, _):
                answer = await asked(url, chat(outthink={"budget": {"usd": 0.022}}))
                assert up.asked == []
                return answer.status, answer.error["message"]

    status, message = run(go())
    assert status == 400
    assert "allow at least 0.041" in message


def test_a_cap_is_sent_where_the_context_alone_would_limit_it() -> None:
    """Without a budget nothing is sent, since only the upstream knows how much its context leaves."""

    async def go(**wish: Any) -> list[Any]:
        facts = replace(EACH, context=3000)
        async with Server(says(FOUR), context=3000) as up:
            served = Served({"m": OpenAIEngine(Endpoint(up.url), facts, price=PRICE)})
            async with serving(up, served=served, strategy="self_consistency") as (url, _):
                text = "word " * 100
                answer = await asked(url, chat(text, outthink={"n": 4, "answer": "math", **wish}))
                assert answer.status == 200, answer.body
                return [seen.body.get("max_tokens") for seen in up.asked]

    assert set(run(go())) == {None}
    (cap,) = set(run(go(budget={"usd": 0.03})))
    assert 512 <= cap <= 740


def test_a_plan_s_samples_have_the_cap_that_it_was_made_with() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Fitted(SelfConsistency):
        recorded_cap: int = 900

    async def go() -> list[int]:
        async with Server(says(FOUR)) as up:
            engine = priced(up)
            await solve_async(problem(), Fitted(n=4), model=engine, budget="0.02usd")
            await engine.close()
            return [seen.body["max_tokens"] for seen in up.asked]

    assert set(run(go())) == {900}


# ---------------------------------------------------------------- budgets below one sample


@every_door
def test_a_budget_below_one_sample_names_the_least_that_would_do(door: Door, tmp_path: Path) -> None:
    async def least(usd: float, folder: Path) -> tuple[str, int]:
        async with Server(says(FOUR)) as up:
            try:
                await door(up, {"usd": usd}, None, folder)
                return "", len(up.asked)
            except (BudgetTooSmall, AssertionError) as failure:
                return str(failure), len(up.asked)

    async def quoted(usd: float) -> Any:
        async with Server(says(FOUR)) as up, serving(up, served=Served({"m": priced(up)})) as (url, _):
            return await asked(url, chat("What is 1+1?", outthink={"budget": {"usd": usd}}), path="/v1/quote")

    said, sent = run(least(0.0001, tmp_path))
    assert sent == 0
    assert "allow at least " in said
    smallest = float(said.split("allow at least ")[1].split(" ")[0])
    assert 0.00512 < smallest < 0.0054
    assert run(least(smallest, tmp_path / "enough"))[0] == ""
    assert "allow at least" in run(least(smallest * 0.999, tmp_path / "less"))[0]
    if door is by_server:
        assert [run(quoted(usd)).status for usd in (smallest, smallest * 0.999)] == [200, 400]


# ---------------------------------------------------------------- prices and units


def test_what_needs_a_price_says_how_to_give_it() -> None:
    def said(**options: Any) -> str:
        with pytest.raises(UsageError) as failure:
            outthink.solve("What is 2+2?", model=ScriptedEngine(lambda *_: FOUR), budget="1usd", **options)
        return str(failure.value)

    assert "needs the price of scripted: give --price PROMPT,COMPLETION in US dollars per million tokens" in said()
    assert "price= in Python" in said()
    judge = ScriptedEngine(lambda *_: FOUR, name="critic")
    assert "the price of critic: give --price judge=PROMPT,COMPLETION" in said(models={"judge": judge}, price="1,2")


def test_a_caller_of_the_server_is_told_which_price_is_missing() -> None:
    async def go() -> tuple[Any, int]:
        async with Server(says(FOUR)) as up, serving(up, strategy="none") as (url, _):
            answer = await asked(url, chat(outthink={"budget": {"usd": 1.0}}))
            return answer, len(up.asked)

    answer, sent = run(go())
    assert (answer.status, answer.error["param"], sent) == (400, "outthink.budget", 0)
    assert "needs the price of m: give --price" in answer.error["message"]


def command(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Exit code and what was said on both streams."""
    from outthink import cli

    monkeypatch.setattr(sys, "argv", ["outthink", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out + told.err


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where nothing is remembered of servers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    Path("prices.json").write_text(json.dumps({"m": {"prompt": 1, "completion": 10}}), encoding="utf-8")
    row = {"id": "q", "question": "What is 2+2?", "answer": "4"}
    Path("own.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


SOLVE = ["solve", "What is 2+2?", "--answer", "math", "--strategy", "self_consistency", "--n", "4"]
BENCH = ["bench", "own.jsonl", "--strategy", "self_consistency", "--n", "4", "--out", "run"]
POOL = ["pool", "own.jsonl", "--n", "4", "--out", "made.jsonl"]


def test_commands_infer_the_only_model_for_its_price_and_fit_the_cap(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with threaded(Server(says(FOUR))) as up:
        priced = ["--model", up.url, "--price", "prices.json"]
        code, said = command([*SOLVE, *priced, "--budget", "0.0125usd"], capsys, monkeypatch)
        caps = {
            seen.body["max_tokens"] for seen in up.asked if seen.body.get("n") == 4 and seen.body["max_tokens"] > 99
        }
        assert code == 0, said
        (cap,) = caps
        assert 256 <= cap < 512
        assert f"Note: Samples have up to {cap:,} tokens, so that 4 fit the budget at once." in said
        assert "USD per million (m in prices.json)" in said
        before = len(up.asked)
        said_too = [*SOLVE, *priced, "--budget", "0.0125usd", "--max-tokens", "700"]
        code, said = command(said_too, capsys, monkeypatch)
        assert (code, "fit the budget" in said) == (0, False)
        assert {seen.body["max_tokens"] for seen in up.asked[before:]} == {700}
        code, said = command([*BENCH, *priced, "--budget", "0.0125usd"], capsys, monkeypatch)
        assert code == 0, said
        assert "so that several fit the budget at once; --max-tokens sets another cap" in said
        code, said = command([*POOL, *priced], capsys, monkeypatch)
        assert code == 0, said
        (row,) = [json.loads(line) for line in Path("made.jsonl").read_text(encoding="utf-8").splitlines()]
        assert row["meta"]["price"] == {"prompt": 1.0, "completion": 10.0, "cached": None}
        assert row["meta"]["sampling"]["max_tokens"] == 512
        trace = outthink.solve("What is 2+2?", "greedy", model=up.url, price="prices.json", answer="math")
        assert trace.cost["usd"] > 0


def test_a_served_model_that_a_request_names_has_the_price_of_its_name(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prices.json").write_text(json.dumps({"org/m": {"prompt": 1, "completion": 3}}), encoding="utf-8")
    assert priced_engine("prices.json", "http://localhost:1/v1#org%2Fm") == Price(prompt=1, completion=3)
    assert "org/m in prices.json" in capsys.readouterr().err


def test_commands_that_need_a_price_or_a_model_name_what_to_give(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with threaded(Server(says(FOUR), models=("a", "b"))) as up:
        for words in (SOLVE, BENCH, POOL):
            code, said = command([*words, "--model", up.url, "--price", "auto"], capsys, monkeypatch)
            assert (code, len(up.asked)) == (2, 0)
            assert "serves 2 models: add #MODEL to the address (a, b)" in said
        with pytest.raises(UsageError, match=r"add #MODEL to the address \(a, b\)"):
            outthink.solve("What is 2+2?", model=up.url, price="auto")
        for words in (SOLVE, BENCH):
            code, said = command([*words, "--model", f"{up.url}#a", "--budget", "1usd"], capsys, monkeypatch)
            assert code == 2
            assert "A budget in usd needs the price of a: give --price PROMPT,COMPLETION" in said
        serve = ["serve", "--port", "0", "--budget", "1usd", "--upstream"]
        code, said = command([*serve, f"{up.url}#a"], capsys, monkeypatch)
        assert (code, "needs the price of a: give --price" in said) == (2, True)
        code, said = command([*serve, up.url], capsys, monkeypatch)
        assert (code, f"needs the price of the models of {up.url}: give --price" in said) == (2, True)


@pytest.mark.parametrize(
    ("text", "units", "limits"),
    [
        ("3 renders", ["renders"], {"renders": 3}),
        ("3-renders,2s", {"renders"}, {"renders": 3, "seconds": 2}),
        ("2k-renders", ["renders"], {"renders": 2000}),
        ("2kernels", ["kernels"], {"kernels": 2}),
        ("5 images", (), {"images": 5}),
        ("1.5e3anything", None, {"anything": 1500}),
    ],
)
def test_units_that_something_counts_are_read(text: str, units: Any, limits: dict[str, float]) -> None:
    assert Budget.parse(text, units).limits == limits


def test_a_unit_that_nothing_counts_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"cannot read the budget '3 renders'.*tokens, usd, seconds.*kernels"):
        Budget.parse("3 renders", ["kernels"])


class Rendering(ScriptedEngine):
    """Counts a unit of its own."""

    @property
    def spec(self) -> EngineSpec:
        return replace(super().spec, units=frozenset({"renders"}))


def test_a_unit_of_an_engine_can_be_limited_as_text() -> None:
    engine: Engine = Rendering(lambda *_: "#### 4")
    assert outthink.solve("What is 2+2?", "greedy", model=engine, answer="math", budget="3 renders").answer == "4"
    with pytest.raises(UsageError, match=r"'3 kernels'.*renders"):
        outthink.solve("What is 2+2?", "greedy", model=engine, answer="math", budget="3 kernels")


# ---------------------------------------------------------------- what was seen and what is charged


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_is_billed_near_to_what_was_written_and_both_are_told(stream: bool) -> None:
    async def go() -> tuple[Any, Server]:
        async with Server(says("word " * 400), pace=1.0) as up:
            served = Served({"m": priced(up)})
            async with serving(up, served=served, strategy="self_consistency") as (url, _):
                wish = {"n": 4, "answer": "math", "budget": {"seconds": 60.5}}
                how = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
                return await asked(url, chat(outthink=wish, max_tokens=2000, **how)), up

    answer, up = run(go())
    assert answer.status == 200
    last = answer.events[-2] if stream else answer.json
    usage, told = last["usage"], last["outthink"]
    assert told["stopped"] == "deadline"
    assert up.made > 150
    assert told["seen"]["completion"] <= up.made <= told["charged"]["completion"] <= up.made + 4 * 33
    assert up.prompt <= told["charged"]["prompt"] <= 4 * 90
    assert usage["completion_tokens"] == told["charged"]["completion"]
    assert usage["completion_tokens_details"]["seen_tokens"] == told["seen"]["completion"]
    assert usage["prompt_tokens_details"]["seen_tokens"] == told["seen"]["prompt"] == 0, "a stream tells it at its end"
    (line,) = told["ledger"]
    assert (line["completion_tokens"], line["seen"]["completion"]) == (
        usage["completion_tokens"],
        told["seen"]["completion"],
    )
    assert any("seen is what was seen" in note for note in told["notes"])
    if not stream:
        charged, seen = (int(answer.headers[f"x-outthink-{what}-tokens"]) for what in ("charged", "seen"))
        assert charged == int(answer.headers["x-litellm-total-tokens"]) == usage["total_tokens"]
        assert seen == told["seen"]["completion"]
        usd = float(answer.headers["x-litellm-response-cost"])
        assert usd == pytest.approx((usage["prompt_tokens"] + 10 * usage["completion_tokens"]) / 1e6)


def test_the_printed_ledger_and_reports_tell_both_where_they_differ(capsys: pytest.CaptureFixture[str]) -> None:
    async def cut() -> tuple[Any, Any]:
        async with Server(says("word " * 400), pace=1.0) as up:
            engine = priced(up)
            sampling = Sampling(max_tokens=2000)
            trace = await solve_async(problem(), "greedy", model=engine, sampling=sampling, budget="30.5s")
            whole = await solve_async(problem(), "greedy", model=engine, sampling=Sampling(max_tokens=40))
            await engine.close()
            return trace, whole

    trace, whole = run(cut())
    print_trace(trace)
    (line,) = trace.ledger()
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["calls", "samples", "prompt", "cached", "completion", "tokens", "seen"] in rows
    (row,) = [row for row in rows if row[:2] == ["sample", "(model)"]]
    assert row[-3:] == ["<=", f"{line.usage.tokens:,}", f"{line.seen.tokens:,}"]
    assert trace_json(trace)["ledger"][0]["seen"] == {"prompt": 0, "cached": 0, "completion": line.seen.completion}
    print_trace(whole)
    assert "seen" not in capsys.readouterr().out, "nothing differs"
    told = cells("run", summary([Result(problem="p", credit=0.0, trace=trace)]))
    assert f"{line.usage.tokens:,} ({line.seen.tokens:,} seen)" in told
    assert not any("seen" in cell for cell in cells("run", summary([Result(problem="p", credit=0.0, trace=whole)])))
