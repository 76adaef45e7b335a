"""Plans as files, the strategy auto, quotes, checks and one budget over a task, on recorded samples."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from outthink import Problem, Sampling, ask
from outthink.bench.run import bench
from outthink.cli import app
from outthink.cost import worth
from outthink.cost.calibration import Calibration, Row
from outthink.cost.latency import Latency, TimedRequest
from outthink.driver import solve_async
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Engine, Progress, Request
from outthink.models.recorded import RecordedEngine
from outthink.models.scripted import ScriptedEngine
from outthink.planner.agreement import next_portion
from outthink.planner.auto import Auto
from outthink.planner.cases import Material, cases
from outthink.planner.check import check_plan, check_run
from outthink.planner.make import make_plan
from outthink.planner.plan import Plan, version_of
from outthink.planner.quote import ease_of, price_at, quote
from outthink.planner.recordings import read
from outthink.planner.simulate import Simulator
from outthink.records.pools import read_pool
from outthink.records.runs import read_results
from outthink.server.drifting import Drifting
from outthink.strategies.making import make_strategy
from outthink.tasks.example import Example
from outthink.types import Budget, Message, Trace
from tests.tools import simulated, virtual

SAMPLING = Sampling(max_tokens=64)
PROBLEMS, SAMPLES = 60, 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Plan]:
    """(pool, plan file, plan) of one model."""
    folder = tmp_path_factory.mktemp("plan")
    pool = simulated.pool(folder / "pool.jsonl", PROBLEMS, SAMPLES)
    plan, _ = make_plan(read([pool], orders=10), folds=3)
    (folder / "plan.json").write_text(plan.to_json())
    return pool, folder / "plan.json", plan


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(pool, target's pool, plan file)."""
    folder = tmp_path_factory.mktemp("two")
    pool = simulated.pool(folder / "pool.jsonl", PROBLEMS, 8, rates=(0.5, 1.5))
    dear = simulated.pool(
        folder / "dear.jsonl", PROBLEMS, 4, rates=(0.5, 1.5), better=2.5, model="big", parameters=12_000_000, seed=3
    )
    plan, _ = make_plan(read([pool], target=dear, unit="flops", orders=10), folds=3)
    (folder / "plan.json").write_text(plan.to_json())
    return pool, dear, folder / "plan.json"


def says(*texts: str) -> ScriptedEngine:
    """The k-th sample of a problem is the k-th text, from the first again after the last."""
    return ScriptedEngine(lambda request, child, rng: texts[child % len(texts)], name="toy")


def problem(name: str) -> Problem:
    return replace(ask(f"Question {name[1:]}?"), id=name)


def run(strategy: Auto, engine: Engine, name: str = "q0", **options: Any) -> Trace:
    return virtual.run(solve_async(problem(name), strategy, model=engine, sampling=SAMPLING, **options))


# ----------------------------------------------------------------------------------------------------------- plans


def test_a_plan_is_the_same_after_it_was_written(made: tuple[Path, Path, Plan]) -> None:
    _, path, plan = made
    again = Plan.open(path)
    assert again.to_json() == plan.to_json()
    features = np.zeros(len(again.policy.scale.mean))
    assert again.policy.gains(features, (1, 0)) == pytest.approx(
        plan.policy.gains(features, (1, 0)), rel=1e-4, nan_ok=True
    )


def test_a_plan_is_small_and_says_what_it_is_for(made: tuple[Path, Path, Plan]) -> None:
    _, path, plan = made
    raw = json.loads(path.read_text())
    assert path.stat().st_size < 60_000
    assert list(raw)[:2] == ["schema", "model"]
    assert (plan.model, plan.unit, plan.problems, plan.samples) == ("toy", "tokens", PROBLEMS, SAMPLES)
    assert [point.cost for point in plan.expected] == sorted(point.cost for point in plan.expected)
    for point in plan.expected:
        assert 0 <= point.low <= point.accuracy <= point.high <= 1
        assert point.least <= point.cost <= point.most


def test_ties_go_to_the_cheaper(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    for row in plan.table.cells:
        for cell, dearer in itertools.pairwise(row):
            assert dearer.cost >= cell.cost - 1e-9
            assert dearer.accuracy > cell.accuracy or dearer.setting == cell.setting


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "other"}, "for toy, not for other"),
        ({"sampling": {"temperature": 0.2, "top_p": 1.0, "max_tokens": 64}}, "temperature 0.8, not 0.2"),
    ],
)
def test_a_plan_for_something_else_is_refused(
    made: tuple[Path, Path, Plan], change: dict[str, Any], sentence: str
) -> None:
    given: dict[str, Any] = {"model": "toy", "target": None, "verifier": None, "sampling": None}
    made[2].check(**given)
    with pytest.raises(UsageError, match=sentence):
        made[2].check(**{**given, **change})


