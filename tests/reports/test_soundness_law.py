"""`law soundness` with what people found: rates of the judges, what they correct, and how sure that is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outthink.errors import UsageError
from outthink.maths.intervals import mean_and_interval
from outthink.reports.analysis import Analysis, Cell
from outthink.reports.laws.table import analyse
from outthink.rewards.soundness import FLAWS

SAMPLES = 4
GAP = "no logical gap (NLG)"
Seen = tuple[int, int, Sequence[str]]
"""Problem, sample and the flaws that people found in it."""
Passes = NDArray[np.bool_]


def write(path: Path, lines: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def pool(folder: Path, passes: Passes) -> Path:
    """Samples (problems, SAMPLES) that the judge of gaps passes or not; all others pass everything."""
    sample = {"text": "so 4", "answer": "4", "tokens": 3, "finish": "eos", "correct": True}
    lines = []
    for place, row in enumerate(passes):
        scores = {f"soundness?flaw={flaw}": [0.9] * len(row) for flaw in FLAWS}
        scores["soundness?flaw=gap"] = [0.9 if passed else 0.1 for passed in row]
        lines.append(
            {"id": f"q{place}", "question": "2+2?", "answer": "4", "samples": [sample] * len(row), "scores": scores}
        )
    return write(folder / "sound.jsonl", lines)


def law(folder: Path, passes: Passes, seen: Sequence[Seen]) -> Analysis:
    lines = [{"problem": f"q{place}", "sample": sample, "flaws": list(flaws)} for place, sample, flaws in seen]
    return analyse("soundness", [pool(folder, passes)], labels=write(folder / "labels.jsonl", lines))


def gap(analysis: Analysis) -> dict[str, Cell]:
    (row,) = [dict(zip(analysis.columns, line, strict=True)) for line in analysis.rows if line[0] == GAP]
    return {name: value for name, value in row.items() if isinstance(value, Cell)}


def told(analysis: Analysis, words: str) -> list[str]:
    return [line for line in analysis.sentences if words in line]


def half() -> Passes:
    """40 problems of which every second sample passes."""
    return np.tile(np.arange(SAMPLES) % 2 == 0, (40, 1))


def labelled(sound: int, passed: int, flawed: int, rejected: int) -> tuple[Passes, list[Seen]]:
    """Labels of the first sample of so many problems, of which the judge passes, or rejects, so many."""
    passes = half()
    passes[:sound, 0] = np.arange(sound) < passed
    passes[sound : sound + flawed, 0] = np.arange(flawed) >= rejected
    return passes, [(place, 0, [] if place < sound else ["gap"]) for place in range(sound + flawed)]


def test_rates_and_what_they_correct_have_intervals(tmp_path: Path) -> None:
    """The interval of the corrected rate by hand: what each rate changes at an end of its own, added by squares."""
    cells = gap(law(tmp_path, *labelled(20, 18, 20, 17)))
    rate, tpr, tnr, real = (cells[name] for name in ("rate", "TPR", "TNR", "corrected"))
    assert (tpr.value, tpr.low, tpr.high) == pytest.approx(mean_and_interval([1.0] * 18 + [0.0] * 2))
    assert (tnr.value, tnr.low, tnr.high) == pytest.approx(mean_and_interval([1.0] * 17 + [0.0] * 3))

    def share(observed: float, right: float, rejected: float) -> float:
        return (observed + rejected - 1) / (right + rejected - 1)

    assert rate.low is not None
    assert rate.high is not None
    value = share(rate.value, 0.9, 0.85)
    below = [share(rate.low, 0.9, 0.85), share(rate.value, tpr.high or 0, 0.85), share(rate.value, 0.9, tnr.low or 0)]
    above = [share(rate.high, 0.9, 0.85), share(rate.value, tpr.low or 0, 0.85), share(rate.value, 0.9, tnr.high or 0)]
    assert real.value == pytest.approx(value)
    assert real.low == pytest.approx(value - math.hypot(*(value - end for end in below)))
    assert real.high == pytest.approx(value + math.hypot(*(end - value for end in above)))


def test_the_interval_of_the_corrected_rate_holds_the_real_one(tmp_path: Path) -> None:
    held, widths = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        good = rng.random((60, SAMPLES)) < 0.6
        passes = np.where(good, rng.random(good.shape) < 0.9, rng.random(good.shape) >= 0.8)
        real = gap(law(tmp_path, passes, [(place, 0, [] if good[place, 0] else ["gap"]) for place in range(60)]))
        cell = real["corrected"]
        assert cell.low is not None
        assert cell.high is not None
        held += cell.low <= 0.6 <= cell.high
        widths.append(cell.high - cell.low)
    assert held >= 18
    assert np.mean(widths) < 0.6, "it says something, too"


def test_one_label_of_each_kind_tells_next_to_nothing(tmp_path: Path) -> None:
    analysis = law(tmp_path, *labelled(1, 1, 1, 1))
    cells = gap(analysis)
    assert str(cells["TPR"]) == str(cells["TNR"]) == "100.0% (2.5% to 100.0%)"
    assert (cells["corrected"].low, cells["corrected"].high) == (0.0, 1.0)
    assert told(analysis, "By so few labels the judge of 'gap' may be at chance")
    assert not told(law(tmp_path, *labelled(20, 18, 20, 17)), "at chance")


@pytest.mark.parametrize(("passed", "rejected", "told_as"), [(5, 5, "100.0%"), (3, 4, "70.0%")])
def test_a_judge_at_chance_is_named(tmp_path: Path, passed: int, rejected: int, told_as: str) -> None:
    analysis = law(tmp_path, *labelled(10, passed, 10, rejected))
    assert set(gap(analysis)) == {"rate", "TPR", "TNR"}, "it corrects nothing"
    assert told(analysis, f"The judge of 'gap' is at chance or worse against people's labels (TPR + TNR is {told_as},")


def test_samples_of_one_problem_count_as_one_problem(tmp_path: Path) -> None:
    """Four alike labels of one problem make nothing surer than one of them does."""
    passes = np.ones((40, SAMPLES), bool)
    flawed: list[Seen] = [(9, 0, ["gap"])]
    one, four = (
        gap(law(tmp_path, passes, [(place, sample, []) for place in range(5) for sample in range(n)] + flawed))
        for n in (1, SAMPLES)
    )
    assert tuple(one["TPR"]) == tuple(four["TPR"])


def test_what_is_said_twice_counts_once(tmp_path: Path) -> None:
    passes, seen = labelled(10, 9, 10, 8)
    twice = [*seen, *seen[:5], (seen[-1][0], 0, ["gap", "gap"])]
    once, again = law(tmp_path, passes, seen), law(tmp_path, passes, twice)
    assert once.plain() == again.plain()
    assert told(again, "By 20 samples that people judged")


def test_what_contradicts_itself_is_named_by_its_lines(tmp_path: Path) -> None:
    passes, seen = labelled(10, 9, 10, 8)
    with pytest.raises(
        UsageError, match=r"Line 21 of .*labels\.jsonl and line 3 name different flaws of sample 0 of 'q2'"
    ):
        law(tmp_path, passes, [*seen, (2, 0, ["gap"])])


@pytest.mark.parametrize("name", ["soundness", "coverage", "imperfect", "genrm", "verification"])
@pytest.mark.parametrize("score", [7.0, -3.0])
def test_no_law_takes_another_score_for_a_verdict(tmp_path: Path, name: str, score: float) -> None:
    path = pool(tmp_path, half())
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scorer = "soundness?flaw=gap" if name == "soundness" else "soundness"
    for place, line in enumerate(lines):
        wrong = line["samples"][0] | {"answer": "5", "correct": False}
        line["samples"] = [wrong] * (place % 4) + line["samples"][place % 4 :]
        line["scores"] = line["scores"] | {"soundness": [0.5] * SAMPLES}
    options = {} if name in ("soundness", "coverage") else {"verifier": scorer}
    lines[3]["scores"][scorer][1] = score
    with pytest.raises(UsageError, match=r"scores from .*; verdicts are from 0 to 1\."):
        analyse(name, [write(path, lines)], **options)
