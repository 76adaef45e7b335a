"""`outthink.solve` has its parameters by name, those of `solve_async`; kinds of answers and prices go with both."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import outthink
from outthink.errors import UsageError
from outthink.models.engine import Price
from outthink.models.scripted import ScriptedEngine


def engine(**options: Any) -> ScriptedEngine:
    return ScriptedEngine(lambda request, child, rng: "So it is\nParis #### 4", **options)


def test_both_have_the_same_parameters() -> None:
    ours, other = (inspect.signature(one).parameters for one in (outthink.solve, outthink.solve_async))
    assert list(ours) == list(other)
    assert not [one for one in ours.values() if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    assert {name: one.default for name, one in ours.items()} == {name: one.default for name, one in other.items()}
    for name in ours:
        assert (
            f"{name}:" in (outthink.solve.__doc__ or "")
            or f"{name}," in (outthink.solve.__doc__ or "")
            or name
            in (
                "prm",
                "watch",
            )
        )


def test_an_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="budgt"):
        outthink.solve("q", model=engine(), budgt="5s")  # type: ignore[call-arg]


def test_the_kind_of_answer() -> None:
    assert outthink.solve("q", "greedy", model=engine(), answer="math").answer == "4"
    assert outthink.solve("q", "greedy", model=engine(), answer="chat").answer == "4"
    whole = ScriptedEngine(lambda request, child, rng: "Well\nParis")
    assert outthink.solve("q", "greedy", model=whole, answer="math").answer is None
    assert outthink.solve("q", "greedy", model=whole).answer == "Well\nParis"
    assert outthink.solve("q", "greedy", model=whole, answer="text").answer == "Paris"
    problem = outthink.ask("q", answer="text")
    assert outthink.solve(problem, "greedy", model=whole, answer="text").answer == "Paris"
    with pytest.raises(UsageError, match="says itself that its answer is text"):
        outthink.solve(problem, "greedy", model=whole, answer="json")


@pytest.mark.parametrize("price", ["1,10", Price(prompt=1, completion=10), {"model": "1,10"}, ["1,10"]])
def test_a_price(price: Any) -> None:
    model = engine()
    trace = outthink.solve("q", "greedy", model=model, price=price, budget="1usd")
    usage = trace.usage
    assert trace.cost["usd"] == pytest.approx((usage.prompt + 10 * usage.completion) / 1e6)
    again = asyncio.run(outthink.solve_async("q", "greedy", model=model, price=price))
    assert again.cost["usd"] == trace.cost["usd"]
    assert model.spec.price is None  # the engine is as it was
    assert "usd" not in outthink.solve("q", "greedy", model=model).cost


def test_prices_by_role(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"one": {"prompt": 1, "completion": 10}}))
    both = {"fusor": engine(name="two")}
    one = engine(name="one")
    trace = outthink.solve("q", "fusion", model=one, models=both, price={"model": str(path), "fusor": "2,20"})
    assert {call.role for call in trace.calls} >= {"model"}
    assert trace.cost["usd"] > 0
    with pytest.raises(UsageError, match="price for the role 'judge' but no model"):
        outthink.solve("q", model=one, price={"judge": "1,2"})
    with pytest.raises(UsageError, match="two prices"):
        outthink.solve("q", model=one, models={"judge": one}, price={"model": "1,2", "judge": "2,3"})
    with pytest.raises(UsageError, match="PROMPT,COMPLETION"):
        outthink.solve("q", model=one, price="cheap")


def test_models_by_name_are_opened_once_with_their_price(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, Any]] = []

    def opening(name: str, *, price: Price | None = None) -> ScriptedEngine:
        opened.append((name, price))
        return engine(name=name, price=price)

    monkeypatch.setattr("outthink.driver.open_engine", opening)
    outthink.solve("q", "fusion", model="m", models={"fusor": "m"}, price="1,10")
    assert opened == [("m", Price(prompt=1, completion=10))]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"problem": None}, "A question is a text or a Problem, not NoneType"),
        ({"problem": 5}, "not int"),
        ({"model": None}, "No model writes the answers: give model="),
        ({"models": {"judge": 5}}, "role 'judge' is neither a name nor an engine"),
        ({"budget": 5}, "A budget is a text such as 20k-tokens,8s, or a Budget, not 5"),
        ({"answer": "maths"}, "did you mean 'math'"),
        ({"resources": {"model": object()}}, "resource model has a way of its own: pass model="),
        ({"resources": {"meter": object()}}, "resource meter has a way of its own: it is always there"),
        ({"resources": {"verifier": object()}}, "resource verifier has a way of its own: pass verifier="),
    ],
)
def test_what_is_none_of_what_may_be_given_is_refused_in_a_sentence(options: dict[str, Any], says: str) -> None:
    engine = ScriptedEngine(lambda request, child, rng: "#### 42")
    given: dict[str, Any] = {"problem": "What is 40 + 2?", "strategy": "self_consistency?n=2", "model": engine}
    with pytest.raises(UsageError, match=says) as raised:
        outthink.solve(**{**given, **options})
    assert raised.value.__context__ is None, "a traceback of it tells nothing else"
