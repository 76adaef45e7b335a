"""Opening models by name: the table of engines, options behind a question mark, and engines of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

import outthink
from outthink.errors import UnknownName, UsageError
from outthink.models import ENGINES
from outthink.models.engine import Price
from outthink.models.scripted import ScriptedEngine
from outthink.names import load

MADE: list[tuple[float, bool]] = []


class Own(ScriptedEngine):
    """An engine of one's own with options."""

    def __init__(self, *, warmth: float = 1.0, loud: bool = False) -> None:
        super().__init__(lambda request, child, rng: "#### 42", name="own")
        MADE.append((warmth, loud))


def test_every_row_can_be_loaded() -> None:
    assert all(callable(load(target)) for target in ENGINES.values())


def test_an_engine_of_ones_own_gets_options_by_their_types() -> None:
    engine = outthink.open_engine(f"{__name__}:Own?warmth=0.5&loud=yes")
    assert engine.spec.name == "own"
    assert MADE[-1] == (0.5, True)


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("{module}:Own?warm=1", UnknownName, "did you mean 'warmth'"),
        ("{module}:Own?warmth=hot", UsageError, "warmth: .*number"),
        ("{module}:None", UsageError, "Cannot load"),
        ("embedded:no-such-model", UnknownName, "no model 'no-such-model'"),
        ("no-such-model", UnknownName, "no model 'no-such-model'"),
        ("pool:nowhere.jsonl", UsageError, "nowhere.jsonl"),
        ("smollm2-135m-instruct?cache=4", UnknownName, "option of smollm2-135m-instruct"),
        ("", UnknownName, "no model ''"),
    ],
)
def test_what_cannot_be_opened_is_said(name: str, kind: type[UsageError], says: str) -> None:
    with pytest.raises(kind, match=says):
        outthink.open_engine(name.format(module=__name__))


def test_a_pool_is_known_by_its_ending_and_by_its_prefix(tmp_path: Path) -> None:
    pool = tmp_path / "odd?name.jsonl"
    pool.write_text(
        '{"id": "a", "prompt_tokens": 5, "samples": [{"text": "#### 42", "tokens": 3, "finish": "eos"}]}\n',
        encoding="utf-8",
    )
    price = Price(prompt=1.0, completion=2.0)
    assert outthink.open_engine(str(pool), price=price).spec.price == price
    pool = pool.rename(tmp_path / "plain.txt")
    assert outthink.open_engine(f"pool:{pool}", price=price).spec.price == price
