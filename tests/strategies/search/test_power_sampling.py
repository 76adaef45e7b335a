"""Power sampling: its law by enumeration and through the strategy, what each proposal is asked with, and its blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Completion, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search.power_sampling import PowerSampling
from outthink.types import Sampling, Trace
from tests.strategies.search.test_qalign import MOST, TEXTS, Floats, Whole, from_model, moves, settled, walks, whole
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

CHANCES = {"0": 0.5, "1": 0.2, "$": 0.3}  # "$" is the end, whose chance counts once
LM = from_model(TEXTS, CHANCES)


def tokens(text: str) -> float:
    """The log of the chance of all but the end."""
    return math.fsum(math.log(CHANCES[token]) for token in text if token != "$")


def powered(alpha: float) -> Floats:
    law = LM * np.exp([(alpha - 1) * tokens(text) for text in TEXTS])
    return np.asarray(law / law.sum())


def kernel(alpha: float) -> Floats:
    return moves(TEXTS, lambda _: CHANCES, tokens, 1 / (alpha - 1) if alpha > 1 else math.inf)


def model(request: Request, child: int, rng: np.random.Generator) -> Completion:
    """Tokens 0 and 1 until the end, with their logprobs, until the cap."""
    text, finish = "", "length"
    while len(text) < request.max_tokens:
        token = str(rng.choice(list(CHANCES), p=list(CHANCES.values())))
        if token == "$":
            finish = "eos"
            break
        text += token
    return Completion(
        text=text,
        tokens=len(text),
        token_ids=tuple(map(ord, text)),
        logprobs=tuple(math.log(CHANCES[token]) for token in text),
        finish=finish,  # type: ignore[arg-type]  # one of the two
    )


def solved(strategy: PowerSampling, reply: Any = model, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=MOST))
    return run(solve_async(problem(), strategy, model=ScriptedEngine(reply), reader=Whole(), **options))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 4.0])
def test_the_chain_settles_on_the_powered_law(alpha: float) -> None:
    flow = powered(alpha)[:, None] * kernel(alpha)
    assert flow == pytest.approx(flow.T, abs=1e-15)
    assert settled(kernel(alpha)) == pytest.approx(powered(alpha), abs=1e-10)


def test_a_power_of_1_is_plain_sampling_after_every_step() -> None:
    assert powered(1.0) == pytest.approx(LM)
    assert LM @ kernel(1.0) == pytest.approx(LM)


def last_texts(trace: Trace, chains: int) -> Floats:
    """Which text (column) each chain (row) is at in the end."""
    last = np.zeros((chains, len(TEXTS)))
    for chain, walk in walks(trace).items():
        text = whole(trace, walk[-1])
        last[chain, TEXTS.index(text if len(text) == MOST else text + "$")] = 1
    return last


def test_the_strategy_ends_as_enumeration_says() -> None:
    """With 150 independent chains, five standard errors of 15 texts are exceeded in about 1e-5 of runs."""
    chains, steps, alpha = 150, 4, 3.0
    trace = solved(PowerSampling(alpha=alpha, steps=steps, blocks=1, chains=chains), seed=1)
    expected = LM @ np.linalg.matrix_power(kernel(alpha), steps)
    share = last_texts(trace, chains).mean(0)
    errors = np.sqrt(expected * (1 - expected) / chains)
    assert (np.abs(share - expected) / errors).max() < 5
    assert (np.abs(share - LM) / errors).max() > 5  # and that is another law than that of plain samples


def test_every_proposal_is_asked_for_at_temperature_1_and_within_its_block() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        asked.append(request)
        return model(request, child, rng)

    # 0.12 of 50 chains have not ended after two blocks: none of them with a chance of 0.88^50, 0.2 %
    strategy = PowerSampling(alpha=1.0, steps=3, blocks=3, chains=50)
    trace = solved(strategy, reply, sampling=Sampling(max_tokens=8, temperature=0.3))
    assert all(request.temperature == 1.0 and request.logprobs for request in asked)
    ends = {len(request.prefix_ids) + request.max_tokens for request in asked}
    assert ends == {3, 6, 8}  # the blocks, whose last one ends with the cap
    by_chain: dict[Any, list[int]] = {}
    for request in asked:
        by_chain.setdefault(request.address[1:3], []).append(len(request.prefix_ids) + request.max_tokens)
    assert all(limits == sorted(limits) for limits in by_chain.values())
    # one that has ended goes no further: its last block has three moves and no more
    assert {len(limits) for chain, limits in by_chain.items() if chain[0] == "chain"} == {3, 7, 11}
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)


def test_a_block_has_a_token_at_least() -> None:
    asked: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        asked.append(request)
        return model(request, child, rng)

    trace = solved(PowerSampling(alpha=1.0, steps=1, blocks=1000, chains=20), reply)
    assert trace.stopped == "finished"
    assert min(request.max_tokens for request in asked) == 1
    assert {len(request.prefix_ids) + request.max_tokens for request in asked} == {1, 2, 3}


def test_without_steps_it_is_plain_sampling() -> None:
    trace = solved(PowerSampling(steps=0, blocks=1, chains=5), seed=3)
    plain = run(
        solve_async(
            problem(),
            SelfConsistency(n=5),
            model=ScriptedEngine(model),
            reader=Whole(),
            sampling=Sampling(max_tokens=MOST),
            seed=3,
        )
    )
    assert [c.text for c in trace.candidates] == [c.text for c in plain.candidates]
    assert (trace.text, trace.usage) == (plain.text, plain.usage)


def test_the_last_texts_answer_and_scores_are_their_logprobs() -> None:
    trace = solved(PowerSampling(steps=5, blocks=1, chains=1), seed=2)
    (walk,) = walks(trace).values()
    assert trace.text == whole(trace, walk[-1]) or walk[-1].finish == "length"
    last = trace.rounds[-1]
    for name, score in zip(last.candidates, last.scores or (), strict=True):
        assert score == pytest.approx(tokens(trace.whole_text(name)))


def test_a_proposal_that_failed_or_has_no_logprobs_is_never_moved_to() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion | EngineError:
        if request.address[1] != "chain":
            return Completion(text="00", tokens=2, token_ids=(48, 48), logprobs=(-1.0, -1.0), finish="eos")
        if request.address[3] % 2:
            return EngineError("lost")
        return Completion(text="1", tokens=1, token_ids=(49,), finish="eos")

    trace = solved(PowerSampling(steps=4, blocks=1), reply)
    assert (trace.stopped, trace.answer) == ("finished", "00")


def test_a_nucleus_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(UsageError, match="leave top_p at 1"):
        solved(PowerSampling(), coin(1.0), sampling=Sampling(top_p=0.9))
    for wrong in ({"alpha": 0.5}, {"alpha": math.inf}, {"steps": -1}, {"blocks": 0}, {"chains": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PowerSampling(**wrong)
