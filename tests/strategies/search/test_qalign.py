"""QAlign: its stationary law by enumeration and through the real strategy, its worked numbers, and what a cut keeps."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outthink.answers.reader import Reader
from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, NothingCameBack
from outthink.model import Draw, Model
from outthink.models import catalog
from outthink.models.engine import Completion, EngineSpec, Progress, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.rewards import Path
from outthink.strategies import Report
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.best_of_n import BestOfN
from outthink.strategies.parallel.mbr import chrf, expected_utility
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search import chains
from outthink.strategies.search.chains import log_acceptance
from outthink.strategies.search.qalign import QAlign
from outthink.types import Candidate, Problem, Sampling, Trace, path
from tests.tools.local import genai_or_skip
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

Floats = NDArray[np.float64]


class Whole(Reader):
    """Every text is an answer, the empty one too."""

    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        return text, text or "-"


@dataclass
class Rewards:
    """A reward by the whole text."""

    reward: Callable[[str], float | None]
    batches: list[list[str]] = field(default_factory=list)
    relative = True  # so that every text is asked for, and seen, each time

    async def score(self, problem: Problem, paths: Sequence[Path]) -> list[float | None]:
        self.batches.append(["".join(segment.text for segment in whole) for whole in paths])
        return [self.reward(text) for text in self.batches[-1]]


def solved(strategy: Any, reply: Reply, reward: Callable[[str], float | None], **options: Any) -> Trace:
    engine = ScriptedEngine(reply)
    return run(solve_async(problem(), strategy, model=engine, verifier=Rewards(reward), **options))


def whole(trace: Trace, candidate: Candidate) -> str:
    return trace.whole_text(candidate.id)


def walks(trace: Trace) -> dict[int, list[Candidate]]:
    """The texts that each chain was at, one for each step that did not fail, as the trace shows them."""
    by_address = {candidate.address: candidate for candidate in trace.candidates}
    moved = set(trace.rounds[-1].candidates)
    by_chain: dict[int, list[Candidate]] = {}
    for address, candidate in by_address.items():
        if address[:2] == ("model", 0) and len(address) == 3:
            by_chain[int(address[2])] = [candidate]
    for chain, walk in by_chain.items():
        steps = sorted(int(a[3]) for a in by_address if a[:3] == ("model", "chain", chain) and len(a) == 5)
        for step in steps:
            proposal = by_address["model", "chain", chain, step, 0]
            walk.append(proposal if proposal.id in moved else walk[-1])
    return by_chain


# ---- the ratio of acceptance ----------------------------------------------------------------------------------------


def test_worked_ratios() -> None:
    ratio = np.exp(log_acceptance([1.0, 1.2, 1.2], [1.2, 1.0, 0.7], [10, 20, 10], [20, 10, 10], 0.5))
    assert ratio == pytest.approx([0.7459, 2 * math.exp(-0.4), 0.3679], abs=1e-4)
    assert min(1.0, float(ratio[1])) == 1.0  # the reverse of the first move is always made


def test_a_very_large_beta_leaves_the_lengths_and_equal_lengths_leave_the_rewards() -> None:
    assert np.exp(log_acceptance(0.0, 5.0, 3, 4, 1e300)) == pytest.approx(0.75)
    assert np.exp(log_acceptance(0.2, 0.7, 7, 7, 0.5)) == pytest.approx(math.e)  # independent proposals, cut at 0


def test_ratios_are_clamped_and_a_missing_reward_is_below_all_others() -> None:
    nan = math.nan
    got = log_acceptance([0.0, 0.0, 0.0, nan, nan], [1e308, -1e308, nan, -5.0, nan], 1, [1, 1, 1, 9, 1], 1e-9)
    assert got.tolist() == [20.0, -20.0, -math.inf, 20.0, -math.inf]
    assert log_acceptance(np.zeros((2, 3, 4)), 1.0, 1, 1, 1.0).shape == (2, 3, 4)


# ---- a model small enough to enumerate: 0, 1 or the end, at most three tokens ---------------------------------------

MOST = 3
CHANCES = {"0": 0.3, "1": 0.3, "$": 0.4}  # "$" is the end token
TEXTS = [
    text
    for length in range(MOST + 1)
    for text in map("".join, itertools.product("01$", repeat=length))
    if (text.find("$") == length - 1 >= 0) or ("$" not in text and length == MOST)
]


def binary(request: Request, child: int, rng: np.random.Generator) -> str:
    text = ""
    while len(request.prefix_ids) + len(text) < MOST and (token := "0001112222"[rng.integers(10)]) != "2":
        text += token
    return text


def ones(text: str) -> float:
    return float(text.count("1"))


def zero(text: str) -> float:
    return 0.0


def number(text: str) -> float:
    return int(text[-2:]) / 100


def from_model(texts: Sequence[str], chances: dict[str, float], start: int = 0) -> Floats:
    return np.array([math.prod(chances[token] for token in text[start:]) for text in texts])


def moves(
    texts: Sequence[str],
    chances: Callable[[str], Mapping[str, float]],
    reward: Callable[[str], float],
    beta: float,
    accept: Any = log_acceptance,
    block: int = 1,
) -> Floats:
    """Chances (n, n) of going from one text (row) to another in one step, by enumeration of all cuts."""
    proposed = np.zeros((len(texts), len(texts)))
    for row, old in enumerate(texts):
        cuts = range(0, len(old), block)
        for keep in cuts:
            for column, new in enumerate(texts):
                if new[:keep] == old[:keep]:
                    written = math.prod(chances(new[:at])[new[at]] for at in range(keep, len(new)))
                    proposed[row, column] += written / len(cuts)
    rewards = np.array([reward(text) for text in texts])
    lengths = np.array([len(range(0, len(text), block)) for text in texts])
    ratio = np.exp(accept(rewards[:, None], rewards, lengths[:, None], lengths, beta))
    chance = proposed * np.minimum(ratio, 1.0)
    np.fill_diagonal(chance, 0.0)
    filled: Floats = chance + np.diag(1 - chance.sum(1))
    return filled


def lengthless(reward: Any, proposed: Any, length: Any, proposed_length: Any, beta: float) -> Any:
    return log_acceptance(reward, proposed, 1, 1, beta)


def settled(chance: Floats) -> Floats:
    """The law that a chain comes to."""
    law: Floats = np.linalg.matrix_power(chance, 4096)[0]
    return law


LM = from_model(TEXTS, CHANCES)
TILTED = LM * np.exp([ones(text) for text in TEXTS])
ALIGNED = TILTED / TILTED.sum()


def test_there_are_15_texts() -> None:
    assert len(TEXTS) == 15
    assert LM.sum() == pytest.approx(1)


def test_every_move_is_in_balance_with_its_reverse() -> None:
    chance = moves(TEXTS, lambda _: CHANCES, ones, 1.0)
    flow = ALIGNED[:, None] * chance
    assert flow == pytest.approx(flow.T, abs=1e-15)
    assert settled(chance) == pytest.approx(ALIGNED, abs=1e-12)


def test_without_the_length_term_it_comes_to_another_law() -> None:
    law = settled(moves(TEXTS, lambda _: CHANCES, ones, 1.0, lengthless))
    assert np.abs(law - ALIGNED).max() == pytest.approx(0.088, abs=0.002)


def test_with_a_very_large_beta_it_comes_to_the_model_itself() -> None:
    chance = moves(TEXTS, lambda _: CHANCES, ones, 1e300)
    assert settled(chance) == pytest.approx(LM, abs=1e-12)
    proposed = moves(TEXTS, lambda _: CHANCES, ones, 1.0, lambda *_: np.array(0.0))
    # of proposals, those that give the same text included, so many are accepted
    assert LM @ (1 - np.diag(chance) + np.diag(proposed)) == pytest.approx(0.8176, abs=1e-9)


def occupied(trace: Trace, steps: int) -> Floats:
    """The share of its time that each chain (row) was at each text (column)."""
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    shares = np.zeros((len(walks(trace)), len(TEXTS)))
    for chain, walk in walks(trace).items():
        assert len(walk) == steps + 1
        for candidate in walk:
            text = "".join(segment.text for segment in path(candidate, by_id))
            shares[chain, TEXTS.index(text if len(text) == MOST else text + "$")] += 1 / (steps + 1)
    return shares


def deviation(beta: float, seed: int, steps: int = 24, chains: int = 100, block: int = 1) -> float:
    """How many standard errors the time at the text that is furthest off is from what enumeration says."""
    strategy = QAlign(steps=steps, chains=chains, beta=beta, block=block)
    trace = solved(strategy, binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=seed)
    shares = occupied(trace, steps)
    chance = moves(TEXTS, lambda _: CHANCES, ones, beta, block=block)
    expected = np.mean([LM @ np.linalg.matrix_power(chance, step) for step in range(steps + 1)], axis=0)
    errors = shares.std(0, ddof=1) / math.sqrt(chains)
    return float((np.abs(shares.mean(0) - expected) / errors).max())


def test_with_cuts_at_blocks_only_it_comes_to_the_same_law() -> None:
    chance = moves(TEXTS, lambda _: CHANCES, ones, 1.0, block=2)
    assert settled(chance) == pytest.approx(ALIGNED, abs=1e-12)
    assert np.abs(chance - moves(TEXTS, lambda _: CHANCES, ones, 1.0)).max() > 0.05


@pytest.mark.parametrize(("beta", "block"), [(1.0, 1), (1e300, 1), (1.0, 2)])
def test_the_strategy_walks_as_enumeration_says(beta: float, block: int) -> None:
    # 100 independent chains, 15 texts: five standard errors are exceeded by chance in 15 x 5.7e-7, about 1e-5, of runs
    # (some more, since the chains are few for the rarest texts)
    assert deviation(beta, seed=1, block=block) < 5


def test_the_strategy_without_the_length_term_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "log_acceptance", lengthless)
    assert deviation(1.0, seed=1) > 7


# ---- a reward with a flaw -------------------------------------------------------------------------------------------

ANSWERS = {"g": 0.40, "h": 0.01, "b": 0.59}  # good, hacks the reward, bad
FLAWED = {"g": 1.0, "h": 1.2, "b": 0.0}


def answers(request: Request, child: int, rng: np.random.Generator) -> str:
    """Two tokens: one that says nothing, and the answer."""
    written = "".join(map(chr, request.prefix_ids))
    start = "" if written else str(rng.choice(list("xy")))
    return start if len(written) == 2 else start + str(rng.choice(list(ANSWERS), p=list(ANSWERS.values())))


class Last(Reader):
    async def read(self, problem: Problem, text: str) -> tuple[str | None, str | None]:
        return text[-1:] or None, text[-1:] or None


def flawed(text: str) -> float:
    return FLAWED[text[-1]]


def test_best_of_n_falls_for_a_flaw_of_the_reward_that_the_chain_weighs() -> None:
    # exactly: best-of-n is right where a good answer is among the n and no hack is
    right = {n: (1 - ANSWERS["h"]) ** n - ANSWERS["b"] ** n for n in (1, 4, 16, 64, 256, 1500)}
    assert list(right.values()) == pytest.approx([0.4, 0.8394, 0.8513, 0.5256, 0.0763, 2.8e-7], rel=0.02)

    texts = [start + answer + "$" for start in "xy" for answer in ANSWERS]

    def chances(before: str) -> Mapping[str, float]:
        return [{"x": 0.5, "y": 0.5}, ANSWERS, {"$": 1.0}][len(before)]

    def reward(text: str) -> float:
        return flawed(text[:-1])

    model = np.array([0.5 * ANSWERS[text[1]] for text in texts])
    tilted = model * np.exp([reward(text) / 0.5 for text in texts])
    aligned = tilted / tilted.sum()
    share = {answer: aligned[[text[1] == answer for text in texts]].sum() for answer in ANSWERS}
    assert [share[answer] for answer in "ghb"] == pytest.approx([0.8085, 0.0301, 0.1614], abs=1e-4)
    chance = moves(texts, chances, reward, 0.5)
    distance = [float(np.abs(model @ np.linalg.matrix_power(chance, steps) - aligned).sum()) / 2
                for steps in (0, 4, 16, 64)]  # fmt: skip
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 1e-6

    # 8 x 100 proposals: the vote is wrong only if the share of 0.81 falls below a half, some 10 standard errors off
    trace = solved(QAlign(steps=100, chains=8), answers, flawed, reader=Last(), seed=2)
    assert trace.answer == "g"
    walked = [whole(trace, candidate)[-1] for walk in walks(trace).values() for candidate in walk]
    assert walked.count("h") / len(walked) < 0.1
    # while best-of-n of 1500 samples has met the hack, but for 2.8e-7 of runs
    assert solved(BestOfN(n=1500), answers, flawed, reader=Last(), seed=2).answer == "h"


# ---- the chain ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chains", [1, 4])
def test_without_steps_it_is_plain_sampling(chains: int) -> None:
    for seed in range(5):
        trace = solved(QAlign(steps=0, chains=chains), coin_reply, ones, seed=seed)
        plain = solved(SelfConsistency(n=chains), coin_reply, ones, seed=seed)
        assert trace.candidates == plain.candidates
        assert (trace.rounds[-1].chosen, trace.rounds[-1].confidence, trace.usage) == (
            plain.rounds[-1].chosen,
            plain.rounds[-1].confidence,
            plain.usage,
        )


def coin_reply(request: Request, child: int, rng: np.random.Generator) -> str:
    written = "".join(map(chr, request.prefix_ids))
    text = f"#### {int(rng.integers(10, 14))}"
    return text[len(written) :] if text.startswith(written) else ""


def test_a_proposal_goes_on_from_exactly_the_tokens_that_were_kept() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return binary(request, child, rng)

    rewards = Rewards(ones)
    trace = run(
        solve_async(
            problem(),
            QAlign(steps=30, chains=3),
            model=ScriptedEngine(reply),
            verifier=rewards,
            sampling=Sampling(max_tokens=MOST),
            reader=Whole(),
        )
    )
    requests = {request.address: request for request in seen}
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    kept: list[int] = []
    for chain, walk in walks(trace).items():
        assert len(walk) == 31
        assert all(text.id in by_id for text in walk)
        for step, present in enumerate(walk[:-1]):
            proposal = by_id[f"model/chain/{chain}/{step}/0"]
            (cut,) = (by_id[parent] for parent in proposal.parents)
            assert cut.parents == (present.id,)
            ids = [token for segment in path(present, by_id) for token in segment.token_ids or ()]
            keep = len(cut.token_ids or ())
            assert list(cut.token_ids or ()) == ids[:keep]
            request = requests[proposal.address[:-1]]
            assert request.prefix_ids == cut.token_ids
            assert request.max_tokens == MOST - keep
            assert 0 <= keep < min(len(ids) + 1, MOST)
            assert (cut.tokens, cut.complete, cut.continues, proposal.continues) == (0, False, False, True)
            kept.append(keep)
    assert set(kept) == {0, 1, 2}
    # each step of all chains is one batch of proposals and one of scores
    assert [len(batch) for batch in rewards.batches] == [3] * 31
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    assert Trace.from_json(trace.to_json()) == trace


def test_what_was_refused_counts_again() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 1" if not request.address[1] else " 2"

    def reward(text: str) -> float:
        return 0.7 if text == "#### 1" else 0.0

    trace = solved(QAlign(steps=9, beta=0.01), reply, reward)
    assert (trace.answer, trace.confidence) == ("1", 1.0)
    assert len(trace.rounds[-1].candidates) == 1


def test_the_vote_is_over_all_texts_that_the_chains_were_at() -> None:
    refused = 0
    for seed in range(6):
        trace = solved(QAlign(steps=20, chains=2, beta=0.02), coin_reply, number, seed=seed)
        texts = [whole(trace, text) for walk in walks(trace).values() for text in walk]
        refused += len(texts) - len(trace.rounds[-1].candidates)
        most = max(texts.count(text) for text in texts)
        assert trace.confidence == pytest.approx(most / 42)
        assert texts.count(trace.text or "") == most
        scores = zip(trace.rounds[-1].candidates, trace.rounds[-1].scores or (), strict=True)
        assert all(score == number(trace.whole_text(text)) for text, score in scores)
    assert refused > 0


def test_a_cold_chain_climbs() -> None:
    trace = solved(
        QAlign(steps=60, beta=1e-6), binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=3
    )
    climbed = [ones(whole(trace, text)) for text in walks(trace)[0]]
    assert climbed == sorted(climbed)
    # each of 60 steps finds a better text with a chance of at least 0.09 (a cut at 0, then three 1s: 1/3 x 0.027, or
    # nearer ones more easily): 111 is missed in less than (1 - 0.009)^60 = 58 % of runs, and this seed is not one
    assert climbed[-1] == 3


def test_a_text_that_was_cut_off_is_a_text_without_an_answer() -> None:
    """As tall texts are rewarded, the chain stays at those without an end; what is left votes."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return binary(request, child, rng) + ("x" if rng.random() < 0.5 else "")

    trace = solved(
        QAlign(steps=40, chains=2), reply, lambda text: float(len(text)), sampling=Sampling(max_tokens=2), seed=1
    )
    cut = [text for walk in walks(trace).values() for text in walk if text.finish == "length"]
    assert cut
    assert all(text.key is None and not text.complete for text in cut)
    assert all(len(walk) == 41 for walk in walks(trace).values())


