"""Iterative deepening: its schedules, where the trigger goes, and what must equal plain sampling."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, NothingCameBack
from outthink.models import catalog
from outthink.models.engine import EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards import Path
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.parallel.weighted_best_of_n import WeightedBestOfN
from outthink.strategies.sequential.iterative_deepening import TRIGGER, IterativeDeepening, schedule
from outthink.types import Candidate, Problem, Sampling, Trace, path
from tests.tools.local import genai_or_skip
from tests.tools.toys import problem
from tests.tools.virtual import run


def solved(strategy: Any, reply: Reply, most: int = 100, **options: Any) -> Trace:
    engine = ScriptedEngine(reply)
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=most), **options))


def writing(*lengths: int) -> Reply:
    """Answer k has so many letters, in whatever pieces and with whatever between them, and then its number."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        chain = child if request.address[1] == 0 else int(request.address[2])
        written = request.prefix_text.replace(TRIGGER, "")
        whole = "x" * (lengths[chain % len(lengths)] - 6) + f"#### {chain % 10}"
        return whole[len(written) :]

    return reply


def pieces(trace: Trace, chain: int) -> list[Candidate]:
    """The pieces of an answer that the model wrote."""
    end = next(
        candidate for candidate in map({c.id: c for c in trace.candidates}.get, trace.rounds[-1].candidates)
        if candidate is not None and candidate.address[1:3] in ((0, chain), ("chain", chain))
    )  # fmt: skip
    return [piece for piece in path(end, {c.id: c for c in trace.candidates}) if piece.address[-2] != "inject"]


def injected(trace: Trace) -> list[Candidate]:
    return [candidate for candidate in trace.candidates if candidate.address[-2] == "inject"]


# ---- the schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("b0", "gamma", "total", "convention", "expected"),
    [
        (512, 2.0, 4096, "segment", [512, 1024, 2048, 512]),
        (512, 1.5, 4096, "segment", [512, 768, 1152, 1664]),
        (200, 1.2, 1000, "segment", [200, 240, 288, 272]),
        (512, 1.0, 2048, "segment", [512] * 4),
        (512, 2.0, 4096, "cumulative", [512, 512, 1024, 2048]),
        (512, 1.5, 4096, "cumulative", [512, 256, 384, 576, 864, 1296, 208]),
        (200, 1.2, 1000, "cumulative", [200, 40, 48, 58, 69, 83, 99, 120, 143, 140]),
        (512, 2.0, 512, "segment", [512]),
        (512, 1e308, 4096, "segment", [512, 3584]),
        (512, 1e308, 4096, "cumulative", [512, 3584]),
        (10**9, 2.0, 7, "segment", [7]),
        (1, 1.0, 3, "segment", [1, 1, 1]),
        (1, 1 + 1e-9, 3, "cumulative", [1, 1, 1]),
    ],
)
def test_worked_schedules(b0: int, gamma: float, total: int, convention: Any, expected: list[int]) -> None:
    assert schedule(b0, gamma, total, convention) == expected


@given(st.integers(1, 3000), st.floats(1.0, 9.0), st.integers(1, 3000), st.sampled_from(["segment", "cumulative"]))
def test_a_schedule_is_used_up_and_grows(b0: int, gamma: float, total: int, convention: Any) -> None:
    found = schedule(b0, gamma, total, convention)
    assert sum(found) == total
    assert min(found) >= 1
    assert found[0] == min(b0, total)
    if convention == "segment":
        assert found[:-1] == sorted(found[:-1])


# ---- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "segments"),
    [(8, [8]), (10, [10]), (11, [10, 1]), (30, [10, 20]), (31, [10, 20, 1]), (100, [10, 20, 40, 30])],
)
def test_an_answer_is_written_in_pieces_with_the_trigger_between_them(length: int, segments: list[int]) -> None:
    trace = solved(IterativeDeepening(n=1, b0=10), writing(length))
    assert [piece.tokens for piece in pieces(trace, 0)] == segments
    assert [put.text for put in injected(trace)] == [TRIGGER] * (len(segments) - 1)
    assert (trace.text or "").replace(TRIGGER, "") == "x" * (length - 6) + "#### 0"
    assert (trace.answer, trace.stopped) == ("0", "finished")
    # the trigger is read and not written
    assert trace.usage.completion == length == sum(candidate.tokens for candidate in trace.candidates)
    assert sum(call.charged.prompt for call in trace.calls) == 12 * len(segments) + sum(
        sum(segments[:count]) + len(TRIGGER) * count for count in range(1, len(segments))
    )


def test_what_does_not_end_stays_without_an_answer() -> None:
    trace = solved(IterativeDeepening(n=2, b0=10), writing(101, 200))
    for chain in (0, 1):
        assert [piece.tokens for piece in pieces(trace, chain)] == [10, 20, 40, 30]
    assert (trace.answer, trace.stopped, len(trace.rounds)) == (None, "finished", 4)
    assert trace.usage.completion == 200


