"""Methods that make new answers from whole generations of old ones: what is sent, how many calls, what is distilled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import MissingResource, PromptTooLong, UsageError
from outthink.models.engine import Progress, Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies.collective.pdr import fitted
from outthink.strategies.making import make_strategy
from outthink.types import Sampling, Trace, Usage
from tests.tools.toys import problem
from tests.tools.virtual import run


class Sent(ScriptedEngine):
    """Answers as it is told and keeps what it was asked."""

    def __init__(self, reply: Any) -> None:
        super().__init__(reply)
        self.requests: list[Request] = []

    async def generate(self, request: Request, progress: Progress) -> None:
        self.requests.append(request)
        await super().generate(request, progress)

    def texts(self, role: str) -> list[str]:
        return [one.messages[-1].text for one in self.requests if one.address[0] == role]


def solved(name: str, engine: ScriptedEngine, *, verifier: Any = None, seed: int = 0, **settings: Any) -> Trace:
    sampling = Sampling(max_tokens=2000)
    strategy = make_strategy(name, settings)
    return run(solve_async(problem(), strategy, model=engine, verifier=verifier, seed=seed, sampling=sampling))


def numbering(request: Request, child: int, rng: np.random.Generator) -> str:
    """Says its own address, so that what is shown can be told."""
    here = "-".join(map(str, (*request.address, child)))
    return f"from <{here}> #### {int(rng.integers(3))}"


def shown(text: str) -> set[str]:
    return {part.partition(">")[0] for part in text.split("from <")[1:]}


# ------------------------------------------------------------------------------------------------------------- rsa


def test_rsa_makes_each_answer_from_k_of_the_round_before() -> None:
    engine = Sent(numbering)
    trace = solved("rsa", engine, n=6, k=3, rounds=2)
    assert sum(call.n for call in trace.calls) == 6 * (2 + 1)
    prompts = engine.texts("fusor")
    assert len(prompts) == 12
    first, second = prompts[:6], prompts[6:]
    for text in prompts:
        assert text.startswith(problem().question)
        assert "Combine what is useful in them" in text
        assert len(shown(text)) == 3
    population = {f"model-0-{slot}" for slot in range(6)}
    assert all(shown(text) <= population for text in first)
    assert all(shown(text) <= {f"fusor-round-1-{slot}-0-0" for slot in range(6)} for text in second)
    assert len({frozenset(shown(text)) for text in first}) > 1, "subsets are drawn for each slot"
    assert [one.generation for one in trace.rounds] == [1, 2, 3]
    assert all(len(one.candidates) == 6 for one in trace.rounds)


def test_rsa_with_k_1_refines_single_answers_and_without_rounds_is_self_consistency() -> None:
    engine = Sent(numbering)
    solved("rsa", engine, n=4, k=1, rounds=1)
    for text in engine.texts("fusor"):
        assert len(shown(text)) == 1
        assert "Check it, keep what is right" in text
    one, other = (solved(name, Sent(numbering), n=5, **more) for name, more in RSA_AND_VOTE)
    assert one.candidates == other.candidates
    assert one.key == other.key


RSA_AND_VOTE: tuple[tuple[str, dict[str, int]], ...] = (("rsa", {"rounds": 0}), ("self_consistency", {}))


def test_rsa_does_not_show_what_cannot_be_read_nor_the_same_twice() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.address[0] == "fusor":
            return "#### 5"
        return "no idea" if child == 0 else "always the same #### 4"

    engine = Sent(reply)
    trace = solved("rsa", engine, n=4, k=4, rounds=1)
    for text in engine.texts("fusor"):
        assert "no idea" not in text
        assert text.count("always the same") == 1
    assert trace.answer == "5"


def test_rsa_takes_a_random_one_of_the_last_round_where_it_is_told_to() -> None:
    answers = [solved("rsa", Sent(numbering), n=4, rounds=1, final="random", seed=seed) for seed in range(60)]
    chosen = [trace.rounds[-1].candidates.index(trace.rounds[-1].chosen or "") for trace in answers]
    # each of four with 1/4: fewer than 4 of 60 in 1 of 10,000; the seeds are fixed
    assert all(chosen.count(place) >= 4 for place in range(4))


# ---------------------------------------------------------------------------------------------------------- pacore


def thinking(request: Request, child: int, rng: np.random.Generator) -> str:
    here = "-".join(map(str, (*request.address, child)))
    return f"<think>secret of {here}</think>from <{here}> #### {child}"


def test_pacore_hands_on_messages_and_never_thoughts() -> None:
    engine = Sent(thinking)
    trace = solved("pacore_prompted", engine, widths=(4, 2))
    second, last = engine.texts("fusor")
    assert "secret" not in second + last
    assert shown(second) == {f"model-0-{child}" for child in range(4)}
    assert shown(last) == {"fusor-round-2-0-0", "fusor-round-2-0-1"}, "only the round before"
    assert second.startswith(problem().question)
    assert "Analyse these references" in last
    assert [request.n for request in engine.requests] == [4, 2, 1]
    assert trace.rounds[-1].chosen == "fusor/round/3/0/0", "the synthesis is the answer"


@pytest.mark.parametrize(
    ("name", "settings", "role"),
    [
        ("rsa", {"n": 3, "rounds": 1}, "fusor"),
        ("pdr", {"n": 3}, "fusor"),
        ("debate", {"n": 3}, "model"),
        ("elo_tournament", {"n": 3}, "judge"),
        ("rtv", {"n": 3}, "judge"),
        ("v1_infer", {"n": 3}, "judge"),
    ],
)
def test_nobody_reads_the_thoughts_of_others(name: str, settings: dict[str, Any], role: str) -> None:
    engine = Sent(thinking)
    solved(name, engine, **settings)
    texts = engine.texts(role)
    assert any("from <" in text for text in texts)
    assert not any("secret" in text for text in texts)


def test_pacore_without_widths_is_one_sample() -> None:
    engine = Sent(thinking)
    trace = solved("pacore_prompted", engine, widths=())
    plain = solved("self_consistency", Sent(thinking), n=1)
    assert (trace.candidates, trace.answer) == (plain.candidates, plain.answer)


# ------------------------------------------------------------------------------------------------------------- pdr


def test_pdr_refines_from_notes_alone_and_the_notes_are_no_longer_than_the_workspace() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return "notes " * 100 if "distil" in request.address else numbering(request, child, rng)

    engine = Sent(reply)
    trace = solved("pdr", engine, n=3, rounds=2, workspace=40)
    texts = engine.texts("fusor")
    distil, refine, again, last = texts
    assert shown(distil) == {f"model-0-{child}" for child in range(3)}
    assert "Do not answer yet" in distil
    assert shown(refine) == shown(last) == set(), "drafts themselves are not handed on"
    assert ("notes " * 100)[:40].strip() in refine
    assert "notes " * 8 not in refine, "no more than the workspace"
    assert shown(again) == {f"fusor-round-2-0-{child}" for child in range(3)}
    assert [request.n for request in engine.requests] == [3, 1, 3, 1, 1]
    assert trace.rounds[-1].chosen == "fusor/round/3/0/0"
    assert [one.generation for one in trace.rounds] == [1, 2, 3]


def test_pdr_with_one_draft_is_sequential_refinement() -> None:
    engine = Sent(numbering)
    trace = solved("pdr", engine, n=1, rounds=3)
    assert [request.n for request in engine.requests] == [1] * 4, "a draft that fits is its own workspace"
    assert [shown(text) for text in engine.texts("fusor")] == [
        {"model-0-0"},
        {"fusor-round-2-0-0"},
        {"fusor-round-3-0-0"},
    ]
    assert trace.rounds[-1].chosen == "fusor/round/4/0/0"


def test_pdr_keeps_the_best_or_random_drafts_that_fit() -> None:
    async def length(question: str, text: str) -> float:
        return float(text.count("x"))

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f"draft {child} " + "x" * (10 * child) + f" #### {child}"

    engine = Sent(reply)
    solved("pdr", engine, verifier=length, n=4, rounds=1, workspace=60, distil="best")
    (refine,) = engine.texts("fusor")
    whole = [reply(engine.requests[0], child, np.random.default_rng()) for child in range(4)]
    left = 60 - len(whole[3])
    kept = f"<draft 1>\n{whole[3]}\n</draft 1>\n\n<draft 2>\n{whole[2][-left:]}\n</draft 2>\n"
    assert kept in refine, "the second is cut to its end"
    assert "\ndraft 1 " not in refine
    with pytest.raises(MissingResource, match="needs a verifier"):
        solved("pdr", Sent(reply), distil="best")
    seen = set()
    for seed in range(12):
        engine = Sent(reply)
        solved("pdr", engine, n=4, rounds=1, workspace=60, distil="random", seed=seed)
        seen.add(engine.texts("fusor")[0].partition("<draft 1>\n")[2][:7])
    assert len(seen) > 1


def test_the_workspace_is_filled_to_the_token() -> None:
    assert fitted(["aaaa", "bbbb", "cccc"], [2, 2, 2], 6) == ["aaaa", "bbbb", "cccc"]
    assert fitted(["aaaa", "bbbb", "cccc"], [2, 2, 2], 3) == ["aaaa", "bb"]
    assert fitted(["abcd"], [4], 1) == ["d"]
    assert fitted([], [], 5) == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rsa", {"n": 1024, "k": 9}),
        ("pacore_prompted", {"widths": (1024, 16)}),
        ("pdr", {"n": 1024, "rounds": 9}),
        ("rtv", {"n": 4096}),
        ("v1_infer", {"n": 4096}),
    ],
)
def test_what_would_show_too_many_answers_again_is_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="answers again, more than 8,192"):
        make_strategy(name, settings)


class Short(Sent):
    """Has no room for more than the question."""

    async def bound(self, request: Request) -> Usage:
        if len(request.messages[-1].text) > 40:
            raise PromptTooLong("the prompt is too long")
        return await super().bound(request)


@pytest.mark.parametrize("name", ["debate", "rsa", "pacore_prompted", "pdr", "elo_tournament", "rtv", "v1_infer"])
def test_where_answers_do_not_fit_into_a_prompt_the_majority_stands(name: str) -> None:
    engine = Short(lambda request, child, rng: f"#### {[1, 2, 2, 3][child]}")
    trace = solved(name, engine, **({"widths": (4,)} if name == "pacore_prompted" else {"n": 4}))
    assert (trace.stopped, trace.answer) == ("finished", "2")
    assert [request.n for request in engine.requests] == [4]
    assert any("the prompt is too long" in note for note in trace.notes)