def test_of_the_first_texts_burn_in_many_do_not_count() -> None:
    free = solved(QAlign(steps=10, chains=2), coin_reply, zero, seed=5)
    texts = [[whole(free, text) for text in walk] for walk in walks(free).values()]
    for burn_in in (0, 3, 10):
        trace = solved(QAlign(steps=10, chains=2, burn_in=burn_in), coin_reply, zero, seed=5)
        assert trace.candidates == free.candidates
        counted = [text for walk in texts for text in walk[burn_in:]]
        most = max(counted.count(text) for text in counted)
        assert trace.confidence == pytest.approx(most / len(counted))
        assert counted.count(trace.text or "") == most


def test_the_answer_can_be_that_of_the_last_texts_or_of_the_best() -> None:
    for seed in range(5):
        traces = {
            choose: solved(make_strategy("qalign", {"choose": choose, "steps": 8, "chains": 3}), coin_reply, number,
                           seed=seed)
            for choose in ("vote", "last", "best")
        }  # fmt: skip
        walked = {
            chain: [whole(traces["vote"], text) for text in walk] for chain, walk in walks(traces["vote"]).items()
        }
        last = [walk[-1] for walk in walked.values()]
        assert traces["last"].confidence == pytest.approx(last.count(traces["last"].text or "") / 3)
        assert traces["last"].text in last
        assert traces["best"].text == max(text for walk in walked.values() for text in walk)