def test_a_plan_of_another_version_is_refused(made: tuple[Path, Path, Plan]) -> None:
    old = replace(made[2], versions={**made[2].versions, "self_consistency": "00000000"})
    with pytest.raises(UsageError, match="another version of self_consistency"):
        old.check(model="toy", target=None, verifier=None, sampling=None)
    judged = replace(made[2], verifier="probe.json 12345678")
    with pytest.raises(UsageError, match=r"add --verifier probe\.json"):
        judged.check(model="toy", target=None, verifier=None, sampling=None)
    with pytest.raises(UsageError, match=r"reads scores of probe\.json"):
        judged.check(model="toy", target=None, verifier="probe.json 87654321", sampling=None)
    judged.check(model="toy", target=None, verifier="elsewhere/probe.json 12345678", sampling=None)


def test_a_version_is_that_of_the_code_and_not_of_its_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (
        ("one", '"""Doc."""\n\n\ndef run():\n    """Says."""\n    return 1\n'),
        ("two", '"""Other."""\n\n\ndef run():\n    # why\n    return 1  # here\n'),
        ("three", '"""Doc."""\n\n\ndef run():\n    """Says."""\n    return 2\n'),
    ):
        (tmp_path / f"plan_version_{name}.py").write_text(text)
    one, two, three = (version_of(f"plan_version_{name}:Run") for name in ("one", "two", "three"))
    assert one == two != three
    assert version_of("no_such_module:Run") == "missing"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "model": 3}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError, match="outthink plan fit"):
        Auto(plan=str(tmp_path / "plan.json"))


