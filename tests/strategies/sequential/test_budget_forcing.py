"""Budget forcing: the card's ledger, what is put in and sent, room for the answer, the bias, and servers that do it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, UsageError
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.sequential.budget_forcing import BudgetForcing
from outthink.strategies.thinking import FORCE, MARK, ending
from outthink.types import Problem, Sampling, Trace
from tests.tools.toys import problem
from tests.tools.virtual import run


class Able(ScriptedEngine):
    """With the powers that it is given, and everything that it was asked."""

    def __init__(self, reply: Reply, *powers: str, without: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(reply, **options)
        self._powers = (super().spec.powers | set(powers)) - set(without)

    @property
    def spec(self) -> EngineSpec:
        spec = super().spec
        return EngineSpec(name=spec.name, context=spec.context, powers=self._powers)


def solved(strategy: Any, reply: Reply | ScriptedEngine, most: int = 100, **options: Any) -> Trace:
    engine = reply if isinstance(reply, ScriptedEngine) else ScriptedEngine(reply)
    return run(solve_async(problem(), strategy, model=engine, sampling=Sampling(max_tokens=most), **options))


def recorded(reply: Reply) -> tuple[list[Request], Reply]:
    seen: list[Request] = []

    def noted(request: Request, child: int, rng: np.random.Generator) -> Any:
        seen.append(request)
        return reply(request, child, rng)

    return seen, noted


# ---------------------------------------------------------------- the card's numbers


def test_the_ledger_of_the_card() -> None:
    """B 12, two ends put off, words of one token, parts of 5 and 4: 10 written, 2 put in, 2 taken away, forced."""

    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        if FORCE in request.prefix_text:
            return " 42"
        return ["aaaa |", "bbb |", "ccccccc"][request.prefix_text.count("W")]

    seen, reply = recorded(parts)
    trace = solved(BudgetForcing(max_think=12, n_ignore=2, words=("W",), think_close="|"), reply)
    assert [request.max_tokens for request in seen[:3]] == [12, 6, 1]
    assert [request.prefix_text for request in seen] == [
        "",
        "aaaa W",
        "aaaa Wbbb W",
        "aaaa Wbbb Wc" + ending("c", "|"),
    ]
    assert all(request.messages == problem().messages for request in seen)
    assert [request.stop for request in seen] == [("|",)] * 3 + [()]
    assert trace.answer == "42"
    assert trace.notes == (
        "thinking: 10 tokens written and 2 put in, 2 ends put off (2 tokens taken away); "
        "1 of 1 thoughts ended by force",
    )
    assert trace.usage.completion == 10 + 2 + len(" 42")


def test_with_room_and_no_end_put_off_it_is_the_plain_run() -> None:
    def thinking(request: Request, child: int, rng: np.random.Generator) -> str:
        chain = int(request.address[2]) if request.prefix_text else child
        whole = f"<think>{'x' * chain}</think>\nIt is #### {chain}"
        return whole.removeprefix(request.prefix_text)

    strategy = BudgetForcing(n=4, n_ignore=0, max_think=70)
    trace, plain = solved(strategy, thinking), solved(SelfConsistency(n=4), thinking)
    texts = [trace.whole_text(name) for name in trace.rounds[-1].candidates]
    assert texts == [candidate.text for candidate in plain.candidates]
    assert trace.usage.completion == plain.usage.completion
    assert trace.answer == plain.answer


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    most=st.integers(1, 60),
    k=st.integers(0, 4),
    least=st.integers(0, 20),
)
def test_a_thought_is_never_longer_than_its_budget(lengths: list[int], most: int, k: int, least: int) -> None:
    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        if FORCE in request.prefix_text or request.prefix_text.endswith("|"):
            return "#### 7"
        part = request.prefix_text.count("W")
        return chr(97 + part) * lengths[part % len(lengths)] + "|"

    seen, reply = recorded(parts)
    strategy = BudgetForcing(
        max_think=most, min_think=min(least, most), n_ignore=k, words=("W",), think_close="|", answer_max=20
    )
    trace = solved(strategy, reply)
    answered = seen[-1].prefix_text
    thought = answered.removesuffix(ending("x", "|")).removesuffix("|")
    assert len(thought) <= min(most, 100 - 20)
    assert trace.answer == "7"
    if least == 0:
        assert len(seen) <= k + 2
    assert trace.usage.completion == sum(candidate.tokens for candidate in trace.candidates)


# ---------------------------------------------------------------- what is put in


def test_words_take_turns_with_a_blank_only_where_there_is_none() -> None:
    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        if request.prefix_text.endswith("</think>"):
            return "#### 1"
        return ["so\n</think>", " but</think>", " no</think>", "!</think>"][
            sum(request.prefix_text.count(word) for word in ("Wait", "Hmm"))
        ]

    seen, reply = recorded(parts)
    trace = solved(BudgetForcing(n_ignore=3, words=("Wait", "Hmm")), reply, most=300)
    assert seen[-1].prefix_text == "so\nWait but Hmm no Wait!</think>"
    assert trace.text == "so\nWait but Hmm no Wait!</think>#### 1"


def test_a_mark_is_taken_away_with_what_an_engine_has_written_behind_it() -> None:
    """As the embedded one does, to the end of the token."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        done = request.prefix_text
        if done.endswith("</think>\n\n"):
            return Completion(text="#### 1", tokens=6)
        text = "so</think>\n\n" if not done else " it is</think>\n\n"
        return Completion(text=text, tokens=len(text), token_ids=tuple(map(ord, text)), finish="stop")

    trace = solved(BudgetForcing(), reply)
    assert trace.text == "so Wait it is</think>\n\n#### 1"
    assert trace.answer == "1"


