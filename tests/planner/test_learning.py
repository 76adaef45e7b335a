"""From recorded traffic with drawn actions to a plan: whose truth is known, by the command that operators use."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.planner.learning import LEAST, plan_gain, read_traffic, thinned
from outthink.planner.logged import action_values
from outthink.planner.make import make_plan
from outthink.planner.plan import Plan
from outthink.planner.recordings import read
from outthink.records.runs import OWN, Trial
from outthink.records.traffic import SERVED, Feedback
from outthink.server.record import Recorder
from outthink.types import Call, Candidate, Round, Sampling, Usage
from tests.cli.test_cli import main
from tests.reports.test_report import trace
from tests.tools import simulated

SETTINGS = {"kind": "traffic", "model": "toy", "strategy": {"name": "self_consistency", "n": 4}}
SIZES = (1, 2, 4, 8)


def traffic(
    folder: Path,
    requests: int,
    *,
    share: float,
    seed: int = 0,
    better: float = 0.0,
    judged: float = 1.0,
    first: int = 0,
) -> Path:
    """A server that votes on four of eight samples, or on a random number; feedback has score and right answer."""
    pool = simulated.pool(folder.parent / f"{folder.name}.{first}.jsonl", first + requests, 8, better=better)
    rng = np.random.default_rng(seed)
    said: list[Future[None]] = []
    with Recorder(folder, SETTINGS) as recorder:
        for line in pool.read_text().splitlines()[first:]:
            row = json.loads(line)
            explores = rng.random() < share
            size = int(rng.choice(SIZES)) if explores else 4
            candidates = tuple(
                Candidate(
                    address=("model", 0, place),
                    text=one["text"],
                    tokens=one["tokens"],
                    logprobs=tuple(one["logprobs"]),
                    finish=one["finish"],
                    answer=one["answer"],
                    key=one["key"],
                    complete=one["finish"] == "eos",
                )
                for place, one in enumerate(row["samples"][:size])
            )
            keys = [one.key for one in candidates if one.key is not None]
            answer = max(keys, key=lambda key: (keys.count(key), -keys.index(key)), default=None)
            used = Usage(prompt=row["prompt_tokens"], completion=sum(one.tokens for one in candidates))
            call = Call(
                kind="sample",
                role="model",
                address=("model", 0),
                n=size,
                started=0.0,
                ended=1.0,
                seen=used,
                charged=used,
                cost={"tokens": float(used.tokens)},
            )
            made = replace(
                trace(row["id"], calls=(call,)),
                candidates=candidates,
                rounds=(Round(answer=answer, key=answer),),
                resources={"model": "toy"},
                sampling=Sampling(temperature=0.8, max_tokens=64),
            )
            chance = share / len(SIZES) if explores else 1 - share
            drawn = Trial(action=f"self_consistency?n={size}" if explores else OWN, chance=chance)
            recorder.served(made, [{"role": "user", "content": "?"}], None, drawn)
            if rng.random() < judged:
                feedback = Feedback(score=float(answer == "0"), answer="0", owner=None, at=1.0)
                said.append(recorder.said(row["id"], feedback))
        for kept in said:
            kept.result()
    return folder / SERVED


def test_thinning_leaves_an_unweighted_sample() -> None:
    """Of 20,000 with half of the weight a half stays: 4 standard errors have odds of 1 in 15,000."""
    weights = [2.0] * 1000 + [1.0] * 20_000
    kept = thinned(weights, np.random.default_rng(0))
    assert kept[:1000] == list(range(1000))
    assert abs(len(kept) - 1000 - 10_000) < 4 * 20_000**0.5 / 2
    assert thinned([], np.random.default_rng(0)) == []


def test_what_was_drawn_judged_and_known_is_read(tmp_path: Path) -> None:
    run = traffic(tmp_path / "live", 120, share=0.5, judged=0.7)
    learned = read_traffic([run])
    assert len(learned.requests) + learned.unjudged == 120
    assert learned.most == "self_consistency?n=8"
    assert {len(row["samples"]) for row in learned.rows} == {8}
    assert (learned.thinned, learned.others) == (0, 0)
    full = {one.problem for one in learned.requests if one.action == learned.most}
    assert {row["id"] for row in learned.rows} == full
    for row in learned.rows:
        assert [one["correct"] for one in row["samples"]] == [one["key"] == "0" for one in row["samples"]]
    none = read_traffic([run], since=1e12)
    assert (none.requests, none.unjudged, none.rows) == ((), 0, ())
    gold = {row["id"]: ("1",) for row in learned.rows}
    others = read_traffic([run], golds=gold).rows
    assert not any(one["correct"] and one["key"] == "0" for row in others for one in row["samples"])


def test_values_of_recorded_actions_are_those_of_the_pool(tmp_path: Path) -> None:
    """What all requests would have got is known here, since every one has eight samples; 3 standard errors each (of
    five) have odds of 1 in 75 of a false alarm, and the seed is fixed."""
    run = traffic(tmp_path / "live", 400, share=0.5, seed=2)
    rows = [json.loads(line) for line in (tmp_path / "live.0.jsonl").read_text().splitlines()]
    for value in action_values(read_traffic([run]).requests):
        size = 4 if value.action == OWN else int(value.action.rpartition("=")[2])
        right = []
        for row in rows:
            keys = [one["key"] for one in row["samples"][:size] if one["key"] is not None]
            right.append(bool(keys) and max(keys, key=lambda key: (keys.count(key), -keys.index(key))) == "0")
        mean, low, high = value.accuracy
        assert abs(mean - np.mean(right)) < 3 * (high - low) / 3.92


def test_a_plan_is_made_from_traffic_and_its_gain_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a shift in difficulty the old plan is not what it was; the command says what a new one gains."""
    monkeypatch.setenv("COLUMNS", "200")
    old_pool = simulated.pool(tmp_path / "old.jsonl", 60, 8, better=3.0)
    old, _ = make_plan(read([old_pool]), folds=2)
    (tmp_path / "old.json").write_text(old.to_json())
    run = traffic(tmp_path / "live", 400, share=0.5, seed=1)
    out = tmp_path / "new.json"
    words = ("plan", "learn", str(run), "-o", str(out), "--plan", str(tmp_path / "old.json"))
    result = main((*words, "--value-of-correct", "3k-tokens", "--answer", "math"), capsys, monkeypatch)
    assert result.code == 0, result.err
    assert "400 requests had a drawn action and a judged answer" in result.out
    assert "points over the plan that serves now" in result.out
    made = Plan.open(out)
    assert (made.model, made.samples) == ("toy", 8)
    assert made.problems >= LEAST
    assert (tmp_path / "new.pool.jsonl").stat().st_mode & 0o77 == 0
    assert Plan.open(tmp_path / "old.json").digest == old.digest, "nothing changes by itself"