def test_a_price_is_found_for_every_mean_cost(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    prices = [plan.price(cost) for cost in (1.0, 60.0, 120.0, 240.0, 480.0, 1e6)]
    assert prices == sorted(prices, reverse=True)
    assert prices[-1] == pytest.approx(min(point.price for point in plan.expected))
    for point in plan.expected:
        assert plan.price(point.cost) == pytest.approx(point.price, rel=0.3)


# ------------------------------------------------------------------------------------------------------------ auto


def simulated_outcome(material: Material, plan: Plan, price: float) -> tuple[np.ndarray[Any, Any], ...]:
    """Credit, cost and samples where the samples come in the order of the file."""
    identity = np.broadcast_to(np.arange(material.model.samples), (len(material.ids), 1, material.model.samples)).copy()
    target = None
    if material.target is not None:
        target = np.broadcast_to(np.arange(material.target.samples), (len(material.ids), 1, material.target.samples))
        target = target.copy()
    ordered = replace(material, orders=identity, target_orders=target)
    all_cases = cases(ordered, plan.policy.vote)
    outcome = Simulator(plan.policy, all_cases, ordered).at(price)
    return (
        outcome.credit[:, 0],
        outcome.cost[:, 0],
        np.array([sum(all_cases.states[place]) for place in outcome.ended[:, 0]]),
    )


def test_live_decisions_are_those_of_the_simulation(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    plan, engine = Plan.open(path), RecordedEngine.open(pool)
    material = read([pool]).material
    for wanted in (100.0, 200.0):
        auto = Auto(plan=str(path), mean_cost=wanted)
        credit, cost, samples = simulated_outcome(material, plan, plan.price(wanted))
        for place, name in enumerate(material.ids):
            trace = run(auto, engine, name)
            assert len(trace.candidates) == samples[place]
            assert trace.cost["tokens"] == pytest.approx(cost[place])
            assert (trace.key == "0") == bool(credit[place])
            assert trace.confidence is not None
            assert 0 <= trace.confidence <= 1
            assert trace.notes[0].startswith("price ")


def test_live_decisions_with_a_target_are_those_of_the_simulation(two: tuple[Path, Path, Path]) -> None:
    pool, dear, path = two
    plan, engine, big = Plan.open(path), RecordedEngine.open(pool), RecordedEngine.open(dear)
    material = read([pool], target=dear, unit="flops").material
    wanted = plan.expected[len(plan.expected) // 2].cost
    credit, cost, samples = simulated_outcome(material, plan, plan.price(wanted))
    went_over = 0
    for place, name in enumerate(material.ids):
        trace = run(Auto(plan=str(path), mean_cost=wanted), engine, name, models={"target": big})
        assert len(trace.candidates) == samples[place]
        assert trace.cost["flops"] == pytest.approx(cost[place])
        assert (trace.key == "0") == bool(credit[place])
        went_over += any(candidate.address[0] == "target" for candidate in trace.candidates)
    assert 0 < went_over < len(material.ids)


def test_the_target_must_be_the_one_of_the_plan(two: tuple[Path, Path, Path]) -> None:
    pool, _, path = two
    with pytest.raises(UsageError, match="add --role target=big"):
        run(Auto(plan=str(path)), RecordedEngine.open(pool))


def test_no_budget_is_exceeded_and_what_does_not_fit_is_not_begun(made: tuple[Path, Path, Plan]) -> None:
    pool, path, plan = made
    engine = RecordedEngine.open(pool)
    worst = 40 + SAMPLING.cap
    for limit in (worst, worst + 30, 2 * worst, 400):
        for name in ("q1", "q2", "q3", "q4"):
            trace = run(Auto(plan=str(path)), engine, name, budget=Budget({"tokens": limit}))
            assert trace.cost["tokens"] <= limit
            assert trace.candidates
    # the budget of a problem is also what problems may cost on average
    (note,) = run(Auto(plan=str(path)), engine, budget=Budget({"tokens": 200})).notes
    assert float(note.split()[1]) == pytest.approx(plan.price(200), rel=1e-4)


def test_value_decides_where_it_stops(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    engine = RecordedEngine.open(pool)

    def spent(value: str) -> float:
        auto = Auto(plan=str(path), value_of_correct=value)
        return sum(run(auto, engine, f"q{number}").cost["tokens"] for number in range(12))

    costs = [spent(value) for value in ("1-tokens", "300-tokens", "2k-tokens", "100k-tokens")]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    one = sum(40 + row["samples"][0]["tokens"] for row in map(json.loads, pool.read_text().splitlines()[:12]))
    assert costs[0] == one


def test_value_in_dollars_needs_a_price(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    with pytest.raises(UsageError, match="costs in usd is not known"):
        run(Auto(plan=str(path), value_of_correct="0.05usd"), RecordedEngine.open(pool))
    from outthink.models.engine import Price

    priced = RecordedEngine.open(pool, price=Price(prompt=1.0, completion=1.0, cached=0.0))
    in_tokens = run(Auto(plan=str(path), value_of_correct="1k-tokens"), priced)
    in_dollars = run(
        Auto(plan=str(path), value_of_correct="0.001usd"), priced
    )  # a thousand tokens at a dollar a million
    assert [c.id for c in in_dollars.candidates] == [c.id for c in in_tokens.candidates]


def calibrated(path: Path, engine: str = "toy") -> Path:
    """A calibration that says one second a sample, four side by side as fast as one."""
    latency = Latency(step=1 / 30, free=4.0, sample=1 / 30)
    rows = tuple(Row(timed=TimedRequest(prompt=40, lengths=(30,) * n, seconds=1.0), use="fit") for n in (1, 2, 4, 8))
    made = Calibration(engine=engine, date="2026-01-01", machine={}, rows=rows, latency=latency, spread=1.1, level=0.9)
    path.write_text(made.text())
    return path


def test_a_deadline_is_planned_with_a_calibration(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    """Samples never agree and take a second each; 3.5 seconds are time for three portions, not for four."""
    _, path, _ = made
    texts = [f"{'so ' * 9}#### {number}" for number in range(12)]
    engine = ScriptedEngine(lambda _, child, rng: texts[child % 12], latency=lambda *_: 1.0, name="toy")
    asked = replace(problem("q0"), messages=(Message(content="x" * 40),))  # as long as the pool's prompts

    def timed(**options: str) -> Trace:
        auto = Auto(plan=str(path), **options)  # type: ignore[arg-type]  # these options are texts
        return virtual.run(solve_async(asked, auto, model=engine, sampling=SAMPLING, budget=Budget({"seconds": 3.5})))

    blind = timed()
    assert blind.stopped == "deadline", blind.notes
    planned = timed(calibration=str(calibrated(tmp_path / "c.json")))
    assert planned.stopped == "finished"
    assert planned.seconds == pytest.approx(3.0)
    assert len(planned.candidates) == 3
    with pytest.raises(UsageError, match="calibration is of other, not of toy"):
        run(Auto(plan=str(path), calibration=str(calibrated(tmp_path / "d.json", "other"))), engine)
    with pytest.raises(UsageError, match="Cannot read"):
        Auto(plan=str(path), calibration=str(tmp_path / "nothing.json"))


def test_outside_of_what_it_was_fitted_on_it_falls_back_and_says_so(made: tuple[Path, Path, Plan]) -> None:
    _, path, plan = made
    scale = plan.policy.scale
    narrow = replace(scale, low=(9.0,) * len(scale.low), high=(9.1,) * len(scale.high))
    other = path.with_name("narrow.json")
    other.write_text(replace(plan, policy=replace(plan.policy, scale=narrow)).to_json())
    engine = RecordedEngine.open(made[0])
    for name in ("q0", "q1", "q2"):
        trace = run(Auto(plan=str(other)), engine, name)
        assert "outside of what the plan was fitted on" in trace.notes[1]
        assert trace.stopped == "finished"
        assert trace.error is None
        assert trace.key is not None
    assert len(run(Auto(plan=str(other), value_of_correct="1-tokens"), engine).candidates) == 1  # the price still holds


@pytest.mark.parametrize("value", [20.0, 200.0, 2_000.0])
def test_without_a_plan_the_general_one_stops_where_votes_gain_less_than_a_sample_costs(value: float) -> None:
    """Whatever is in flight; all agree, so that n samples are n votes for one answer."""
    trace = run(Auto(value_in_samples=value), says("#### 1"))
    stops = next(n for n in range(1, 40) if not next_portion([n, 0], n, 1 / value))
    assert len(trace.rounds[-1].candidates) == stops
    different = run(Auto(value_in_samples=value), says(*(f"#### {number}" for number in range(40))))
    stops = next(n for n in range(1, 41) if n == 40 or not next_portion([1, min(n - 1, 1)], n, 1 / value))
    assert len(different.rounds[-1].candidates) == stops


def test_a_quote_without_a_plan_says_that_it_is_the_general_one() -> None:
    code, text = invoke("quote", "How many?")
    assert code == 0
    assert "make your own with `outthink plan fit`" in " ".join(text.split())


def test_without_a_plan_nothing_is_spent_beyond_what_an_answer_is_worth() -> None:
    different = says(*(f"#### {number}" for number in range(40)))
    assert len(run(Auto(value_in_samples=1e9), different).candidates) == 40
    assert len(run(Auto(n=5, value_in_samples=1e9), different).candidates) == 5
    assert len(run(Auto(value_of_correct="1-tokens"), different).candidates) == 1
    long = says(*(f"{'so ' * 50}#### {number}" for number in range(40)))
    one = run(Auto(n=1), long).cost["tokens"]
    spent = {worth: run(Auto(value_of_correct=f"{worth}-tokens"), long).cost["tokens"] for worth in (1_000, 4_000)}
    assert one < spent[1_000] <= spent[4_000]
    assert all(cost <= value for value, cost in spent.items())


def test_without_a_plan_what_agreement_can_still_gain_decides() -> None:
    agreeing = says("#### 1")
    first = run(Auto(n=1), agreeing).candidates[0].tokens
    drawn = [
        len(run(Auto(value_of_correct=f"{worth * first}-tokens"), agreeing).candidates) for worth in (10, 100, 10_000)
    ]
    assert drawn[0] == 1
    assert drawn == sorted(drawn)
    assert 2 < drawn[-1] < 30  # all agree: what is left to gain is soon less than a sample costs


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n": 0}, "n must be"),
        ({"value_in_samples": 0}, "value_in_samples must be"),
        ({"mean_cost": -1}, "mean_cost must be"),
        ({"mean_cost": 5}, "needs a plan"),
        ({"calibration": "c.json"}, "needs a plan"),
        ({"value_of_correct": "5"}, "cannot read"),
        ({"value_of_correct": "5s"}, "one amount of usd, tokens or flops"),
        ({"value_of_correct": "1usd,5-tokens"}, "one amount"),
        ({"value_of_correct": "1usd", "mean_cost": 3}, "not both"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Auto(**options)


def test_worth_is_one_amount() -> None:
    assert worth("0.05usd") == (0.05, "usd")
    assert worth("5k-tokens") == (5000.0, "tokens")


def test_a_recorded_run_is_an_action_that_is_taken(tmp_path: Path) -> None:
    """A strategy that is always right and cheap is what the plan does, and auto runs it."""
    pool = simulated.pool(tmp_path / "pool.jsonl", 40, 6, rates=(0.3, 3.0))
    folder = tmp_path / "run"
    engine = says("#### 0")
    examples = [Example(problem(f"q{number}"), ("0",)) for number in range(40)]
    virtual.run(bench(examples, "greedy", store=folder, model=engine, sampling=SAMPLING))
    recordings = read([pool, folder], orders=6)
    assert [action.name for action in recordings.material.runs] == ["greedy"]
    plan, _ = make_plan(recordings, folds=3)
    assert any(fixed.setting == "greedy" and fixed.accuracy == 1.0 for fixed in plan.fixed)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    trace = run(Auto(plan=str(path)), engine)
    assert any("greedy" in note for note in trace.notes)
    assert trace.key == "0"


class Failing:
    """A recorded pool some of whose samples do not come."""

    def __init__(self, pool: Path, children: frozenset[int]) -> None:
        self._engine, self._children = RecordedEngine.open(pool), children
        self.spec, self.bound, self.learn, self.close = (
            self._engine.spec, self._engine.bound, self._engine.learn, self._engine.close
        )  # fmt: skip

    async def generate(self, request: Request, progress: Progress) -> None:
        await self._engine.generate(request, progress)
        for position in range(request.n):
            if request.child + position in self._children:
                progress.results[position] = EngineError("it fell over")
                progress.tokens[position] = 0


def test_failed_samples_are_not_the_end(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    for children in (frozenset({0}), frozenset({0, 1, 2}), frozenset({1}), frozenset({3})):
        trace = run(Auto(plan=str(path)), Failing(pool, children), "q3")
        assert trace.key is not None
        assert len([sample for sample in trace.candidates if sample.complete]) > 1
        if children & {0, 1, 2}:
            assert any("failed after" in note for note in trace.notes)
    with pytest.raises(EngineError, match="fell over"):
        run(Auto(plan=str(path)), Failing(pool, frozenset(range(SAMPLES))))


def test_a_target_that_fails_is_asked_once(two: tuple[Path, Path, Path]) -> None:
    pool, dear, path = two
    plan = Plan.open(path)
    broken = Failing(dear, frozenset(range(4)))
    for name in ("q0", "q1", "q2", "q3", "q4", "q5"):
        trace = run(
            Auto(plan=str(path), mean_cost=plan.expected[-1].cost), RecordedEngine.open(pool), name,
            models={"target": broken},
        )  # fmt: skip
        assert sum(note.startswith("the target failed") for note in trace.notes) <= 1
        assert trace.candidates
        assert all(candidate.address[0] == "model" for candidate in trace.candidates)


def test_every_paid_sample_votes(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    engine = RecordedEngine.open(pool)
    for limit in range(120, 400, 23):
        for name in ("q1", "q7", "q11"):
            trace = run(Auto(plan=str(path)), engine, name, budget=Budget({"tokens": limit}))
            assert len(trace.rounds[-1].candidates) == len(trace.candidates)


# -------------------------------------------------------------------------------------------------- quote and check


def test_a_quote_is_what_was_measured(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    middle = plan.expected[4]
    whole = quote(plan, middle.price)
    assert (whole.accuracy, whole.cost, whole.cost_high) == (middle.accuracy, middle.cost, middle.most)
    assert whole.bin is None
    bins = [quote(plan, middle.price, bin_number=number) for number in range(len(middle.bins))]
    shares = [one.share for one in middle.bins]
    assert sum(shares) == pytest.approx(1.0)
    assert np.average([one.accuracy for one in bins], weights=shares) == pytest.approx(whole.accuracy)
    assert np.average([one.cost for one in bins], weights=shares) == pytest.approx(whole.cost)
    assert bins[-1].accuracy > bins[0].accuracy
    assert "nine questions in ten" in whole.sentences()[1]


def test_a_quote_within_a_limit_is_what_happens(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    plan, engine = Plan.open(path), RecordedEngine.open(pool)
    for expected in plan.expected[2:7:2]:
        limit = expected.limited.limit
        quoted = quote(plan, expected.price, limit=limit)
        assert quoted.cost_high <= limit
        assert quote(plan, expected.price, limit=limit, bin_number=0).cost <= limit
        traces = [run(Auto(plan=str(path)), engine, f"q{n}", budget=Budget({"tokens": limit})) for n in range(PROBLEMS)]
        right = float(np.mean([trace.key == "0" for trace in traces]))
        # 60 problems: a standard error of at most .065, and samples in one order; three of them
        assert quoted.accuracy == pytest.approx(right, abs=0.2)
        assert quoted.cost == pytest.approx(float(np.mean([trace.cost["tokens"] for trace in traces])), rel=0.2)


def test_a_quote_refuses_less_than_a_sample(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    assert plan.least == pytest.approx(40 + 64)  # the prompt and the longest that sampling allows
    for limit in (10.0, 100.0):
        with pytest.raises(UsageError, match="A sample may cost 104 tokens"):
            quote(plan, plan.price(limit), limit=limit)


def test_a_limit_that_does_not_bind_changes_nothing(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    free = quote(plan, price_at(plan, Budget(), ""))
    for limit in (plan.ceiling, 100_000.0, 1e9):
        assert quote(plan, plan.price(limit), limit=limit) == free
    thrifty = plan.expected[2].price
    assert quote(plan, thrifty, limit=plan.ceiling) == quote(plan, thrifty)


def test_quotes_between_measured_limits_lie_between_theirs(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    measured = [point.limited for point in sorted(plan.expected, key=lambda point: point.cost)]
    for low, high in itertools.pairwise(measured):
        if low.limit < plan.least:
            continue
        between = quote(plan, plan.price(limit := (low.limit * high.limit) ** 0.5), limit=limit)
        assert min(low.accuracy, high.accuracy) <= between.accuracy <= max(low.accuracy, high.accuracy)
        assert between.accuracy == pytest.approx((low.accuracy + high.accuracy) / 2)
        assert between.cost <= limit


def without(pool: Path, out: Path, *names: str) -> Path:
    """The same pool with less in it."""
    rows = [json.loads(line) for line in pool.read_text().splitlines()]
    for row in rows:
        row["meta"].pop("model")
        row.pop("prompt_tokens")
        row["samples"] = [{name: value for name, value in one.items() if name not in names} for one in row["samples"]]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def test_a_pool_without_tokens_and_writer_is_planned_in_samples(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    bare = ("tokens", "token_ids", "logprobs", "text")
    pool = without(made[0], tmp_path / "half.jsonl", *bare)
    plan, _ = make_plan(read([pool], orders=10), folds=3)
    assert (plan.unit, plan.model) == ("samples", "")
    (tmp_path / "plan.json").write_text(plan.to_json())
    plan = Plan.open(tmp_path / "plan.json")
    assert not any(check.drift for check in check_plan(plan, read([pool], orders=10)))
    fresh = simulated.pool(tmp_path / "fresh.jsonl", PROBLEMS, SAMPLES, seed=9)
    other = without(fresh, tmp_path / "other.jsonl", *bare)
    assert not any(check.drift for check in check_plan(plan, read([other], orders=10)))  # another file, the same kind
    with pytest.raises(UsageError, match="--writer toy"):
        plan.check(model="toy", target=None, verifier=None, sampling=None)
    # live it counts samples, too, whatever their length
    engine = RecordedEngine.open(fresh)
    auto = Auto(plan=str(tmp_path / "plan.json"), mean_cost=3)
    drawn = [len(run(auto, engine, f"q{number}").candidates) for number in range(PROBLEMS)]
    assert 1 < float(np.mean(drawn)) < 6
    with pytest.raises(UsageError, match="counts samples"):
        run(Auto(plan=str(tmp_path / "plan.json"), value_of_correct="1k-tokens"), engine)


def test_a_plan_promises_what_its_own_policy_spends(made: tuple[Path, Path, Plan]) -> None:
    pool, path, _ = made
    plan, recordings = Plan.open(path), read([pool], orders=10)
    assert len({point.price for point in plan.expected}) == len(plan.expected)
    for check in check_plan(plan, recordings):
        assert not check.drift
        assert check.cost == pytest.approx(check.expected.cost, rel=0.01)


def test_a_quote_knows_the_budget_and_the_value(made: tuple[Path, Path, Plan]) -> None:
    _, _, plan = made
    assert price_at(plan, Budget({"tokens": 200}), "") == plan.price(200)
    assert price_at(plan, Budget(), "2k-tokens") == pytest.approx(1 / 2000)
    assert price_at(plan, Budget(), "") == min(point.price for point in plan.expected)
    with pytest.raises(UsageError, match="has to be in tokens"):
        price_at(plan, Budget({"seconds": 5}), "")
    with pytest.raises(UsageError, match="say in tokens"):
        price_at(plan, Budget(), "1usd")


def test_a_probe_is_the_ease_that_the_bins_were_cut_by(made: tuple[Path, Path, Plan]) -> None:
    pool, _, plan = made
    engine = RecordedEngine.open(pool)
    ease, spent = virtual.run(ease_of(plan, problem("q5"), engine, sampling=SAMPLING))
    row = json.loads(pool.read_text().splitlines()[5])
    first = row["samples"][: plan.table.probe]
    assert plan.table.difficulty == "logprob"
    assert ease == pytest.approx(np.mean([np.mean(sample["logprobs"]) for sample in first]))
    assert spent["tokens"] == 40 + sum(sample["tokens"] for sample in first)


def test_new_samples_of_the_same_kind_are_no_drift_and_others_are(
    made: tuple[Path, Path, Plan], tmp_path: Path
) -> None:
    _, path, _ = made
    plan = Plan.open(path)
    same = simulated.pool(tmp_path / "same.jsonl", PROBLEMS, SAMPLES, seed=9)
    checked = check_plan(plan, read([same], orders=8))
    assert len(checked) == len(plan.expected)
    assert not any(check.drift for check in checked)  # 18 sentences at one in a hundred; the seed is fixed
    harder = simulated.pool(tmp_path / "harder.jsonl", PROBLEMS, SAMPLES, seed=9, better=-2.5)
    assert any("accuracy is" in text for check in check_plan(plan, read([harder], orders=8)) for text in check.drift)
    few = simulated.pool(tmp_path / "few.jsonl", PROBLEMS, 4)
    with pytest.raises(UsageError, match="record as many"):
        check_plan(plan, read([few]))


def test_a_run_of_auto_is_checked_at_its_own_price(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    pool, path, plan = made
    examples = [Example(problem(f"q{number}"), ("0",)) for number in range(PROBLEMS)]
    strategy = Auto(plan=str(path), mean_cost=150)
    virtual.run(bench(examples, strategy, store=tmp_path / "run", model=RecordedEngine.open(pool), sampling=SAMPLING))
    results = list(read_results(tmp_path / "run"))
    check = check_run(plan, results)
    assert check.price == pytest.approx(plan.price(150), rel=1e-5)
    assert not check.drift
    with pytest.raises(UsageError, match="another plan"):
        check_run(replace(plan, brier=0.5), results)
    assert check.cost == pytest.approx(check.expected.cost, rel=0.15)


@pytest.mark.parametrize(("better", "drifts"), [(0.0, False), (3.0, True)])
def test_traffic_whose_difficulty_shifts_strays_without_any_right_answer(
    made: tuple[Path, Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: float, drifts: bool
) -> None:
    """Of the same kind as the pool each measure is above 1 once in a hundred times; the seed is fixed."""
    path, plan = made[1:]
    pool = simulated.pool(tmp_path / "pool.jsonl", PROBLEMS, SAMPLES, seed=11, better=better)
    engine, drifting = RecordedEngine.open(pool), Drifting()
    for number in range(PROBLEMS):
        options: dict[str, Any] = {"model": engine, "sampling": SAMPLING}
        cost = (150, 250)[number % 2]  # callers want different things
        trace = virtual.run(solve_async(problem(f"q{number}"), Auto(plan=str(path), mean_cost=cost), **options))
        drifting.add(str(path), trace)
    (gauge,) = drifting.collect()
    assert not gauge.samples, "so few say nothing"
    monkeypatch.setattr("outthink.server.drifting._LEAST", PROBLEMS)
    (gauge,) = drifting.collect()
    strays = {one.labels["measure"]: one.value for one in gauge.samples}
    assert strays.keys() == {"confidence", "cost", "outside"}
    assert {one.labels["plan"] for one in gauge.samples} == {"plan.json"}
    assert (max(strays["confidence"], strays["cost"]) > 1) == drifts, strays
    # what another plan has decided says nothing of this one
    path = tmp_path / "plan.json"
    path.write_text(replace(plan, brier=0.5).to_json())
    drifting.add(str(path), trace)
    assert len(next(drifting.collect()).samples) == len(gauge.samples)


def test_a_total_budget_is_kept_and_resumed(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    pool, path, _ = made
    engine = RecordedEngine.open(pool)
    examples = [Example(problem(f"q{number}"), ("0",)) for number in range(PROBLEMS)]
    options: dict[str, Any] = {
        "store": tmp_path / "run", "model": engine, "sampling": SAMPLING, "total_budget": "9k-tokens"
    }  # fmt: skip
    whole = virtual.run(bench(examples, Auto(plan=str(path)), concurrency=5, **options))
    spent = sum(result.trace.cost["tokens"] for result in read_results(tmp_path / "run") if result.trace)
    assert whole.problems == PROBLEMS
    assert 0.8 * 9000 < spent <= 9000
    # the first third again, then the rest: what the first attempt spent is not there a second time
    options["store"] = tmp_path / "parts"
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "run.json").write_text((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "parts" / "results.jsonl").write_text("".join(lines[:20]))
    virtual.run(bench(examples, Auto(plan=str(path)), concurrency=5, **options))
    again = sum(result.trace.cost["tokens"] for result in read_results(tmp_path / "parts") if result.trace)
    assert 0.8 * 9000 < again <= 9000


@pytest.mark.parametrize("concurrency", [1, 4, 16, 60])
@pytest.mark.parametrize("total", [7_000, 9_000, 12_000])
def test_a_total_budget_leaves_nobody_without_a_sample(
    made: tuple[Path, Path, Plan], tmp_path: Path, concurrency: int, total: int
) -> None:
    pool, path, _ = made
    examples = [Example(problem(f"q{number}"), ("0",)) for number in range(PROBLEMS)]
    summary = virtual.run(
        bench(
            examples, Auto(plan=str(path)), store=tmp_path / "run", model=RecordedEngine.open(pool), sampling=SAMPLING,
            total_budget=f"{total}-tokens", concurrency=concurrency,
        )
    )  # fmt: skip
    assert summary.errors == 0
    spent = sum(result.trace.cost["tokens"] for result in read_results(tmp_path / "run") if result.trace)
    assert spent <= total


def test_a_run_goes_on_with_the_same_plan_only(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    pool, path, plan = made
    mine = tmp_path / "plan.json"
    mine.write_text(path.read_text())
    examples = [Example(problem(f"q{number}"), ("0",)) for number in range(4)]
    options: dict[str, Any] = {"store": tmp_path / "run", "model": RecordedEngine.open(pool), "sampling": SAMPLING}
    virtual.run(bench(examples, Auto(plan=str(mine)), **options))
    (first,) = {result.trace.resources["plan"] for result in read_results(tmp_path / "run") if result.trace}
    assert first == Plan.open(mine).digest
    mine.write_text(replace(plan, brier=0.123).to_json())
    with pytest.raises(UsageError, match="version"):
        virtual.run(bench(examples, Auto(plan=str(mine)), **options))


@pytest.mark.parametrize(
    ("strategy", "total", "sentence"),
    [
        ("self_consistency", "9k-tokens", "spread by auto with a plan"),
        ("auto", "9k-tokens", "spread by auto with a plan"),
        ("plan", "1usd", "has to be in tokens"),
        ("plan", "9k-tokens,1usd", "one amount"),
        ("valued", "9k-tokens", "leave value_of_correct and mean_cost out"),
    ],
)
def test_totals_that_nothing_can_spread_are_refused(
    made: tuple[Path, Path, Plan], tmp_path: Path, strategy: str, total: str, sentence: str
) -> None:
    pool, path, _ = made
    made_of = {"plan": Auto(plan=str(path)), "valued": Auto(plan=str(path), value_of_correct="9-tokens")}
    chosen = made_of.get(strategy) or make_strategy(strategy)
    with pytest.raises(UsageError, match=sentence):
        virtual.run(bench([], chosen, store=tmp_path / "x", model=RecordedEngine.open(pool), total_budget=total))


# ---------------------------------------------------------------------------------------------- from the command line


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output + ("" if result.exception is None else str(result.exception))


def test_the_commands_of_a_plan(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    pool, _, _ = made
    out = tmp_path / "plan.json"
    code, text = invoke("plan", "fit", str(pool), "-o", str(out), "--folds", "3", "--budgets", "80,150,0.22k")
    assert code == 0, text
    assert "use it as --strategy auto --plan" in text
    assert [point.cost for point in Plan.open(out).expected] == pytest.approx([80, 150, 220], rel=0.2)
    code, text = invoke("plan", "show", str(out), "--markdown", "--figure", str(tmp_path / "plan.svg"))
    assert code == 0
    assert "| mean cost | auto (90%) |" in text
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    code, text = invoke("plan", "check", str(out), str(pool))
    assert code == 0
    assert "none" in text
    code, text = invoke("quote", "How many?", "--plan", str(out), "--budget", "150-tokens")
    assert code == 0
    assert "Nothing was spent." in text
    code, text = invoke("quote", "How many?", "--plan", str(out), "--json")
    assert json.loads(text)["spent"] == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "fit", "POOL", "-o", "plan.txt"], "name a .json file"),
        (["plan", "fit", "POOL", "--bins", "many"], "Cannot read --bins"),
        (["plan", "fit", "POOL", "--budgets", "1,x"], "Cannot read the budget"),
        (["plan", "fit", "POOL", "--unit", "usd"], "costs in usd is not known"),
        (["plan", "fit", "POOL", "--probe", "50"], "from 1 to as many"),
        (["plan", "fit", "POOL", "--folds", "500"], "make no sense"),
        (["plan", "fit", "POOL", "--difficulty", "verifier"], "no verifier"),
        (["plan", "fit", "POOL", "POOL"], "one pool of samples, not 2"),
        (["plan", "fit", "POOL", "--verifier", "nobody"], "There is no verifier"),
        (["plan", "fit", "POOL", "--writer", "nobody"], "no model 'nobody'"),
        (["plan", "show", "nothing.json"], "Cannot read the plan"),
        (["quote", "What?", "--plan", "PLAN", "--budget", "5s"], "has to be in tokens"),
        (["quote", " ", "--plan", "PLAN"], "no question"),
        (["solve", "What?", "--strategy", "auto", "--plan", "nothing.json"], "Cannot read the plan"),
    ],
)
def test_mistakes_get_a_sentence(
    made: tuple[Path, Path, Plan], words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [{"POOL": str(made[0]), "PLAN": str(made[1])}.get(word, word) for word in words]
    code, text = invoke(*given)
    assert code != 0
    assert sentence in text.replace("\n", " ")


def test_absolute_bins_are_written_and_read_even_if_one_is_empty(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    out = tmp_path / "absolute.json"
    code, text = invoke(
        "plan", "fit", str(made[0]), "-o", str(out), "--folds", "3", "--bins", "absolute", "--probe", "2"
    )
    assert code == 0, text
    plan = Plan.open(out)
    assert plan.table.difficulty == "agreement"
    assert set(plan.table.edges) <= {0.5, 1.0, np.nextafter(1.0, 2.0)}  # what two samples can say
    assert quote(plan, plan.expected[2].price, bin_number=0).accuracy >= 0


@pytest.mark.parametrize("change", ["coefficients", "expected", "versions", "scale"])
def test_a_damaged_plan_is_refused(made: tuple[Path, Path, Plan], tmp_path: Path, change: str) -> None:
    raw = json.loads(made[1].read_text())
    if change == "coefficients":
        raw["policy"]["stages"][1]["now"]["coefficients"] = [1.0, 2.0]
    elif change == "scale":
        raw["policy"]["scale"]["mean"] = []
    elif change == "expected":
        raw["expected"] = []
    else:
        raw["versions"]["antigravity"] = "00000000"
    (tmp_path / "plan.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match="is damaged"):
        Plan.open(tmp_path / "plan.json")


def test_something_else_than_a_plan_or_a_pool_is_told_what_it_is(
    made: tuple[Path, Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence each, that says what to do."""
    monkeypatch.chdir(tmp_path)
    others: dict[str, tuple[bytes, str]] = {
        "other.json": (b'{"schema": 1, "engine": "m"}', "is JSON of another kind"),
        "binary.json": (bytes(range(256)), "is no text"),
        "text.json": (b"a plan", "is no JSON"),
        "empty.json": (b"", "is empty"),
        "cut.json": (made[1].read_bytes()[:4000], "is JSON that is cut off or damaged"),
        "results.jsonl": (b'{"problem": "p", "credit": 1.0, "trace": null}\n', "holds results of a run"),
    }
    for name, (content, _) in others.items():
        Path(name).write_bytes(content)
    Path("folder").mkdir()
    said = {**{name: what for name, (_, what) in others.items()}, "folder": "is a folder"}
    for name, what in said.items():
        for words in (("show", name), ("check", name, str(made[0]))):
            code, text = invoke("plan", *words)
            told = text.replace("\n", " ")
            assert code != 0
            assert f"{name} {what}, and no plan; make one with `outthink plan fit`." in told
    code, text = invoke("plan", "show", str(made[0]))
    assert f"pool.jsonl is a pool of samples, and no plan; `outthink plan fit {made[0]}` makes one" in text
    for name, what in said.items():
        code, text = invoke("plan", "check", str(made[1]), name)
        assert code != 0
        sentence = "There is no run in folder" if name == "folder" else f"{name} {what}"
        if name in ("empty.json", "cut.json"):  # a pool may be both
            sentence = name
        assert sentence in text.replace("\n", " "), text
    raw = json.loads(made[1].read_text())
    Path("older.json").write_text(json.dumps({**raw, "schema": 1}))
    code, text = invoke("plan", "show", "older.json")
    assert "is a plan of version 1, this program reads version 3; make it again" in text.replace("\n", " ")


def test_an_oracle_is_labelled(made: tuple[Path, Path, Plan], tmp_path: Path) -> None:
    out = tmp_path / "oracle.json"
    words = [
        "plan",
        "fit",
        str(made[0]),
        "-o",
        str(out),
        "--folds",
        "3",
        "--difficulty",
        "oracle",
        "--bins",
        "absolute",
    ]
    code, text = invoke(*words)
    assert code == 0, text
    assert "upper bound" in text
    plan = Plan.open(out)
    assert plan.table.edges == (0.1, 0.5)
    with pytest.raises(UsageError, match="know the right answers"):
        virtual.run(ease_of(plan, problem("q1"), RecordedEngine.open(made[0]), sampling=SAMPLING))


def test_reading_a_pool_twice_gives_the_same_plan(made: tuple[Path, Path, Plan]) -> None:
    assert read_pool(made[0]).samples == SAMPLES
    told: list[tuple[int, int]] = []
    again, _ = make_plan(read([made[0]], orders=10), folds=3, tell=lambda text, done, total: told.append((done, total)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert again.to_json() == made[2].to_json()