def test_a_least_length_puts_ends_off_until_it_is_there() -> None:
    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        done = request.prefix_text
        return "#### 1" if done.endswith("|") else f"{len(done):08}x|"

    seen, reply = recorded(parts)
    solved(BudgetForcing(min_think=45, n_ignore=0, think_close="|"), reply, most=300)
    thoughts = [request for request in seen if request.stop]
    assert len(thoughts) == 4  # 9, and 14 more with each " Wait"
    assert len(seen[-1].prefix_text) - 1 == 9 + 3 * 14 >= 45


@pytest.mark.parametrize("again", ["|", "abc |"])
def test_an_end_that_comes_at_once_or_repeats_is_not_put_off_again(again: str) -> None:
    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 1" if request.prefix_text.endswith("|") else again if request.prefix_text else "abc |"

    seen, reply = recorded(parts)
    trace = solved(BudgetForcing(n_ignore=6, min_think=50, think_close="|"), reply, most=300)
    assert sum(bool(request.stop) for request in seen) == 2
    assert trace.answer == "1"


def test_the_assistant_s_turn_begins_with_what_opens_a_thought() -> None:
    seen, reply = recorded(
        lambda request, child, rng: "so</think>#### 3" if "</think>" not in request.prefix_text else "3"
    )
    trace = solved(BudgetForcing(think_open="<think>\n", n_ignore=0), reply)
    assert [request.prefix_text for request in seen] == ["<think>\n", "<think>\nso</think>"]
    assert trace.text is not None
    assert trace.text.startswith("<think>\nso</think>")


def test_a_model_that_cannot_say_its_tokens_is_gone_on_with_as_text() -> None:
    def parts(request: Request, child: int, rng: np.random.Generator) -> str:
        return "#### 1" if "</think>" in request.prefix_text else f"so {len(request.prefix_text)}</think>"

    seen, reply = recorded(parts)
    trace = solved(BudgetForcing(), Able(reply, without=("tokens",)))
    assert [request.prefix_text for request in seen] == ["", "so 0 Wait", "so 0 Waitso 9</think>"]
    assert trace.answer == "1"