def test_only_what_is_unfinished_goes_on_and_all_of_it_as_one_batch() -> None:
    seen: list[tuple[float, int, int]] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append((asyncio.get_running_loop().time(), len(request.prefix_text), request.max_tokens))
        return str(writing(8, 25, 60, 65)(request, child, rng))

    engine = ScriptedEngine(reply, latency=lambda request, child: 1.0)
    trace = run(solve_async(problem(), IterativeDeepening(n=4, b0=10), model=engine, sampling=Sampling(max_tokens=100)))
    assert [time for time, _, _ in seen] == [0.0] * 4 + [1.0] * 3 + [2.0] * 2
    assert [most for _, _, most in seen] == [10] * 4 + [20] * 3 + [40] * 2
    assert [len(answered.candidates) for answered in trace.rounds] == [4, 4, 4]
    assert [piece.tokens for piece in pieces(trace, 1)] == [10, 15]


def test_segments_go_on_from_the_tokens_that_were_written() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return str(writing(100)(request, child, rng))

    trace = solved(IterativeDeepening(n=1, b0=10), reply)
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    for request, piece in zip(seen, pieces(trace, 0), strict=True):
        before = path(piece, by_id)[:-1]
        assert request.prefix_ids == tuple(token for segment in before for token in segment.token_ids or ())
        assert request.prefix_text == "".join(segment.text for segment in before)


def noisy(request: Request, child: int, rng: np.random.Generator) -> str:
    return "x" * int(rng.integers(1, 20)) + f"#### {int(rng.integers(3))}"


@pytest.mark.parametrize(
    "parameters", [{"b0": 512}, {"b0": 30, "gamma": 1e300}, {"b0": 100, "convention": "cumulative"}]
)
def test_what_ends_in_its_first_piece_is_plain_sampling(parameters: dict[str, Any]) -> None:
    for seed in range(5):
        trace = solved(IterativeDeepening(n=5, **parameters), noisy, seed=seed)
        plain = solved(SelfConsistency(n=5), noisy, seed=seed)
        assert trace.candidates == plain.candidates
        assert (trace.answer, trace.confidence, trace.usage) == (plain.answer, plain.confidence, plain.usage)
        assert trace.rounds[-1].chosen == plain.rounds[-1].chosen


def test_an_answer_with_an_empty_trigger_and_without_chance_is_that_of_an_uninterrupted_run() -> None:
    def counting(request: Request, child: int, rng: np.random.Generator) -> str:
        """Greedy: what follows depends on the text so far alone."""
        whole = "".join(f"{number * number % 97} " for number in range(40)) + "#### 5"
        assert whole.startswith(request.prefix_text)
        return whole[len(request.prefix_text) :]

    plain = solved("greedy", counting, 200)
    for parameters in ({"b0": 3}, {"b0": 7, "gamma": 1.0}, {"b0": 5, "gamma": 1.3, "convention": "cumulative"}):
        trace = solved(make_strategy("iterative_deepening", {"n": 1, "trigger": "", **parameters}), counting, 200)
        assert not injected(trace)
        assert len(pieces(trace, 0)) > 3
        assert (trace.text, trace.answer) == (plain.text, plain.answer)
        assert trace.usage.completion == plain.usage.completion
        ids = [token for piece in pieces(trace, 0) for token in piece.token_ids or ()]
        assert tuple(ids) == plain.candidates[0].token_ids


def test_the_last_answer_of_the_whole_text_counts() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 1\nso #### 2" if request.prefix_text else "#### 7 and more to say"

    assert solved(IterativeDeepening(n=1, b0=10), reply).answer == "2"


# ---- the choice -----------------------------------------------------------------------------------------------------


def test_a_verifier_weighs_the_votes_and_each_answer_is_scored_once() -> None:
    asked: list[str] = []

    class Judge:
        relative = True  # so that everything is asked for, and seen, each time

        async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
            texts = ["".join(segment.text for segment in whole) for whole in paths]
            asked.extend(texts)
            return [0.9 if text.endswith("3") else 0.2 for text in texts]

    trace = solved(IterativeDeepening(n=4, b0=10), writing(8, 25, 9, 60), verifier=Judge())
    assert trace.answer == "3"
    assert asked == [trace.whole_text(trace.rounds[-1].candidates[chain]) for chain in (0, 2, 1, 3)]
    assert trace.rounds[-1].scores == (0.2, 0.2, 0.2, 0.9)
    assert trace.confidence == pytest.approx(0.9 / 1.5)
    # without time for the scores the vote stands
    assert [answered.scores is None for answered in trace.rounds[:2]] == [True, False]


def test_in_one_piece_with_a_verifier_it_is_weighted_best_of_n() -> None:
    def score(question: str, text: str) -> float:
        return len(text) / 30

    for seed in range(5):
        trace = solved(IterativeDeepening(n=5), noisy, seed=seed, verifier=score)
        plain = solved(WeightedBestOfN(n=5), noisy, seed=seed, verifier=score)
        assert (trace.rounds[-1].chosen, trace.rounds[-1].scores) == (plain.rounds[-1].chosen, plain.rounds[-1].scores)


