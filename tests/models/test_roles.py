"""Roles: how they are written, and that every door gives each its model, its ledger line and its price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.errors import UsageError
from outthink.models.engine import Request
from outthink.models.roles import by_role, read_roles
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import read_results, read_settings
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Problem
from tests.tools.toys import problem
from tests.tools.virtual import run


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["generator=a,judge=b"], {"model": "a", "judge": "b"}),
        (["generator=a", "judge=b"], {"model": "a", "judge": "b"}),
        (["judge=http://host/v1#x?a=1,b, fusor=c"], {"judge": "http://host/v1#x?a=1,b", "fusor": "c"}),
        (["judge=pool,1.jsonl"], {"judge": "pool,1.jsonl"}),
        ([], {}),
        (None, {}),
    ],
)
def test_roles_are_read_as_they_are_written(given: list[str] | None, names: dict[str, str]) -> None:
    assert read_roles(given) == names


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["judge"], "Cannot read --role 'judge'"),
        (["judge="], "ROLE=MODEL"),
        (["model=a"], "generator=MODEL for the one that writes the answers"),
        (["judge=a,judge=b"], "'judge' is given twice"),
        (["generator=a", "generator=b"], "'generator' is given twice"),
    ],
)
def test_what_is_no_role_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_roles(given)


def test_the_generator_is_the_model() -> None:
    assert by_role(None, {"judge": 2, "generator": 1}) == {"model": 1, "judge": 2}
    assert by_role(1, {"judge": 2}) == {"model": 1, "judge": 2}
    with pytest.raises(UsageError, match="Two models write the answers"):
        by_role(object(), {"generator": object()})
    with pytest.raises(UsageError, match="No model writes the answers"):
        by_role(None, {"judge": 2})


def writer(request: Request, child: int, rng: np.random.Generator) -> str:
    return f"#### {child}"


def judging(request: Request, child: int, rng: np.random.Generator) -> str:
    return "Ratings: A=9/10, B=2/10"


def engines() -> dict[str, Any]:
    return {"generator": ScriptedEngine(writer, name="writer"), "judge": ScriptedEngine(judging, name="judge")}


PRICES = {"generator": "1,10", "judge": "100,1000"}


def billed(calls: Any) -> dict[str, tuple[int, float]]:
    """Tokens and millionths of dollars by role."""
    bill: dict[str, tuple[int, float]] = {}
    for call in calls:
        tokens, usd = bill.get(call.role, (0, 0.0))
        bill[call.role] = (tokens + call.charged.tokens, usd + 1e6 * call.cost["usd"])
    return bill


def test_the_library_meters_and_prices_each_role_apart() -> None:
    trace = run(solve_async(problem(), make_strategy("v1_infer", {"n": 2}), models=engines(), price=PRICES))
    assert {"model": "writer", "judge": "judge"}.items() <= trace.resources.items()
    bill = billed(trace.calls)
    assert bill.keys() == {"model", "judge"}
    written = {role: sum(call.charged.completion for call in trace.calls if call.role == role) for role in bill}
    # whatever is read from the cache costs as much as what is read anew
    read = {role: sum(call.charged.prompt for call in trace.calls if call.role == role) for role in bill}
    assert bill["model"][1] == pytest.approx(read["model"] + 10 * written["model"])
    assert bill["judge"][1] == pytest.approx(100 * read["judge"] + 1000 * written["judge"])


def test_a_run_takes_and_tells_the_same_roles(tmp_path: Path) -> None:
    example = Example(problem=Problem(id="p", messages=problem().messages), gold=("0",))
    given = engines()
    run(bench([example], make_strategy("v1_infer", {"n": 2}), store=tmp_path / "run", models=given))
    assert read_settings(tmp_path / "run")["models"] == {"model": "writer", "judge": "judge"}
    (result,) = read_results(tmp_path / "run")
    assert result.trace is not None
    assert {call.role for call in result.trace.calls} == {"model", "judge"}


def test_the_command_line_takes_them_in_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from outthink.cli import app

    made = engines()
    monkeypatch.setattr("outthink.models.open_engine", lambda name, price=None: made[name])
    words = ["solve", "Which?", "--answer", "math", "-s", "v1_infer", "--n", "2", "--json"]
    said = CliRunner().invoke(app, [*words, "--role", "generator=generator,judge=judge"])
    told = json.loads(said.stdout)
    assert {line["role"] for line in told["ledger"]} == {"model", "judge"}
    wrong = CliRunner().invoke(app, [*words, "-m", "judge", "--role", "generator=generator"])
    assert wrong.exit_code


def test_a_server_opens_them_and_its_generator_is_what_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from outthink.cli import app

    served: list[dict[str, str]] = []

    def kept(settings: Any, policy: Any, opened: Any, **options: Any) -> None:
        served.append({role: engine.spec.name for role, engine in opened.items()})

    made = engines()
    monkeypatch.setattr("outthink.models.open_engine", lambda name, price=None: made[name])
    monkeypatch.setattr("outthink.server.start.run", kept)
    said = CliRunner().invoke(app, ["serve", "--role", "generator=generator,judge=judge"])
    assert (said.exit_code, served) == (0, [{"model": "writer", "judge": "judge"}])
    assert CliRunner().invoke(app, ["serve", "--model", "judge", "--role", "generator=generator"]).exit_code
    assert len(served) == 1


def test_a_pool_holds_what_the_generator_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from outthink.cli import app

    made = engines()
    monkeypatch.setattr("outthink.models.open_engine", lambda name, price=None: made[name])
    file = tmp_path / "pool.jsonl"
    words = ["pool", "gym:chain_sum?size=2", "--n", "2", "--out", str(file), "--role"]
    refused = CliRunner().invoke(app, [*words, "judge=judge"])
    assert "takes generator=MODEL only" in str(refused.exception)
    assert CliRunner().invoke(app, [*words, "generator=generator"]).exit_code == 0
    assert json.loads(file.read_text().splitlines()[0])["samples"][0]["text"] == "#### 0"