# ---------------------------------------------------------------- models that mark no thoughts


def stating(*answers: str) -> Reply:
    """Ends an answer, and after each word that is put in another one."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return f" {len(request.prefix_text)} #### {answers[request.prefix_text.count('Wait')]}"

    return reply


@pytest.mark.parametrize(
    ("said", "vote", "last"),
    [("12", "2", "2"), ("121", "1", "1"), ("112", "1", "2"), ("122", "2", "2"), ("1213", "1", "3")],
)
def test_of_the_answers_of_a_chain_the_most_frequent_counts_and_not_blindly_the_last(
    said: str, vote: str, last: str
) -> None:
    for selector, expected in (("vote", vote), ("last", last)):
        strategy = BudgetForcing(n_ignore=len(said) - 1, think_close="", selector=selector)  # type: ignore[arg-type]
        trace = solved(strategy, stating(*said), most=300)
        assert trace.answer == expected
        assert len(trace.rounds[-1].candidates) == len(said)


def test_the_answer_by_force_is_read_and_not_one_that_was_thought_of() -> None:
    """Also where no marks say what was a thought."""

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        return " 7\n\nand so on, for ever" if request.prefix_text else "Perhaps\n#### 5\n\nBut no, " + "x" * 200

    trace = solved(BudgetForcing(think_close=""), reply)
    assert trace.answer == "7"
    assert (trace.text or "").endswith(f"{MARK} 7\n"), "it ends with its line"
    assert solved(BudgetForcing(), reply).answer == "7"
    chat = Problem(id="p", messages=problem().messages, answer="chat")
    seen, noted = recorded(reply)
    run(solve_async(chat, BudgetForcing(think_close=""), model=ScriptedEngine(noted), sampling=Sampling(max_tokens=99)))
    assert seen[-1].prefix_text.endswith(FORCE)


def test_an_answer_that_is_thought_away_is_not_lost() -> None:
    trace = solved(BudgetForcing(n_ignore=1, think_close=""), stating("5", "I do not know"), most=300)
    assert trace.answer == "5"
    dead: Reply = lambda request, *_: EngineError("gone") if request.prefix_text else "#### 6"  # noqa: E731 - one line
    assert solved(BudgetForcing(think_close=""), dead).answer == "6"


def test_a_verifier_that_costs_is_asked_once_the_answers_are_there() -> None:
    """So it takes nothing that an answer needs; here every budget has an answer, and some have scores."""
    scored = set()
    for limit in range(112, 2500, 120):

        def reply(request: Request, child: int, rng: np.random.Generator) -> Any:
            if request.labels:
                assert not request.messages[0].text.startswith("What")
                return Completion(text="", tokens=1, labels=(-0.1, -2.0))
            return " 42" if MARK in request.prefix_text else "x" * 1000

        trace = solved(BudgetForcing(n=2, think_close=""), reply, budget=f"{limit}-tokens", verifier="judge")
        assert trace.cost["tokens"] <= limit
        assert trace.answer == "42", limit
        scored.add(trace.rounds[-1].scores is not None and None not in trace.rounds[-1].scores)
    assert scored == {False, True}


def test_a_verifier_takes_the_best_of_all_answers_of_all_chains() -> None:
    strategy = BudgetForcing(n=3, n_ignore=2, think_close="")
    trace = solved(strategy, stating("1", "2", "1"), 300, verifier=lambda question, text: float(text.endswith("2")))
    assert trace.answer == "2"
    assert len(trace.rounds[-1].scores or ()) == 9


# ---------------------------------------------------------------- room for the answer


def endless(request: Request, child: int, rng: np.random.Generator) -> str:
    return " 42" if FORCE in request.prefix_text or MARK in request.prefix_text else "x" * 1000


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("close", ["</think>", ""])
def test_a_budget_always_leaves_room_for_an_answer_after_a_thought(n: int, close: str) -> None:
    """From the smallest budget that is not refused, that of one plain sample."""
    put_in = len(ending("", close, FORCE if close else MARK))
    strategy = BudgetForcing(n=n, n_ignore=2, think_close=close, answer_max=10)
    for limit in range(12 + 60 + put_in, 700, 23):
        trace = solved(strategy, endless, budget=f"{limit}-tokens", most=60 + put_in)
        assert trace.cost["tokens"] <= limit
        assert trace.answer == "42", limit


def test_fewer_chains_rather_than_shorter_thoughts() -> None:
    one = 12 + 30 + (12 + 30 + len(ending("")) + 10)
    strategy = BudgetForcing(n=5, max_think=30, n_ignore=0, answer_max=10)
    for chains in (1, 2, 4):
        trace = solved(strategy, endless, budget=f"{chains * one + 5}-tokens", most=100)
        thoughts = [candidate for candidate in trace.candidates if candidate.text.startswith("x")]
        assert [thought.tokens for thought in thoughts] == [30] * chains


def test_without_room_for_both_it_is_a_plain_sample() -> None:
    trace = solved(BudgetForcing(answer_max=19), lambda *_: "#### 4", budget="32-tokens", most=20)
    assert (trace.answer, trace.stopped) == ("4", "finished")
    assert "nothing was forced" in trace.notes[0]


# ---------------------------------------------------------------- what the engine can do besides


def test_the_bias_is_on_the_end_of_thinking_alone_and_makes_it_come_by_its_odds() -> None:
    """p 0.02 with ln 10 added is 0.169, so the mean length of 50 becomes 5.9; 4 standard errors of 400 chains."""
    lengths: list[int] = []

    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        if not request.stop:
            assert not request.controls
            return "#### 1"
        (bias,) = request.controls["logit_bias"].values()
        assert list(request.controls["logit_bias"]) == [ord("|")]
        odds = 0.02 / 0.98 * math.exp(bias)
        lengths.append(int(rng.geometric(odds / (1 + odds))))
        return "x" * (lengths[-1] - 1) + "|"

    solved(BudgetForcing(n=400, n_ignore=0, think_close="|", bias=math.log(10)), Able(reply, "logit_bias"), 2000)
    assert np.mean(lengths) == pytest.approx(1 / 0.16949, abs=4 * float(np.std(lengths)) / math.sqrt(len(lengths)))


def test_a_bias_is_refused_where_the_engine_cannot_do_it() -> None:
    with pytest.raises(MissingResource, match=r"can do .*logit_bias"):
        solved(BudgetForcing(bias=2.0), lambda *_: "#### 1")


def test_a_server_that_ends_thoughts_itself_is_asked_to() -> None:
    seen, reply = recorded(lambda request, child, rng: "<think>so</think>#### 1")
    engine = Able(reply, "thinking_budget", without=("prefix", "tokens"))
    trace = solved(BudgetForcing(n=2, n_ignore=0, max_think=40), engine)
    assert {request.max_tokens for request in seen} == {100}
    assert all(request.controls == {"thinking_budget": 40} for request in seen)
    assert (trace.answer, len(trace.calls)) == ("1", 1)
    with pytest.raises(MissingResource, match="can do prefix"):
        solved(BudgetForcing(n_ignore=1), engine)
    with pytest.raises(MissingResource, match="neither go on with a text nor limit thoughts"):
        solved(BudgetForcing(n_ignore=0), Able(reply, without=("prefix", "tokens")))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"max_think": 0}, "max_think must be at least 1"),
        ({"answer_max": 0}, "answer_max must be at least 1"),
        ({"min_think": -1}, "min_think must be a number of at least 0"),
        ({"min_think": 9, "max_think": 5}, "min_think must be at most max_think"),
        ({"words": ()}, "words must have at least one word"),
        ({"bias": 101}, "bias must be from -100 to 100"),
        ({"bias": 1, "think_close": ""}, "needs think_close"),
        ({"selector": "first"}, "selector"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_strategy("budget_forcing", wrong)