def test_ties_go_to_the_answer_that_is_shorter_as_a_whole() -> None:
    """And not to the one whose last piece is."""
    trace = solved(IterativeDeepening(n=2, b0=10), writing(31, 28))
    assert [pieces(trace, chain)[-1].tokens for chain in (0, 1)] == [1, 18]
    assert trace.answer == "1"


# ---- failures -------------------------------------------------------------------------------------------------------


def test_a_piece_that_failed_ends_its_answer_and_no_other() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[1:] == ("chain", 0, 0):
            return EngineError("lost")
        return str(writing(70)(request, child, rng))

    trace = solved(IterativeDeepening(n=3, b0=10), reply)
    assert (trace.stopped, trace.answer, trace.confidence) == ("finished", "1", 0.5)
    assert [piece.tokens for piece in pieces(trace, 0)] == [10]

    def dead(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("gone") if request.prefix_text else str(writing(8, 70)(request, child, rng))

    trace = solved(IterativeDeepening(n=2, b0=10), dead)
    assert (trace.stopped, trace.answer) == ("error", "0")
    with pytest.raises(NothingCameBack):
        solved(IterativeDeepening(n=2, b0=10), lambda *_: EngineError("gone"))


def test_a_model_that_cannot_go_on_is_refused() -> None:
    class Fresh(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, powers=frozenset())

    with pytest.raises(MissingResource, match="can do prefix"):
        run(solve_async(problem(), IterativeDeepening(), model=Fresh(noisy)))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"b0": 0}, "b0 must be at least 1"),
        ({"gamma": 0.9}, "gamma must be a number of at least 1"),
        ({"gamma": math.nan}, "gamma must be a number of at least 1"),
        ({"gamma": math.inf}, "gamma must be a number of at least 1"),
        ({"gamma": 1.0, "convention": "cumulative"}, "gamma must be above 1"),
        ({"convention": "both"}, "convention must be one of segment, cumulative"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        IterativeDeepening(**wrong)


# ---- the real model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    genai_or_skip()
    from outthink.models.openvino.engine import OpenVINOEngine

    engine = OpenVINOEngine(catalog.pull("smollm2-135m-instruct", announce=print))
    yield engine
    asyncio.run(engine.close())


@pytest.mark.real
def test_pieces_of_the_real_model_are_those_of_an_uninterrupted_run(engine: Any) -> None:
    def answered(strategy: Any) -> Trace:
        return asyncio.run(
            solve_async(
                problem(text="Write the numbers from 1 to 30 in digits, separated by commas."),
                strategy,
                model=engine,
                verifier="confidence",  # so that samples carry their logprobs
                sampling=Sampling(max_tokens=60, temperature=0.0),
            )
        )

    plain = answered(WeightedBestOfN(n=1)).candidates[0]
    trace = answered(IterativeDeepening(n=1, b0=7, trigger=""))
    ids = [token for piece in pieces(trace, 0) for token in piece.token_ids or ()]
    assert [piece.tokens for piece in pieces(trace, 0)][:3] == [7, 14, 28]
    compared = 0
    # reading and writing round differently, so that only tokens the model is sure of must come again
    for new, old, logprob in zip(ids, plain.token_ids or (), plain.logprobs or (), strict=False):
        if new != old:
            assert logprob < math.log(0.8)
            break
        compared += 1
    assert compared >= 10


@pytest.mark.real
def test_the_real_model_reads_the_trigger(engine: Any) -> None:
    trace = asyncio.run(
        solve_async(
            problem(text="Write the numbers from 1 to 30 in digits, separated by commas."),
            IterativeDeepening(n=2, b0=8),
            model=engine,
            sampling=Sampling(max_tokens=40, temperature=0.0),
        )
    )
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    put = injected(trace)
    assert len(put) >= 2  # both answers are still counting after 8 tokens
    assert {asyncio.run(engine.decode(one.token_ids)) for one in put} == {TRIGGER}


@pytest.mark.parametrize(
    ("most", "expected"), [(4096, [512, 1024, 2048, 512]), (512, [64, 128, 256, 64]), (40, [20, 20])]
)
def test_the_defaults_do_the_method(most: int, expected: list[int]) -> None:
    trace = solved(IterativeDeepening(n=1), writing(5000), most)
    assert [piece.tokens for piece in pieces(trace, 0)] == expected
    assert len(injected(trace)) == len(expected) - 1


def test_scores_below_0_are_one_sentence_and_leave_the_vote() -> None:
    trace = solved(IterativeDeepening(n=3, b0=10), writing(8, 9, 8), verifier=lambda question, text: -1.5)
    assert (trace.answer, trace.stopped) == ("0", "error")
    assert trace.error is not None
    assert trace.error.startswith("A weighted vote needs scores of at least 0, and there is one of -1.5:")
