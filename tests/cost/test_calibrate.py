"""Calibration: what is measured under virtual time is found again, and what goes wrong ends with one sentence."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cost.calibration import Calibration, Row
from outthink.cost.latency import Latency, TimedRequest
from outthink.cost.measuring import Found, calibrate
from outthink.errors import EngineError, OutthinkError, PromptTooLong, Unidentified, UsageError
from outthink.models.engine import Completion, Progress, Request
from outthink.models.recorded import RecordedEngine
from outthink.models.scripted import ScriptedEngine
from outthink.types import Usage
from tests.cli.test_cli import main, write_pool
from tests.tools import virtual

EMPTY = Completion(text="", tokens=0)
TRUTH = Latency(fixed=0.02, linear=1e-4, quadratic=1e-8, step=0.02, sample=0.003, free=8.0, context=2e-7)


class Timed(ScriptedEngine):
    """Takes as long as `truth` says, noise aside; `short` makes samples end early, each at another token.

    A further sample reads the last 20 tokens of the prompt again.
    """

    def __init__(self, truth: Latency = TRUTH, *, noise: float = 0.0, short: bool = False) -> None:
        super().__init__(lambda request, child, rng: "", name="timed", context=8192)
        self._truth, self._noise, self._short = truth, noise, short
        self._rng = np.random.default_rng(0)
        self.requests: list[Request] = []

    async def generate(self, request: Request, progress: Progress) -> None:
        self.requests.append(request)
        prompt = len(request.messages[0].text)
        least = request.max_tokens // 2 if self._short else request.max_tokens
        lengths = self._rng.integers(max(least, 1), request.max_tokens + 1, request.n)
        reread = 20 * (request.n - 1)
        seconds = self._truth.seconds_of(prompt, lengths) + reread * self._truth.linear
        await asyncio.sleep(seconds * math.exp(self._noise * self._rng.standard_normal()))
        progress.prompt = prompt * request.n
        progress.cached = prompt * (request.n - 1) - reread
        for child, length in enumerate(lengths):
            progress.finish(child, replace(EMPTY, tokens=int(length)))


def measured(engine: Any = None, **options: Any) -> Found:
    return virtual.run(calibrate(engine or Timed(), **{"seed": 0, **options}))


@pytest.mark.parametrize("short", [False, True])
def test_a_known_latency_is_measured(short: bool) -> None:
    calibration = measured(Timed(short=short)).calibration
    for name in ("fixed", "linear", "step", "sample", "free", "context"):
        assert getattr(calibration.latency, name) == pytest.approx(getattr(TRUTH, name), rel=0.01), name
    assert calibration.latency.each == pytest.approx(20 * TRUTH.linear, rel=0.01)
    assert calibration.latency.again == pytest.approx(0, abs=1e-9)
    assert 1 <= calibration.spread < 1.01
    assert calibration.most == 128
    assert calibration.knee() == 8
    assert calibration.knee(share=0.2) is None  # each further sample takes 15% of a step
    assert calibration.seconds(400, 200, 16).estimate == pytest.approx(
        float(TRUTH.seconds(400, 200, 16)) + 15 * 20 * TRUTH.linear, rel=1e-3
    )


def test_it_takes_about_the_time_that_it_is_given() -> None:
    for seconds in (30.0, 100.0):
        engine = Timed(replace(TRUTH, step=0.3, sample=0.01))

        async def timed(engine: Timed = engine, seconds: float = seconds) -> float:
            await calibrate(engine, seconds=seconds)
            return asyncio.get_running_loop().time()

        assert 0.5 * seconds < virtual.run(timed()) < 1.15 * seconds


def test_no_prompt_is_asked_twice_and_few_tokens_are_spent() -> None:
    engine = Timed(replace(TRUTH, step=1e-4, sample=1e-5))
    outcome = measured(engine)
    texts = [request.messages[0].text for request in engine.requests]
    assert len({text.split()[0] for text in texts}) == len(texts)  # two alike by chance: 1 in 600, but for the seed
    assert max(request.max_tokens for request in engine.requests) == 256
    assert max(request.max_tokens * request.n for request in engine.requests) <= 4096
    assert outcome.usage.completion < 80_000
    assert all(len(set(request.seeds)) == request.n for request in engine.requests)


def test_the_interval_covers_requests_that_are_like_the_checks() -> None:
    """Noise of 10% of requests and of what is asked for later. 12 calibrations, 40 requests each, level 93%.

    Over 100 calibrations the share within the interval has a mean of 0.90 and a standard deviation of 0.11, so the
    mean of 12 is below 0.75 by chance once in 10^5.
    """
    shares = []
    rng = np.random.default_rng(1)
    for seed in range(12):
        engine = Timed(noise=0.1)
        engine._rng = np.random.default_rng(seed)
        calibration = measured(engine, most=64).calibration
        within = 0
        for _ in range(40):
            prompt, completion, n = int(rng.integers(100, 600)), int(rng.integers(20, 60)), int(rng.integers(1, 60))
            truth = TRUTH.seconds_of(prompt, [completion] * n) + 20 * (n - 1) * TRUTH.linear
            told = calibration.seconds(prompt, completion, n)
            within += told.low <= truth * math.exp(0.1 * rng.standard_normal()) <= told.high
        shares.append(within / 40)
    assert np.mean(shares) > 0.75


def test_how_many_samples_fit_into_a_time() -> None:
    calibration = measured(Timed(noise=0.1)).calibration
    assert calibration.spread > 1.05
    for seconds in (0.5, 3.0, 20.0, 1e6):
        n = calibration.samples(seconds, 200, 100)
        if n:
            assert calibration.seconds(200, 100, n).high <= seconds
        if n < calibration.most:
            assert calibration.seconds(200, 100, n + 1).high > seconds
    assert calibration.samples(0.5, 200, 100) == 0
    assert calibration.samples(1e6, 200, 100) == calibration.most == 128
    counts = [calibration.samples(seconds, 200, 100) for seconds in np.linspace(0.1, 60, 40)]
    assert counts == sorted(counts)


def test_more_samples_than_were_measured_wait_for_each_other() -> None:
    calibration = measured(most=16).calibration
    decode = float(calibration.latency.decode(100, 50, 16))
    many = calibration.seconds(100, 50, 32)
    prompt = float(calibration.latency.prefill(100) + calibration.latency.further(100, 32))
    assert many.estimate == pytest.approx(prompt + 2 * decode)
    assert many.extrapolated
    assert not calibration.seconds(100, 50, 16).extrapolated
    assert calibration.seconds(100, 10**5, 1).extrapolated
    estimates = [calibration.seconds(100, 50, n).estimate for n in range(1, 60)]
    assert estimates == sorted(estimates)
    for wrong in ((-1, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="at least"):
            calibration.seconds(*wrong)


def test_the_file_says_everything_and_is_read_again(tmp_path: Path) -> None:
    calibration = measured(Timed(noise=0.05, short=True)).calibration
    path = tmp_path / "calibration.json"
    path.write_text(calibration.text(), encoding="utf-8")
    assert Calibration.open(path) == calibration
    raw = json.loads(path.read_text())
    assert list(raw) == ["schema", "engine", "date", "machine", "measured", "fitted", "checked"]
    assert raw["engine"] == "timed"
    assert raw["machine"]["engine"] == "Timed"
    assert raw["machine"]["cores"] >= 1
    checks = [row for row in raw["measured"] if row["use"] == "check"]
    assert len(checks) >= 9
    factors = sorted(max(row["measured over fitted"], 1 / row["measured over fitted"]) for row in checks)
    place = math.ceil((len(checks) + 1) * 0.9)
    assert raw["checked"]["spread"] == pytest.approx(factors[place - 1], rel=1e-3)
    assert raw["checked"]["level"] == pytest.approx(place / (len(checks) + 1))
    assert len(path.read_text()) < 20_000


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, told in ((0.3, False), (1.7, True)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        outcome = measured()
        assert any("Other programs" in note for note in outcome.notes) == told
        assert outcome.calibration.machine["load"] == load


def test_the_level_is_what_few_checks_reach() -> None:
    asked = ((50, 9, 1), (50, 9, 2), (50, 9, 8), (50, 9, 32), (200, 1, 1), (600, 1, 1), (600, 5, 4), (900, 1, 1))
    rows = []
    for prompt, length, n in asked:
        lengths = (length,) * n
        timed = TimedRequest(prompt=prompt, lengths=lengths, seconds=TRUTH.seconds_of(prompt, lengths))
        rows.append(Row(timed=timed, use="fit"))
    check = [
        Row(timed=replace(rows[2].timed, seconds=rows[2].timed.seconds * off), use="check") for off in (0.8, 1, 1.1)
    ]
    calibration = Calibration.made("e", "d", {}, rows + check)
    assert calibration.level == pytest.approx(3 / 4)
    assert calibration.spread == pytest.approx(1.25, rel=1e-3)  # too fast counts as much as too slow
    with pytest.raises(Unidentified, match="3 checks; there are 2"):
        Calibration.made("e", "d", {}, rows + check[1:])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:40], "is no JSON"),
        (lambda text: "[]", "not a calibration of version 1"),
        (lambda text: text.replace('"schema": 1', '"schema": 9'), "not a calibration of version 1"),
        (lambda text: text.replace('"step":', '"stop":'), "damaged calibration"),
        (lambda text: text.replace('"fixed": 0', '"fixed": -1'), "damaged calibration"),
        (lambda text: text.replace('"use": "check"', '"use": "chock"'), "damaged calibration"),
        (lambda text: text.replace('"spread": 1', '"spread": 0'), "damaged calibration"),
        (lambda text: text.replace('"measured"', '"guessed"'), "damaged calibration"),
    ],
)
def test_what_is_no_calibration_is_refused(change: Callable[[str], str], said: str, tmp_path: Path) -> None:
    text = measured().calibration.text()
    path = tmp_path / "c.json"
    path.write_text(change(text))
    assert path.read_text() != text
    with pytest.raises(UsageError, match=said):
        Calibration.open(path)
    with pytest.raises(UsageError, match="Cannot read"):
        Calibration.open(tmp_path / "nothing.json")


# ---- what goes wrong ----------------------------------------------------------------------------------------------


class Failing(Timed):
    """Does `wrong` with requests for at least `at` samples."""

    def __init__(self, wrong: str, at: int = 1, after: int = 0) -> None:
        super().__init__()
        self._wrong, self._at, self._after = wrong, at, after

    async def generate(self, request: Request, progress: Progress) -> None:
        await super().generate(request, progress)
        if request.n < self._at or len(self.requests) <= self._after:
            return
        if self._wrong == "fails":
            raise EngineError("Out of memory.")
        if self._wrong == "in part":
            progress.results[-1] = EngineError("One is lost.")
        if self._wrong == "hangs":
            await asyncio.sleep(1e9)
        if self._wrong == "tells nothing":
            progress.prompt = 0


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("fails", EngineError, "Out of memory"),
        ("in part", EngineError, "One is lost"),
        ("hangs", EngineError, r"timed did not answer within 115 s, so nothing was measured\."),
        ("tells nothing", UsageError, "does not tell how many tokens"),
    ],
)
def test_an_engine_that_does_not_work_is_one_sentence(wrong: str, error: type[OutthinkError], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        measured(Failing(wrong))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "said"), [("fails", "Out of memory"), ("hangs", "had not ended"), ("in part", "lost")]
)
def test_what_was_measured_before_a_failure_is_kept(wrong: str, said: str) -> None:
    outcome = measured(Failing(wrong, at=32))
    assert outcome.calibration.most == 24
    assert outcome.calibration.spread < 1.05  # one size beyond the bend says less about it
    assert any(said in note for note in outcome.notes)
    assert [note for note in outcome.sentences(0.1) if said in note]


def test_a_failure_in_the_second_round_ends_it() -> None:
    outcome = measured(Failing("fails", after=2 + 21))  # the warm-up and one round
    assert outcome.calibration.most == 128
    assert len(outcome.calibration.rows) == 21
    assert outcome.calibration.spread < 1.01
    assert any("Out of memory" in note for note in outcome.notes)


def test_too_short_a_time_is_told() -> None:
    slow = Timed(replace(TRUTH, step=20.0))
    with pytest.raises((Unidentified, EngineError), match=r"more seconds|did not answer"):
        measured(slow, seconds=300)
    with pytest.raises(Unidentified, match="Allow more seconds"):
        measured(Timed(replace(TRUTH, step=0.5)), seconds=25)
    with pytest.raises(Unidentified, match=r"numbers of samples.*Out of memory"):
        measured(Failing("fails", at=2))


def test_an_engine_that_takes_no_time_is_refused() -> None:
    with pytest.raises(Unidentified, match="some time"):
        measured(Timed(Latency()))


def test_a_small_context_leaves_long_prompts_out() -> None:
    class Small(Timed):
        async def bound(self, request: Request) -> Usage:
            if len(request.messages[0].text) > 1500:
                raise PromptTooLong("too long")
            return await super().bound(request)

    calibration = measured(Small()).calibration
    assert max(row.timed.prompt for row in calibration.rows) <= 1500
    assert calibration.latency.step == pytest.approx(TRUTH.step, rel=0.01)


def test_what_is_cached_of_a_chat_template_is_not_read() -> None:
    class Cached(Timed):
        async def generate(self, request: Request, progress: Progress) -> None:
            await super().generate(request, progress)
            if request.n == 1:
                progress.cached = 30

    engine = Cached()
    calibration = measured(engine, most=2).calibration
    alone = [len(request.messages[0].text) - 30 for request in engine.requests[2:] if request.n == 1]
    assert [row.timed.prompt for row in calibration.rows if row.timed.samples == 1] == alone


def test_a_recorded_pool_has_no_speed(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool.jsonl")
    with pytest.raises(UsageError, match="plays back"):
        measured(RecordedEngine.open(tmp_path / "pool.jsonl"))
    for wrong in ({"seconds": 0.0}, {"most": 1}):
        with pytest.raises(ValueError, match="at least 2"):
            measured(Timed(), **wrong)


def test_it_can_be_given_up() -> None:
    running = 0

    class Watched(Timed):
        async def generate(self, request: Request, progress: Progress) -> None:
            nonlocal running
            running += 1
            try:
                await super().generate(request, progress)
            finally:
                running -= 1

    async def go() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(7.0, stop.set)
        with pytest.raises(asyncio.CancelledError):
            await calibrate(Watched(), stop=stop)
        return asyncio.get_running_loop().time()

    assert virtual.run(go()) == pytest.approx(7.0)
    assert running == 0


# ---- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def outthink(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*words: str, engine: Any = None) -> Any:
        monkeypatch.setattr("outthink.models.open_engine", lambda name, *, price=None: engine or Timed())
        return main(words, capsys, monkeypatch)

    return run


class Quick(Timed):
    """Real time, a hundredth of a second a request."""

    async def generate(self, request: Request, progress: Progress) -> None:
        prompt = len(request.messages[0].text)
        await asyncio.sleep(2e-3 + 1e-6 * prompt + 1e-5 * request.max_tokens + 1e-5 * request.n)
        progress.prompt = prompt * request.n
        progress.cached = prompt * (request.n - 1)
        for child in range(request.n):
            progress.finish(child, replace(EMPTY, tokens=request.max_tokens))


def test_the_command_writes_and_shows_a_calibration(outthink: Any) -> None:
    result = outthink("calibrate", "http://localhost:8000/v1#Qwen/Small", "--most", "16", engine=Quick())
    assert result.code == 0
    assert result.out.rstrip().endswith("calibration-Qwen-Small.json")
    assert "tokens read and" in result.out
    assert "used to" in result.out
    assert Calibration.open("calibration-Qwen-Small.json").most == 16
    written = json.loads(outthink("calibrate", "m", "--most", "4", "-o", "c.json", "--json", engine=Quick()).out)
    assert written["engine"] == "timed"
    assert json.loads(Path("c.json").read_text()) == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "nowhere/c.json"), "Cannot write nowhere/c.json"),
        (("-o", "c.txt"), "name a .json file"),
        (("--most", "1"), "--most"),
        (("--seconds", "0"), "--seconds"),
    ],
)
def test_mistakes_of_the_command(outthink: Any, words: tuple[str, ...], said: str) -> None:
    result = outthink("calibrate", "m", *words, engine=Quick())
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_ctrl_c_writes_nothing(outthink: Any) -> None:
    class Interrupted(Quick):
        async def generate(self, request: Request, progress: Progress) -> None:
            if len(self.requests) > 3:
                signal.raise_signal(signal.SIGINT)
            self.requests.append(request)
            await super().generate(request, progress)

    result = outthink("calibrate", "m", "-o", "c.json", engine=Interrupted())
    assert (result.code, result.out) == (130, "")
    assert result.err == "Interrupted: c.json was not written.\n"
    assert not Path("c.json").exists()


def test_a_failure_of_the_command_is_one_sentence(outthink: Any) -> None:
    result = outthink("calibrate", "m", "-o", "c.json", engine=Failing("fails"))
    assert (result.code, result.out, result.err) == (1, "", "outthink: Out of memory.\n")
    assert not Path("c.json").exists()


# ---- prices on the command line -----------------------------------------------------------------------------------

SOLVE = ("solve", "What is 2+2?", "--model", "pool.jsonl", "--n", "4", "--json")


def test_prices_may_be_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pool(Path("pool.jsonl"))
    Path("prices.json").write_text('{"pool.jsonl": {"prompt": 1, "completion": 10, "cached": 0}}')
    result = main((*SOLVE, "--price", "prices.json"), capsys, monkeypatch)
    assert json.loads(result.out)["cost"]["usd"] == pytest.approx((20 + 10 * 33) / 1e6)
    assert result.err == "Price: 1 prompt, 10 completion, 0 cached, USD per million (pool.jsonl in prices.json).\n"
    pytest.importorskip("genai_prices")
    result = main((*SOLVE, "--price", "auto"), capsys, monkeypatch)
    assert (result.code, result.out) == (2, "")
    assert "no price of 'pool.jsonl' in genai-prices" in result.err
    judge = ("--role", "judge=gpt-4.1-mini", "--price", "judge=auto")
    result = main((*SOLVE, *judge), capsys, monkeypatch)
    assert "openai gpt-4.1-mini in genai-prices" in result.err
    assert "no model 'gpt-4.1-mini'" in result.err
