"""A share of requests gets a random action: which, how often, and whose."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.errors import UsageError
from outthink.planner.auto import Auto
from outthink.planner.check import check_run, served
from outthink.planner.learning import read_traffic, replace_plan
from outthink.planner.make import make_plan
from outthink.planner.plan import Plan
from outthink.planner.recordings import read
from outthink.records.runs import OWN, read_results
from outthink.records.traffic import SERVED, SHADOW
from outthink.server.asked import read_chat
from outthink.server.exploring import Explorer, actions
from outthink.server.record import Recorder
from outthink.server.routing import ONE, ServerRules, choose
from outthink.strategies.making import make_strategy, strategy_data
from tests.tools import simulated
from tests.tools.server import Server, says
from tests.tools.serving import asked, chat, counted, serving
from tests.tools.virtual import run

EIGHT = ServerRules(strategy=make_strategy("self_consistency?n=8"))
SIZES = [f"self_consistency?n={size}" for size in (1, 2, 4, 8)]


def test_actions_are_sizes_up_to_the_own_one() -> None:
    assert actions(EIGHT) == SIZES
    assert actions(ServerRules(strategy=make_strategy("self_consistency?n=6"))) == [*SIZES[:3], "self_consistency?n=6"]
    assert actions(ServerRules(strategy=Auto(n=4))) == SIZES[:3]


@pytest.mark.parametrize("strategy", [None, make_strategy("greedy"), make_strategy("self_consistency?n=1")])
def test_where_nothing_can_be_chosen_it_says_so(strategy: Any) -> None:
    with pytest.raises(UsageError, match="--learn"):
        actions(ServerRules(strategy=strategy))


def drawn(policy: ServerRules, place: float, share: float = 0.1, load: float = 1.0, /, **fields: Any) -> Any:
    body = chat(**fields)
    wanted = read_chat(body, 100, {})
    own = choose(wanted, None, policy, load)
    choice, trial = Explorer(share, policy, lambda: place).choose(wanted, None, own, load)
    return own, choice, trial


def test_an_action_is_drawn_by_its_chance() -> None:
    """Uniform numbers on a grid hit every action exactly as often as its logged chance says."""
    count = Counter(drawn(EIGHT, (place + 0.5) / 400)[2] for place in range(400))
    told = {(one.action, round(one.chance, 9)): times for one, times in count.items()}
    assert told == {(OWN, 0.9): 360, **{(name, 0.025): 10 for name in SIZES}}


def test_a_drawn_action_is_what_runs_and_keeps_the_operators_settings() -> None:
    policy = ServerRules(strategy=make_strategy("weighted_best_of_n?n=4"), scorers={"verifier": "judge"})
    _, choice, trial = drawn(policy, 0.0)
    assert trial is not None
    assert (trial.action, choice.named) == (
        "weighted_best_of_n?n=1",
        strategy_data(make_strategy("weighted_best_of_n?n=1")),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"outthink": {"strategy": "self_consistency"}},
        {"outthink": {"n": 3}},
        {"reasoning_effort": "low"},
        {"n": 2},
    ],
)
def test_whoever_says_how_takes_no_part(fields: dict[str, Any]) -> None:
    own, choice, trial = drawn(EIGHT, 0.0, **fields)
    assert choice is own
    assert trial is None


def test_nothing_is_drawn_under_load() -> None:
    own, choice, trial = drawn(EIGHT, 0.0, 0.1, 0.5)
    assert choice is own
    assert trial is None


def test_what_is_served_is_recorded_with_its_chance_and_explored_requests_have_no_shadow(tmp_path: Path) -> None:
    """160 requests at a share of one half; fewer than 50 or more than 110 explored have odds below 1 in 100,000."""
    settings = {"kind": "traffic", "model": "m"}

    async def go() -> None:
        recorder = Recorder(tmp_path, settings, settings)
        async with (
            Server(says("It is 4.")) as up,
            serving(
                up, policy=EIGHT, settings={"learn": 0.5, "shadow": 1.0, "alternative": ONE}, recorder=recorder
            ) as (url, service),
        ):
            for _ in range(160):
                assert (await asked(url, chat())).status == 200
            assert (await asked(url, {**chat(), "model": "m+self_consistency"})).status == 200
            await service.running.close()
            await service.close()

    run(go())
    results = list(read_results(tmp_path / SERVED))
    trials = [result.trial for result in results]
    assert trials[-1] is None
    explored = [one for one in trials[:-1] if one is not None and one.action != OWN]
    assert all(one is not None for one in trials[:-1])
    assert 50 <= len(explored) <= 110
    assert {one.action for one in explored} <= set(SIZES)
    assert {one.chance for one in explored} == {0.5 / 4}
    for result in results[:-1]:
        assert result.trial is not None
        assert result.trace is not None
        size = 8 if result.trial.action == OWN else int(result.trial.action.rpartition("=")[2])
        assert result.trace.strategy["n"] == size
        assert len(result.trace.candidates) <= size
    shadows = {result.problem for result in read_results(tmp_path / SHADOW)}
    assert not shadows & {one.problem for one in results if one.trial and one.trial.action != OWN}


def test_a_request_that_some_action_could_not_honour_takes_no_part() -> None:
    policy = ServerRules(strategy=make_strategy("best_of_n?n=4"), scorers={"verifier": "judge"})
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    explorer = Explorer(0.1, policy, lambda: 0.0)
    wanted = read_chat({"model": "m", "messages": [{"role": "user", "content": image}]}, 100, {})
    own = choose(wanted, None, EIGHT)
    assert explorer.choose(wanted, None, own, 1.0) == (own, None)


def test_draws_are_random() -> None:
    """Of 1,000 at a share of 0.5, fewer than 400 or more than 600 explored have odds below 1 in 10^9."""
    wanted = read_chat(chat(), 100, {})
    own = choose(wanted, None, EIGHT)
    explorer = Explorer(0.5, EIGHT)
    trials = [explorer.choose(wanted, None, own, 1.0)[1] for _ in range(1000)]
    assert 400 < np.sum([one is not None and one.action != OWN for one in trials]) < 600


def test_a_plan_is_followed_learned_from_and_checked_on_what_it_decided_alone(tmp_path: Path) -> None:
    """The requests that drew an action, and those of callers who named a strategy, say nothing of the plan."""
    pool = simulated.pool(tmp_path / "pool.jsonl", 20, 4, model="m")
    plan, _ = make_plan(read([pool], orders=3), folds=2)
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    policy = ServerRules(strategy=Auto(plan=str(path)), plans={"small": str(path)}, answer="math")
    assert actions(policy) == [f"self_consistency?n={size}" for size in (1, 2, 4)]
    folder = tmp_path / "live"

    async def go() -> dict[str, float]:
        recorder = Recorder(folder, {"kind": "traffic", "model": "m"})
        async with (
            Server(says(*["It is 4."] * 3, "It is 5.")) as up,
            serving(up, policy=policy, settings={"learn": 0.5}, recorder=recorder) as (url, service),
        ):
            for _ in range(40):
                answer = await asked(url, chat(max_tokens=64, temperature=0.8))
                assert answer.status == 200, answer.error
                said = {"trace": answer.json["outthink"]["trace"], "score": "good", "answer": "4"}
                assert (await asked(url, said, path="/v1/feedback")).status == 200
            assert (await asked(url, {**chat(max_tokens=64), "model": "m+self_consistency"})).status == 200
            counts = counted(service)
            await service.close()
            return counts

    counts = run(go())
    results = list(read_results(folder / SERVED))
    own = [one for one in results if one.trial is not None and one.trial.action == OWN]
    assert 5 < len(own) < 35, "odds of a false alarm are 1 in 100,000"
    decided = served(plan, folder / SERVED)
    assert [one.problem for one in decided] == [one.problem for one in own]
    assert all(one.credit == 1.0 for one in decided)
    assert check_run(plan, decided).accuracy == 1.0
    assert counts["outthink_explored_requests_total"] == 40 - len(own)
    seen = [amount for name, amount in counts.items() if name.startswith("outthink_plan_requests_total")]
    assert sum(seen) == counts["outthink_plan_confidence_count"] == len(own)
    learned = read_traffic([folder / SERVED])
    assert len(learned.requests) == 40
    assert learned.most == "self_consistency?n=4"
    assert {len(row["samples"]) for row in learned.rows} == {4}
    assert len(learned.rows) == sum(one.trial is not None and one.trial.action == learned.most for one in results)


def test_a_new_plan_is_taken_for_the_next_request_and_a_lost_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`plan learn --auto-update` and a half written file beneath a server at work: nobody is refused."""
    old, _ = make_plan(read([simulated.pool(tmp_path / "pool.jsonl", 20, 4, model="m")], orders=2), folds=2)
    new = replace(old, brier=0.5)
    path = tmp_path / "plan.json"
    path.write_text(old.to_json())
    folder = tmp_path / "live"

    async def go() -> list[int]:
        recorder = Recorder(folder, {"kind": "traffic", "model": "m"})
        policy = ServerRules(strategy=Auto(plan=str(path)), answer="math")
        statuses: list[int] = []
        async with Server(says("It is 4.")) as up, serving(up, policy=policy, recorder=recorder) as (url, service):
            for step in (lambda: None, partial(replace_plan, path, new), partial(path.write_text, "{"), path.unlink):
                several = [asyncio.create_task(asked(url, chat(max_tokens=64, temperature=0.8))) for _ in range(4)]
                await asyncio.sleep(0.01)
                step()
                statuses += [(await one).status for one in several]
                statuses.append((await asked(url, chat(max_tokens=64, temperature=0.8))).status)
            await service.close()
        return statuses

    assert set(run(go())) == {200}
    told = [one.trace.resources["plan"] for one in read_results(folder / SERVED) if one.trace is not None]
    assert list(dict.fromkeys(told)) == [old.digest, new.digest]
    assert Plan.open(path.with_name("plan.json.previous")).digest == old.digest
    assert [record.message.split(":")[0] for record in caplog.records if record.name == "outthink.planner"] == [
        "The plan stays as it was read before"
    ] * 2