def test_only_a_plan_that_surely_gains_takes_the_place_of_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traffic(tmp_path / "live", 240, share=0.9, seed=1)
    old, _ = make_plan(read([simulated.pool(tmp_path / "old.jsonl", 40, 6, better=3.0)], orders=2), folds=2)
    path = tmp_path / "old.json"
    path.write_text(old.to_json())
    words = ("plan", "learn", str(run), "-o", str(tmp_path / "new.json"), "--value-of-correct", "3k-tokens")
    assert main((*words, "--auto-update"), capsys, monkeypatch).code == 2
    new = replace(old, brier=0.5)
    monkeypatch.setattr("outthink.planner.make.make_plan", lambda *given, **more: (new, None))
    gain = [0.01, -0.001, 0.03]
    monkeypatch.setattr("outthink.planner.learning.plan_gain", lambda *given, **more: tuple(gain))
    stays = main((*words, "--plan", str(path), "--auto-update"), capsys, monkeypatch)
    assert "old.json stays" in " ".join(stays.out.split()).replace("\n", "")
    assert path.read_text() == old.to_json()
    assert not path.with_name("old.json.previous").exists()
    gain[1] = 0.001
    assert main((*words, "--plan", str(path), "--auto-update"), capsys, monkeypatch).code == 0
    assert path.read_text() == new.to_json() != old.to_json()
    assert path.with_name("old.json.previous").read_text() == old.to_json()


def test_too_little_makes_no_plan_and_says_what_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traffic(tmp_path / "live", 40, share=0.5)
    out = tmp_path / "new.json"
    result = main(("plan", "learn", str(run), "-o", str(out)), capsys, monkeypatch)
    assert result.code == 0
    assert "a plan takes 40" in result.out
    assert not out.exists()
    bare = traffic(tmp_path / "bare", 20, share=0.5, judged=0.0)
    result = main(("plan", "learn", str(bare), "-o", str(out)), capsys, monkeypatch)
    assert result.code == 2
    assert "collect feedback" in " ".join(result.err.split())
    for wrong in (("--since", "soon"), ("--value-of-correct", "1usd"), ("--value-of-correct", "much")):
        assert main(("plan", "learn", str(run), "-o", str(out), *wrong), capsys, monkeypatch).code == 2


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("wide")
    return read([simulated.pool(folder / "all.jsonl", 480, 6, parameters=1)], orders=2).material


def test_the_interval_of_a_gain_holds_what_it_is_on_all_questions(wide: Any) -> None:
    """12 parts of 40 problems each, and the mean gain of all 480. Of 95% intervals four or more of 12 miss it with
    odds of 1 in 450."""
    old, _ = make_plan_of(wide)
    price = 1 / 3000
    gains = [plan_gain(wide.select(np.arange(start, 480, 12)), old, price=price, seed=start) for start in range(12)]
    truth = np.mean([gain[0] for gain in gains])
    assert sum(not low <= truth <= high for _, low, high in gains) <= 3


def make_plan_of(material: Any) -> tuple[Plan, Any]:
    """A plan of problems at other rates."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return make_plan(read([simulated.pool(Path(folder) / "p.jsonl", 40, 6, better=2.0)], orders=2), folds=2)