def test_by_minimum_bayes_risk_the_answer_is_most_like_all_texts_repeats_included() -> None:
    for seed in range(4):
        vote, mbr = (
            solved(QAlign(steps=8, chains=3, choose=choose), coin_reply, zero, seed=seed) for choose in ("vote", "mbr")
        )
        assert mbr.candidates == vote.candidates
        texts = [whole(vote, text) for walk in walks(vote).values() for text in walk]
        alike = expected_utility(chrf(texts))
        assert mbr.text is not None
        assert alike[texts.index(mbr.text)] == pytest.approx(alike.max())
        assert len(set(texts)) > 1


def test_a_chain_does_not_depend_on_the_others() -> None:
    one = solved(QAlign(steps=12), binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=7)
    three = solved(QAlign(steps=12, chains=3), binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=7)
    assert walks(one)[0] == walks(three)[0]


def test_a_text_without_a_score_is_left_for_one_with_a_score_and_never_moved_to() -> None:
    def reward(text: str) -> float | None:
        return None if text.startswith("0") else 0.0

    trace = solved(
        QAlign(steps=40, chains=12), binary, reward, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=1
    )
    scores = dict(zip(trace.rounds[-1].candidates, trace.rounds[-1].scores or (), strict=True))
    without = 0
    for walk in walks(trace).values():
        missing = [scores[text.id] is None for text in walk]
        assert missing == sorted(missing, reverse=True)
        assert not missing[-1]
        without += missing[0]
    assert without > 0  # 12 first texts, three in ten of which begin with a 0: none does with a chance of 0.7^12, 1.4 %


