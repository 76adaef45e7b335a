"""A new strategy is one file, one line in the table and one test, as the skeleton of CONTRIBUTING.md shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outthink.driver import solve_async
from outthink.errors import EngineError
from outthink.models.engine import Request
from outthink.models.scripted import ScriptedEngine
from outthink.strategies import STRATEGIES
from outthink.strategies.listing import describe
from outthink.strategies.making import make_strategy
from outthink.types import Sampling, Trace
from tests.strategies import test_contract
from tests.tools.toys import problem
from tests.tools.virtual import run

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMISES = [
    test_contract.test_names_only_known_resources_with_their_annotation,
    test_contract.test_same_seed_same_trace_whatever_finishes_first,
    test_contract.test_charged_tokens_are_produced_tokens,
    test_contract.test_a_budget_below_one_sample_is_refused_before_any_call,
    test_contract.test_stops_when_asked_to,
    test_contract.test_a_cancellation_from_outside_gets_through_and_everything_is_settled,
    test_contract.test_a_dead_model_raises_with_the_cause_and_the_bill,
    test_contract.test_an_engine_that_overran_is_charged_and_nothing_further_starts,
]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def first_valid(texts: list[str | EngineError], n: int = 4) -> Trace:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return texts[int(request.address[-1])]

    strategy = make_strategy("skeleton:FirstValid", {"n": n})
    return run(solve_async(problem(), strategy, model=ScriptedEngine(reply), sampling=Sampling(max_tokens=20)))


def test_the_one_test_of_the_skeleton() -> None:
    trace = first_valid([EngineError("lost"), "no idea", "x" * 99, "#### 7", "#### 8"], n=5)
    assert trace.answer == "7"
    assert [candidate.finish for candidate in trace.candidates] == ["eos", "length", "eos"]
    assert [call.outcome for call in trace.calls] == ["failed", "ok", "ok", "ok"]  # nothing after the first valid one
    assert trace.strategy == {"name": "skeleton:FirstValid", "n": 5}


def test_no_valid_answer_is_none() -> None:
    trace = first_valid(["no idea"] * 4)
    assert (trace.answer, trace.stopped, len(trace.candidates)) == (None, "finished", 4)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_one_line_in_the_table_puts_it_under_the_contract(promise: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "first_valid", "skeleton:FirstValid")
    assert callable(promise)
    promise("first_valid")


@pytest.mark.parametrize("limit", [140, 333, 1000])
def test_the_contract_about_budgets(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "first_valid", "skeleton:FirstValid")
    test_contract.test_never_over_the_budget_and_still_an_answer("first_valid", limit)


def test_one_line_in_the_table_lists_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "first_valid", "skeleton:FirstValid")
    entry = next(entry for entry in describe() if entry["name"] == "first_valid")
    assert entry["summary"].startswith("First valid answer:")
    assert entry["source"].startswith("common practice")
    assert (entry["hyperparameters"], entry["needs"]) == ({"n": 4}, ["model"])


def test_contributing_shows_the_same_text() -> None:
    page = (EXAMPLES.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"```python\n{(EXAMPLES / 'skeleton.py').read_text(encoding='utf-8')}```" in page
