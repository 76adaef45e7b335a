"""DeepConf: its measures, its bar, and that what falls below it is cut, charged and has no vote."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outthink.bench.pool import record_pool
from outthink.driver import solve, solve_async
from outthink.errors import MissingResource, UsageError
from outthink.maths.selection import Drawn
from outthink.models.engine import Completion, Progress, Request
from outthink.models.recorded import RecordedEngine
from outthink.models.scripted import ScriptedEngine
from outthink.records.pools import read_pool
from outthink.reports.replay import replay_pool
from outthink.strategies.parallel.deepconf import DeepConf, Falling, bar, confidence, falls, windows
from outthink.tasks import load
from outthink.types import Sampling, Trace
from tests.tools.server import Server, engine_on
from tests.tools.server import run as run_on_network
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

values = st.lists(st.floats(0, 20), min_size=1, max_size=40)


@given(values, st.integers(1, 50))
def test_windows_of_a_constant_are_the_constant_and_no_window_leaves_the_range(row: list[float], window: int) -> None:
    assert windows(np.full(len(row), row[0]), window) == pytest.approx(row[0])
    groups = windows(row, window)
    assert len(groups) == max(1, len(row) - window + 1)
    assert min(row) - 1e-9 <= groups.min() <= groups.max() <= max(row) + 1e-9


def test_measures_by_hand() -> None:
    row = [4.0, 2.0, 0.0, 2.0, 6.0]  # windows of two: 3, 1, 1, 4
    assert windows(row, 2) == pytest.approx([3, 1, 1, 4])
    assert confidence(row, 2, "lowest") == 1
    assert confidence(row, 2, "tail") == 4
    assert confidence(row, 2, "mean") == pytest.approx(2.8)
    assert confidence(list(range(21)), 2, "bottom") == pytest.approx((0.5 + 1.5) / 2)  # the lowest 2 of 20
    assert confidence([], 2, "mean") == confidence([], 2, "lowest") == 0


def test_the_bar_is_the_percentile_of_the_card() -> None:
    lowest = np.arange(11.0)
    assert bar(lowest, 0.9) == pytest.approx(1)  # the 10th percentile where 90% are kept
    assert bar(lowest, 0.1) == pytest.approx(9)
    assert bar(lowest, 1.0) == 0


class Thinker(ScriptedEngine):
    """Writes a token a second; each thought has its own answer and confidences.

    Args:
        thoughts: (answer, confidences), one for each child.
        streams: tell confidences while they are written, and not in the end alone.
    """

    def __init__(self, thoughts: list[tuple[int, list[float]]], streams: bool) -> None:
        super().__init__(lambda request, child, rng: "")
        self.thoughts, self.streams = thoughts, streams
        self.controls: list[Any] = []

    async def generate(self, request: Request, progress: Progress) -> None:
        self.controls.append(request.controls)
        progress.slack, progress.prompt = 0, request.n

        async def child(place: int) -> None:
            answer, confidences = self.thoughts[request.child + place]
            for written, value in enumerate(confidences, 1):
                await asyncio.sleep(1)
                progress.tokens[place] = written
                if progress.watch is not None and self.streams:
                    progress.watch(place, [value])
            seen = {"k": 5, "confidences": confidences}
            text = f"#### {answer}"
            done = Completion(text=text, tokens=len(confidences), observed={"top_logprobs": seen})
            progress.finish(place, done)

        await asyncio.gather(*map(child, range(request.n)))


def solved(thoughts: list[tuple[int, list[float]]], *, streams: bool = True, **settings: Any) -> tuple[Trace, Thinker]:
    engine = Thinker(thoughts, streams)
    how = DeepConf(**{"n": len(thoughts), "warm_up": 2, "window": 2, "keep": 0.5, "threshold": 2.0, **settings})
    return run(solve_async(problem(), how, model=engine, sampling=Sampling(max_tokens=50))), engine


STEADY, FALLING = [5.0] * 6, [5.0, 5.0, 1.0, 1.0, 5.0, 5.0]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_thought_is_cut_the_moment_its_window_falls_below_the_bar(ahead: int) -> None:
    trace, engine = solved([(1, STEADY), (2, [4.0] * 6), (2, FALLING), (1, STEADY), (2, FALLING)], ahead=ahead)
    assert trace.answer == "1"
    assert trace.usage.completion == 6 + 6 + 3 + 6 + 3, "a cut thought has its three tokens, and is charged for them"
    assert len(trace.candidates) == 3, "and has no vote"
    assert sum(call.outcome == "cancelled" for call in trace.calls) == 2
    assert engine.controls[0] == {"top_logprobs": 20}
    assert trace.notes == ("confidence is of the 5 likeliest tokens that were told, not of 20",)


def test_what_is_told_in_the_end_alone_is_cut_all_the_same() -> None:
    thoughts = [(1, STEADY), (2, [4.0] * 6), (2, FALLING), (1, STEADY), (2, FALLING)]
    early, late = solved(thoughts)[0], solved(thoughts, streams=False)[0]
    assert late.rounds[-1].candidates == early.rounds[-1].candidates
    assert (late.answer, late.rounds[-1].confidence) == (early.answer, early.rounds[-1].confidence)
    assert late.usage.completion == 5 * 6, "all of it is charged"


def test_a_bar_that_nothing_falls_below_is_self_consistency() -> None:
    thoughts = [(1, [3.0] * 4), (2, [3.0] * 4), (2, [3.0] * 5), (1, [3.0] * 6), (2, [3.0] * 3)]
    trace, _ = solved(thoughts)
    assert trace.answer == "2"
    assert trace.rounds[-1].confidence == pytest.approx(3 / 5)
    assert trace.usage.completion == 22


def test_it_stops_at_the_leader_s_share_and_cancels_what_is_in_flight() -> None:
    trace, _ = solved([(1, STEADY)] * 6, threshold=0.95)
    assert trace.usage.completion == 12
    assert trace.answer == "1"


def test_the_offline_form_votes_with_the_best_share() -> None:
    thoughts = [(1, [1.0] * 4), (1, [1.0] * 4), (2, [9.0] * 4), (1, [2.0] * 4)]
    trace, _ = solved(thoughts, warm_up=9, keep=0.25)
    assert trace.answer == "2"
    assert trace.usage.completion == 16
    assert solved(thoughts, warm_up=9, keep=1.0, measure="mean")[0].answer == "2"  # 9 against 4
    assert solved(thoughts, warm_up=9, keep=1.0, measure="tail")[0].rounds[-1].confidence == pytest.approx(9 / 13)


def test_a_server_s_stream_is_watched_as_it_is_written() -> None:
    async def go() -> Trace:
        async with Server(top=(("a", -1.0), ("b", -3.0))) as server:
            engine = engine_on(server)
            trace = await solve_async(problem(), DeepConf(n=2, warm_up=1, window=1, ahead=1, threshold=2), model=engine)
            await engine.close()
            assert all(seen.body["top_logprobs"] == 20 and seen.body["logprobs"] for seen in server.asked)
            return trace

    trace = run(go())
    for one in trace.candidates:
        assert set(one.observed["top_logprobs"]["confidences"]) == {2.0}
        assert one.observed["top_logprobs"]["k"] == 2


def test_a_model_that_does_not_tell_the_likeliest_tokens_is_refused() -> None:
    class Silent(ScriptedEngine):
        @property
        def spec(self) -> Any:
            import dataclasses

            return dataclasses.replace(super().spec, powers=frozenset({"logprobs"}))

    with pytest.raises(MissingResource, match="top_logprobs"):
        run(solve_async(problem(), DeepConf(), model=Silent(coin(0.5)._reply)))


@pytest.mark.parametrize("wrong", [{"keep": 0.0}, {"k": 1}, {"measure": "best"}, {"window": 0}, {"threshold": 0.0}])
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeepConf(**wrong)


# ---------------------------------------------------------------------------------------------------------- recorded


@given(values, st.integers(1, 12), st.floats(0, 20))
def test_where_a_recorded_thought_falls_is_where_one_that_is_written_does(
    row: list[float], window: int, least: float
) -> None:
    assume(min(abs(windows(row, window) - least)) > 1e-6)  # sums in another order differ in the last place
    falling, fell = Falling(window, least), np.inf
    for token, value in enumerate(row, 1):
        falling(0, [value])
        if falling.low.is_set():
            fell = min(fell, token)
    assert falls(row, window, least) == fell
    assert falls(row, window, [least, -1.0, np.inf]).tolist()[:2] == [fell, np.inf]


def recorded(thoughts: list[tuple[int, list[float]]], tmp_path: Path, k: int = 5) -> Path:
    """A pool of them, of one problem."""
    path = tmp_path / f"pool-{k}.jsonl"
    samples = [
        {
            "text": f"#### {answer}",
            "tokens": len(row),
            "finish": "eos",
            "answer": str(answer),
            "correct": answer == 1,
            "confidences": row,
        }
        for answer, row in thoughts
    ]
    line = {"id": "p", "question": "?", "answer": "1", "prompt_tokens": 1, "likeliest": k, "samples": samples}
    path.write_text(json.dumps(line) + "\n")
    return path


def in_order(path: Path, n: int) -> Drawn:
    """The recorded samples as they stand in the file."""
    (row,) = read_pool(path).problems
    assert row.keys is not None
    assert row.tokens is not None
    order = np.arange(n)[None]
    return Drawn(
        keys=row.keys[order],
        tokens=row.tokens[order].astype(float),
        lengths=np.zeros((1, n)),
        complete=np.ones((1, n), dtype=bool),
        logprobs=None,
        scores=None,
        verdicts=None,
        paths=order,
        texts=None,
        order=order,
        confidences=row.confidences,
    )


@pytest.mark.parametrize("settings", [{}, {"threshold": 0.6}, {"warm_up": 9, "keep": 0.4, "measure": "mean"}])
def test_a_replay_does_what_a_live_run_does_one_after_the_other(settings: dict[str, Any], tmp_path: Path) -> None:
    thoughts = [(1, STEADY), (2, [4.0] * 6), (2, FALLING), (1, STEADY), (2, FALLING), (3, [9.0] * 7)]
    how = {"n": 6, "warm_up": 2, "window": 2, "keep": 0.5, "threshold": 2.0, "ahead": 1, **settings}
    trace, _ = solved(thoughts, **how)
    again = DeepConf(**{"k": 5, **how}).replay(in_order(recorded(thoughts, tmp_path), 6))
    cut = sum(call.n for call in trace.calls if call.outcome == "cancelled")
    assert again.used == len(trace.rounds[-1].candidates) + cut
    assert thoughts[int(again.index[0])][0] == int(trace.answer or 0)
    spent = sum(len(row) for _, row in thoughts) if again.tokens is None else again.tokens[0]
    assert spent == trace.usage.completion


def test_a_pool_that_nothing_falls_below_gives_self_consistency_and_its_tokens(tmp_path: Path) -> None:
    """Accuracies of 400 subsamples differ by less than six of their standard deviations, .025; a false alarm in 1e8."""
    thoughts = [(1, [3.0] * 4), (2, [3.0] * 5), (1, [3.0] * 6), (2, [3.0] * 7), (1, [3.0] * 8)]
    path = recorded(thoughts, tmp_path)
    mine = "deepconf?k=5&warm_up=1&window=3&keep=1&threshold=2"
    curves = replay_pool(path, ["self_consistency", mine], subsamples=400).curves
    for n, at in curves["self_consistency"].items():
        if n != 2:  # ties are broken by length there
            assert curves[mine][n].accuracy == pytest.approx(at.accuracy, abs=0.15)
        assert curves[mine][n].tokens == pytest.approx(at.tokens, rel=0.1)
    exact = curves[mine][5]
    assert exact.accuracy[0] == 1.0
    assert exact.tokens == pytest.approx([1 + 30])


def test_confidences_of_other_likeliest_tokens_are_not_taken_for_these(tmp_path: Path) -> None:
    path = recorded([(1, STEADY), (1, STEADY)], tmp_path, k=20)
    with pytest.raises(UsageError, match="set k=20"):
        replay_pool(path, ["deepconf?k=5"])
    bare = tmp_path / "bare.jsonl"
    line = json.loads(path.read_text())
    bare.write_text(json.dumps({**line, "samples": [{**one, "confidences": None} for one in line["samples"]]}) + "\n")
    with pytest.raises(UsageError, match="--top-logprobs"):
        replay_pool(bare, ["deepconf"])


@pytest.mark.parametrize("wrong", [{"confidences": 3}, {"confidences": [-1.0]}, {"confidences": ["a"]}])
def test_what_is_no_confidence_is_refused_with_its_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    path = recorded([(1, STEADY)], tmp_path)
    line = json.loads(path.read_text())
    line["samples"][0] |= wrong
    path.write_text(json.dumps(line) + "\n")
    for opened in (read_pool, RecordedEngine.open):
        with pytest.raises(UsageError, match=r"Line 1 .*confidence"):
            opened(path)


@pytest.mark.parametrize("probe_every", [None, 4])
def test_a_pool_keeps_what_a_server_tells_and_plays_it_back(probe_every: int | None, tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"

    def reply(ask: Any) -> str:
        whole = f"{ask.rng.randrange(1000, 9999)} a b c d\n#### {ask.rng.randrange(2)}"
        return "#### 1" if ask.prefix else whole

    async def go() -> list[Any]:
        async with Server(reply, top=(("a", -1.0), ("b", -3.0))) as server:
            engine = engine_on(server)
            examples = load("gsm8k", path=Path("src/outthink/data/gsm8k_sample.jsonl"), split="train", limit=2)
            how = {"n": 3, "probe_every": probe_every, "top_logprobs": 2, "sampling": Sampling(max_tokens=40)}
            standing = await record_pool(examples, model=engine, path=path, **how)  # type: ignore[arg-type]
            await engine.close()
            assert (standing.done, standing.failed) == (2, {})
            return examples

    examples = run_on_network(go())
    for line in map(json.loads, path.read_text().splitlines()):
        assert line["likeliest"] == 2
        for sample in line["samples"]:
            assert len(sample["confidences"]) == sample["tokens"] > 5
    replay_pool(path, ["deepconf?k=2&warm_up=1&window=3"], ns=[2, 3], answer="math", subsamples=5)
    if probe_every is None:
        how = DeepConf(n=3, warm_up=1, window=3, k=2, ahead=1, threshold=2)
        engine = RecordedEngine.open(path)
        trace = solve(examples[0].problem, how, model=engine, sampling=Sampling(max_tokens=40))
        assert trace.notes == ()
        assert all(one.observed["top_logprobs"]["k"] == 2 for one in trace.candidates)
        few = {"problem": examples[0].problem.id, "controls": {"top_logprobs": 1}}
        with pytest.raises(UsageError, match="confidences from the 2 likeliest tokens, not from 1"):
            run(engine.bound(Request(messages=examples[0].problem.messages, **few)))
