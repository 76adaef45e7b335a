"""Things of one's own behind "module:name": loaded, made with options, refused in a sentence, and closed."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import outthink
from outthink.errors import OutthinkError, UnknownName, UsageError
from outthink.models.engine import Price
from outthink.models.scripted import ScriptedEngine
from outthink.names import load, make_own
from outthink.resources.table import open_resources
from outthink.rewards.making import make_scorer
from outthink.strategies import STRATEGIES
from outthink.strategies.listing import describe_one
from outthink.strategies.making import make_strategy
from outthink.together import close_all
from tests.tools.virtual import run

if TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

CLOSED: list[str] = []


class Engine(ScriptedEngine):
    """Its options may be given by place as well, and one has a type that is not there when it is made."""

    def __init__(self, warmth: float = 1.0, *, other: Nothing | None = None) -> None:
        super().__init__(lambda request, child, rng: "#### 42", name=f"own {warmth:g}")

    async def close(self) -> None:
        CLOSED.append(self.spec.name)
        raise RuntimeError("the door is stuck")


class Needing(Engine):
    def __init__(self, *, warmth: float) -> None:
        super().__init__(warmth)


def engine(*, warmth: float = 2.0) -> Engine:
    return Engine(warmth)


half = functools.partial(engine, warmth=0.5)
there = Engine(7)
number = 5


def nothing() -> None:
    return None


def broken() -> Engine:
    raise RuntimeError("no power")


@dataclass
class Shelf:
    """A resource with a field that no text can stand for."""

    k: int = 1
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def close(self) -> None:
        CLOSED.append(f"shelf {self.k}")


class Plain:
    def __init__(self, k: int = 3) -> None:
        self.k = k


class Scorer:
    """One whose `close` is no coroutine function."""

    def __init__(self, *, top: float = 1.0) -> None:
        self.top = top

    async def score(self, problem: Any, paths: Any, **given: Any) -> list[float]:
        return [self.top for _ in paths]

    def close(self) -> None:
        CLOSED.append("scorer")


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Engine", "own 1"),
        ("Engine?warmth=0.25", "own 0.25"),
        ("Needing?warmth=3", "own 3"),
        ("engine", "own 2"),
        ("engine?warmth=4", "own 4"),
        ("half", "own 0.5"),
        ("there", "own 7"),
    ],
)
def test_an_engine_may_be_a_class_a_function_or_there_already(name: str, called: str) -> None:
    assert outthink.open_engine(f"{__name__}:{name}").spec.name == called


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Needing", "warmth: Field required; give it"),
        ("Engine?other=1", "type of other cannot be looked up"),
        ("there?warmth=1", "takes no options; leave warmth out"),
        ("number", "is no engine: it has no spec, bound"),
        ("nothing", "is no engine"),
        ("Plain", "is no engine"),
        ("broken", "cannot be made: RuntimeError: no power"),
        ("Engine?warmth=hot", "warmth: .*number"),
        ("Engine?warm=1", "did you mean 'warmth'"),
    ],
)
def test_what_is_no_engine_is_said(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        outthink.open_engine(f"{__name__}:{name}")


def test_a_price_holds_for_an_engine_of_ones_own() -> None:
    price = Price(prompt=1.0, completion=2.0)
    assert outthink.open_engine(f"{__name__}:there", price=price).spec.price == price
    assert there.spec.price is None


@pytest.mark.parametrize("source", ["def x(:", "raise RuntimeError('at import')", "1 / 0", "import sys; sys.exit(3)"])
def test_whatever_a_module_raises_is_told(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_on_import.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for opened in (load, outthink.open_engine, make_scorer, describe_one, outthink.make_strategy):
        with pytest.raises(UsageError, match=r"Cannot load .broken_on_import:Name.: .*Mend the module"):
            opened("broken_on_import:Name")


@pytest.mark.parametrize("letters", [300, 5000])
def test_a_name_longer_than_any_file_is_unknown(letters: int) -> None:
    with pytest.raises(UnknownName):
        outthink.open_engine("a" * letters)


def test_resources_and_scorers_are_made_in_the_same_way() -> None:
    assert open_resources([f"memory={__name__}:Shelf?k=4"])["memory"].k == 4
    assert open_resources([f"memory={__name__}:Plain?k=5"])["memory"].k == 5
    assert open_resources([f"memory={__name__}:there"])["memory"] is there
    made: Any = make_scorer(f"{__name__}:Scorer?top=0.5")
    assert made.top == 0.5
    with pytest.raises(UsageError, match="lock cannot be given as text"):
        open_resources([f"memory={__name__}:Shelf?lock=1"])
    with pytest.raises(UsageError, match="takes no options"):
        make_own(f"{__name__}:there", {"k": "1"})


def test_what_was_opened_is_closed_where_the_next_cannot_be() -> None:
    CLOSED.clear()
    with pytest.raises(OutthinkError):
        open_resources([f"retriever={__name__}:Shelf?k=6", f"memory={__name__}:broken"])
    assert CLOSED == ["shelf 6"]


def test_what_cannot_be_closed_takes_nothing_with_it(caplog: pytest.LogCaptureFixture) -> None:
    CLOSED.clear()
    with caplog.at_level(logging.WARNING, "outthink"):
        trace = outthink.solve(
            "What is 40 + 2?", "best_of_n?n=2", model=f"{__name__}:Engine", verifier=f"{__name__}:Scorer"
        )
        run(close_all([there, None, Shelf(k=8)]))
    assert trace.answer == "42"
    assert CLOSED == ["scorer", "own 1", "own 7", "shelf 8"]
    assert [record.getMessage() for record in caplog.records] == [
        "Engine could not be closed: RuntimeError: the door is stuck"
    ] * 2


def test_settings_behind_a_strategy_do_not_hide_it() -> None:
    assert describe_one("self_consistency?n=3") == describe_one("self_consistency")


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_type_of_every_field_of_a_strategy_is_known(name: str) -> None:
    """Also of one that it has from another class, in whose module alone the names of that type stand."""
    for one in dataclasses.fields(load(STRATEGIES[name])):
        refused = ""
        try:
            make_strategy(name, {one.name: "no such value"})
        except UsageError as refusal:
            refused = str(refusal)
        assert "cannot be looked up" not in refused
