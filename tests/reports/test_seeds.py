"""Seeds of one method are pooled: intervals are over problems, and nothing else is taken for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outthink.errors import UsageError
from outthink.maths.intervals import mean_and_interval
from outthink.records.runs import Store
from outthink.reports.report import paired, read_runs, seeds_sentence, summary
from outthink.reports.seeds import by_method
from tests.records.test_frames import write_run
from tests.records.test_store import SETTINGS, call, result

PROBLEMS = [f"p{number}" for number in range(40)]


def graded(folder: Path, seed: int, credits: list[float]) -> Path:
    settings = {**SETTINGS, "models": {"model": "scripted"}, "problems": PROBLEMS, "seed": seed}
    with Store(folder, settings) as store:
        for name, credit in zip(PROBLEMS, credits, strict=True):
            store.record(result(name, call(10.0), credit=credit), sync=False)
    return folder


def test_only_the_seed_may_differ(tmp_path: Path) -> None:
    same = [write_run(tmp_path / f"a-seed{seed}", seed=seed) for seed in (0, 1, 2)]
    other = write_run(tmp_path / "b", strategy={"name": "self_consistency", "n": 8}, seed=3)
    assert by_method([*same, other]) == {str(tmp_path / "a"): same, str(other): [other]}
    assert by_method([same[1]]) == {str(same[1]): [same[1]]}
    assert by_method([same[0], same[0]]) == {str(same[0]): [same[0]]}


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("n4-seed0-1f", "n4-seed1-ab"), "n4"),
        (("n4-seed10", "n4-seed11"), "n4"),
        (("class0", "class1"), "class"),
        (("one", "two"), "one"),
        (("x/seed0", "x/seed1"), "x"),
    ],
)
def test_what_is_one_method_has_the_name_that_its_runs_share(
    tmp_path: Path, names: tuple[str, str], shared: str
) -> None:
    runs = [write_run(tmp_path / name, seed=seed) for seed, name in enumerate(names)]
    assert list(by_method(runs)) == [str(tmp_path / shared)]


def test_generated_questions_differ_by_seed_and_are_pooled(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"s{s}", seed=s, problems=[f"g:{s}:0"], prompts=f"{s}") for s in (0, 1)]
    ((_, paths),) = by_method(runs).items()
    assert paths == runs
    assert read_runs(runs)[0].problems == 2


@pytest.mark.parametrize("changes", [{"prompts": "other"}, {"shard": [0, 2]}, {"problems": None}])
def test_what_may_be_something_else_stays_alone(tmp_path: Path, changes: dict[str, object]) -> None:
    one = write_run(tmp_path / "one", prompts="a")
    settings = {**SETTINGS, "task": "own.jsonl", "models": {"model": "scripted"}, "prompts": "a", **changes}
    with Store(tmp_path / "two", settings):
        pass
    assert by_method([one, tmp_path / "two"]) == {str(one): [one], str(tmp_path / "two"): [tmp_path / "two"]}


def test_the_interval_is_over_problems_with_seeds_nested(tmp_path: Path) -> None:
    """Seeds that all say the same narrow nothing; those that differ narrow what chance within a problem adds."""
    rng = np.random.default_rng(0)
    credits = [float(one) for one in rng.random(40) < 0.5]
    folders = [graded(tmp_path / f"r{seed}", seed, credits) for seed in range(3)]
    pooled, light = read_runs(folders)
    alone, _ = read_runs(folders[:1])
    assert (pooled.accuracy, pooled.low, pooled.high) == (alone.accuracy, alone.low, alone.high)
    assert (pooled.problems, pooled.attempts, pooled.planned, pooled.graded) == (40, 120, 120, 40)
    assert pooled.seeds == {0: alone.accuracy, 1: alone.accuracy, 2: alone.accuracy}
    assert pooled.cost == alone.cost
    assert "nested" in seeds_sentence("r", pooled)

    other = [float(one) for one in rng.random(40) < 0.5]
    mixed, mixed_light = read_runs([folders[0], graded(tmp_path / "other", 7, other)])
    means = [(a + b) / 2 for a, b in zip(credits, other, strict=True)]
    assert (mixed.accuracy, mixed.low, mixed.high) == pytest.approx(mean_and_interval(means))
    assert mixed.high - mixed.low < alone.high - alone.low
    difference = paired(mixed_light, light)
    assert difference.problems == 40
    assert difference.difference == pytest.approx(np.mean(means) - np.mean(credits))
    assert summary(light).problems == 40


def test_where_there_is_no_run_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no run in"):
        by_method([tmp_path])