def test_a_proposal_that_failed_is_no_step() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        failed = request.address[1] == "chain" and request.address[2:] in ((0, 1), (1, 1), (1, 4))
        return EngineError("lost") if failed else binary(request, child, rng)

    trace = solved(QAlign(steps=6, chains=2), reply, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(), seed=1)
    assert trace.stopped == "finished"
    assert {chain: len(walk) for chain, walk in walks(trace).items()} == {0: 6, 1: 5}
    assert len(trace.rounds) == 2 + 6 - 1  # the step in which nothing came back reports nothing new

    def dead(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("gone") if request.prefix_ids or request.address[1] else binary(request, child, rng)

    trace = solved(QAlign(steps=6), dead, ones, sampling=Sampling(max_tokens=MOST), reader=Whole())
    assert (trace.stopped, len(trace.rounds)) == ("finished", 2)
    with pytest.raises(NothingCameBack):
        solved(QAlign(), lambda *_: EngineError("gone"), ones)


def test_the_budget_ends_it_between_two_steps() -> None:
    for limit in range(20, 60):
        trace = solved(
            QAlign(steps=20, chains=2), binary, ones, sampling=Sampling(max_tokens=MOST), reader=Whole(),
            budget=f"{limit}-tokens",
        )  # fmt: skip
        assert trace.cost["tokens"] <= limit
        assert trace.stopped == "budget"
        assert trace.answer is not None


def test_a_model_whose_tokens_are_not_told_is_refused() -> None:
    class Text(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, powers=frozenset({"prefix"}))

    with pytest.raises(MissingResource, match="can do tokens; scripted cannot"):
        run(solve_async(problem(), QAlign(), model=Text(binary), verifier=Rewards(ones)))

    class Silent(ScriptedEngine):
        async def generate(self, request: Request, progress: Progress) -> None:
            await super().generate(request, progress)
            for child, said in enumerate(progress.results):
                assert isinstance(said, Completion)
                progress.results[child] = replace(said, token_ids=None)

    trace = run(solve_async(problem(), QAlign(), model=Silent(coin_reply), verifier=Rewards(ones)))
    assert trace.stopped == "error"
    assert trace.error == "scripted did not tell the tokens of model/0/0, so it cannot be cut."
    assert trace.answer is not None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"chains": 0}, "chains must be at least 1"),
        ({"beta": 0.0}, "beta must be a number above 0"),
        ({"beta": math.inf}, "beta must be a number above 0"),
        ({"steps": 3, "burn_in": 4}, r"burn_in must be from 0 to steps \(3\)"),
        ({"choose": "mode"}, "choose must be vote, best, last or mbr"),
        ({"block": 0}, "block must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        QAlign(**wrong)


# ---- cutting and putting in -----------------------------------------------------------------------------------------


class Bytes(ScriptedEngine):
    """Its tokens are bytes, so that a cut can go through a character."""

    def __init__(self, reply: Reply, seen: list[Request]) -> None:
        super().__init__(reply)
        self._seen = seen

    async def generate(self, request: Request, progress: Progress) -> None:
        self._seen.append(request)
        await super().generate(request, progress)

    async def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    async def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


def in_bytes(text: str) -> Reply:
    """Says the text, from wherever it is cut."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        rest = text.encode()[len(request.prefix_ids) :][: request.max_tokens]
        finish: Any = "length" if len(rest) == request.max_tokens else "eos"
        return Completion(text=rest.decode("utf-8", "replace"), tokens=len(rest), token_ids=tuple(rest), finish=finish)

    return reply


@dataclass(frozen=True, kw_only=True)
class Script:
    """A strategy that is a function of the model."""

    go: Callable[[Problem, Model], Any]

    async def run(self, problem: Problem, report: Report, *, model: Model) -> None:
        report([], chosen=await self.go(problem, model))


def scripted(go: Callable[[Problem, Model], Any], engine: Any, **options: Any) -> Trace:
    trace = run(solve_async(problem(), Script(go=go), model=engine, **options))
    assert trace.error is None  # also what it asserts itself
    return trace


TALL = "naïve 中文 🦊 \N{REPLACEMENT CHARACTER} #### 7"


@pytest.mark.parametrize("keep", range(len(TALL.encode()) + 1))
def test_a_cut_through_a_character_changes_no_token_and_no_text(keep: int) -> None:
    seen: list[Request] = []

    async def go(problem: Problem, model: Model) -> Candidate:
        (sample,) = await model.sample(problem)
        cut = await model.cut(sample, keep)
        assert TALL.startswith(cut.text)
        assert cut.token_ids == tuple(TALL.encode()[:keep])
        (child,) = (await model.sample_each(problem, [Draw(after=cut)]))[0]
        assert model.text(child) == TALL
        again = await model.cut(child, keep)  # of what it continues and itself
        assert again.token_ids == cut.token_ids
        return child

    trace = scripted(go, Bytes(in_bytes(TALL), seen))
    assert [request.prefix_ids for request in seen] == [(), tuple(TALL.encode()[:keep])]
    assert (trace.text, trace.answer) == (TALL, "7")
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)


@pytest.mark.parametrize("fails", [True, False])
def test_where_the_text_of_all_tokens_says_something_else_each_piece_keeps_its_own(fails: bool) -> None:
    class Odd(Bytes):
        """Its text of many tokens is not what it said, or does not come at all."""

        async def decode(self, ids: Sequence[int]) -> str:
            if len(ids) < 20:
                return await super().decode(ids)
            if fails:
                raise EngineError("the endpoint is gone")
            return (await super().decode(ids)).upper()

    async def go(problem: Problem, model: Model) -> Candidate:
        (sample,) = await model.sample(problem)
        (child,) = (await model.sample_each(problem, [Draw(after=await model.cut(sample, 10))]))[0]
        return child

    trace = scripted(go, Odd(in_bytes("the answer is plainly #### 7"), []))
    assert (trace.text, trace.answer) == ("the answer is plainly #### 7", "7")


def test_logprobs_stay_with_their_tokens() -> None:
    async def go(problem: Problem, model: Model) -> Candidate:
        (sample,) = await model.sample(problem, logprobs=True)
        cut = await model.cut(sample, 3)
        assert cut.logprobs == (sample.logprobs or ())[:3]
        put = await model.inject(cut, "!")
        assert put.logprobs == ()
        assert (await model.cut(put, 4)).logprobs is None  # one token that nobody gave a chance
        return sample

    scripted(go, coin(1.0))


def test_what_is_put_in_is_read_and_not_written() -> None:
    seen: list[Request] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        seen.append(request)
        return "#### 5" if request.prefix_text else "#### 4"

    async def go(problem: Problem, model: Model) -> Candidate:
        (sample,) = await model.sample(problem)
        put = await model.inject(await model.inject(sample, "\nWait. "), "So: ")
        (child,) = (await model.sample_each(problem, [Draw(after=put)]))[0]
        return child

    trace = scripted(go, ScriptedEngine(reply))
    assert trace.text == "#### 4\nWait. So: #### 5"
    assert trace.answer == "5"
    assert seen[1].prefix_ids == tuple(map(ord, "#### 4\nWait. So: "))
    assert trace.usage.completion == 12
    assert trace.usage.prompt == 12 + 12 + len("#### 4\nWait. So: ")

    class Text(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, powers=frozenset({"prefix"}))

    trace = scripted(go, Text(reply))
    assert trace.text == "#### 4\nWait. So: #### 5"
    assert (seen[-1].prefix_ids, seen[-1].prefix_text) == ((), "#### 4\nWait. So: ")


def test_a_cut_is_refused_where_it_cannot_be() -> None:
    async def go(problem: Problem, model: Model) -> Candidate:
        (sample,) = await model.sample(problem)
        for keep in (-1, 8):
            with pytest.raises(ValueError, match=f"keep must be from 0 to 7, not {keep}"):
                await model.cut(sample, keep)
        return sample

    scripted(go, coin(1.0))


def test_lanes_of_a_batch_are_addresses_of_their_own() -> None:
    async def go(problem: Problem, model: Model) -> Candidate:
        draws = [Draw(lane=("a", 1)), Draw(), Draw(lane=("a", 1)), Draw(lane=("b",))]
        drawn = await model.sample_each(problem, draws)
        assert [children[0].id for children in drawn] == ["model/a/1/0/0", "model/0/0", "model/a/1/1/0", "model/b/0/0"]
        assert (await model.lane("a", 1).sample(problem))[0].id == "model/a/1/2/0"
        return drawn[0][0]

    scripted(go, coin(1.0))


# ---- the real model -------------------------------------------------------------------------------------------------

real = pytest.mark.real


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    genai_or_skip()
    from outthink.models.openvino.engine import OpenVINOEngine

    engine = OpenVINOEngine(catalog.pull("smollm2-135m-instruct", announce=print))
    yield engine
    asyncio.run(engine.close())


@real
def test_a_cut_of_a_greedy_answer_goes_on_as_it_did(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []
    generate = engine.generate

    async def watched(request: Request, progress: Progress) -> None:
        seen.append(request)
        await generate(request, progress)

    monkeypatch.setattr(engine, "generate", watched)
    compared = 0

    async def go(problem: Problem, model: Model) -> Candidate:
        nonlocal compared
        (whole,) = await model.sample(problem, temperature=0.0, logprobs=True)
        assert whole.token_ids is not None
        assert whole.logprobs is not None
        keeps = (0, 1, 17, 40)
        cuts = [await model.cut(whole, keep) for keep in keeps]
        draws = [Draw(after=cut, temperature=0.0, max_tokens=10) for cut in cuts]
        for keep, cut, (rest,) in zip(keeps, cuts, await model.sample_each(problem, draws), strict=True):
            assert whole.text.startswith(cut.text)
            assert cut.token_ids == whole.token_ids[:keep]
            # reading and writing round differently, so that only tokens the model is sure of must come again
            for new, old, logprob in zip(
                rest.token_ids or (), whole.token_ids[keep:], whole.logprobs[keep:], strict=False
            ):
                if logprob < math.log(0.8):
                    break
                assert new == old
                compared += 1
        assert [request.prefix_ids for request in seen[1:]] == [whole.token_ids[:keep] for keep in keeps]
        return whole

    question = problem(text="Count from 1 to 30, separated by commas.")
    trace = asyncio.run(solve_async(question, Script(go=go), model=engine, sampling=Sampling(max_tokens=60)))
    assert trace.error is None
    assert compared >= 10


@real
def test_reading_a_text_anew_gives_other_tokens(engine: Any) -> None:
    """What cutting by tokens is for: many beginnings of an answer are not the tokens of their text."""

    async def drift(ids: tuple[int, ...]) -> list[int]:
        texts = [await engine.decode(ids[:keep]) for keep in range(len(ids) + 1)]
        return [keep for keep, text in enumerate(texts) if await engine.encode(text) != ids[:keep]]

    async def go() -> None:
        ids = await engine.encode("A fox 🦊 crossed the road.")
        assert await engine.decode(ids) == "A fox 🦊 crossed the road."
        assert await drift(ids) == [3, 4]  # inside of the fox, whose first token is also the gap before it
        assert (await engine.encode("\n")) * 2 != await engine.encode("\n\n")  # what is put in has a seam
        assert await engine.encode("") == ()
        assert await engine.decode(()) == ""

    asyncio.run(go())


@real
def test_a_chain_of_the_real_model(engine: Any) -> None:
    def reward(text: str) -> float:
        return -len(text) / 100

    trace = asyncio.run(
        solve_async(
            "Write three words about the sea.",
            QAlign(steps=6, chains=2, beta=1.0),
            model=engine,
            verifier=Rewards(reward),
            sampling=Sampling(max_tokens=24, temperature=1.0),
        )
    )
    assert trace.stopped == "finished"
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    for walk in walks(trace).values():
        assert len(walk) == 7
        for text in walk:
            ids = [token for segment in path(text, by_id) for token in segment.token_ids or ()]
            assert len(ids) + (text.finish == "eos") <= 24
            assert asyncio.run(engine.decode(ids)) == whole(trace, text)
