"""Did it help: pairs of answers to the same requests, by what callers, a judge or gold say of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from outthink.bench.grading import grade_run
from outthink.maths.intervals import mean_and_interval
from outthink.models.engine import EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.runs import Result, read_results, read_settings
from outthink.records.traffic import Feedback
from outthink.reports.feedback import feedback_credits
from outthink.reports.traffic import by_day, by_key, judged, judged_sentence
from outthink.server.record import Recorder
from outthink.types import Message
from tests.cli.test_cli import main
from tests.reports.test_report import told


def credited(name: str, credit: float | None, tokens: int = 10, **more: object) -> Result:
    return replace(told(name, "1", tokens), credit=credit, **more)  # type: ignore[arg-type]


def test_better_worse_and_cost_are_of_the_pairs_that_are_judged_in_both() -> None:
    base = [credited(str(number), float(number % 2), 100) for number in range(100)]
    run = [credited(str(number), 1.0 if number < 20 else float(number % 2), 250) for number in range(90)]
    run[91 - 2] = credited("89", 0.0, 250)
    run += [credited("90", None, 9000), credited("other", 1.0, 9000)]
    compared = judged(run, base)
    assert (compared.requests, compared.pairs) == (90, 91)
    assert compared.better == mean_and_interval([1.0] * 10 + [0.0] * 80)
    assert compared.worse == mean_and_interval([1.0] + [0.0] * 89)
    assert compared.difference[0] == pytest.approx(9 / 90)
    assert compared.cost["tokens"][0] == pytest.approx(2.5)
    said = judged_sentence(("self_consistency", "none"), compared, "the judge j")
    assert re.match(
        r"On 90 of 91 requests self_consistency was judged better than none on 11% \(\d+ to \d+\) and worse on 1% "
        r"\(0 to \d\), at 2.5 times the tokens \(2.5 to 2.5\); judged by the judge j\.$",
        said,
    )


def test_nothing_judged_says_nothing() -> None:
    compared = judged([credited("a", None)], [credited("a", 1.0)])
    assert (compared.requests, compared.pairs, compared.cost) == (0, 1, {})


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """60 repetitions of 400 requests; of a true 95%, 50 or fewer of 60 have odds of 1 in 1,300, for each share."""
    rng = np.random.default_rng(7)
    hits = np.zeros(2)
    repetitions = 60
    graded = [[credited(str(at), credit) for at in range(400)] for credit in (0.0, 1.0)]
    for _ in range(repetitions):
        base, run = rng.random((2, 400)) < np.array([[0.5], [0.6]])
        compared = judged(
            *([graded[right][at] for at, right in enumerate(rights.astype(int))] for rights in (run, base))
        )
        truths = (0.6 * 0.5, 0.4 * 0.5)
        hits += [
            low <= true <= high for true, (_, low, high) in zip(truths, (compared.better, compared.worse), strict=True)
        ]
    assert (hits > 50).all()


def test_keys_and_days_are_apart_and_in_order() -> None:
    day = 86_400.0
    results = [
        credited("a", 1.0, owner="bob", ended=2 * day),
        credited("b", 1.0, owner="ann", ended=2 * day - 1),
        credited("c", 1.0, ended=None),
        credited("d", 1.0, owner="ann", ended=day),
    ]
    assert {name: [one.problem for one in group] for name, group in by_key(results).items()} == {
        "ann": ["b", "d"],
        "bob": ["a"],
    }
    assert {name: [one.problem for one in group] for name, group in by_day(results).items()} == {
        "1970-01-02": ["b", "d"],
        "1970-01-03": ["a"],
    }


def live(folder: Path) -> Path:
    """12 requests: ann's and bob's; the shadow is right (1) on all, what was served on every third (else 2)."""
    told_settings = {"kind": "traffic", "model": "m", "strategy": "none"}  # as servers write it
    other = {**told_settings, "strategy": {"name": "self_consistency"}}
    with Recorder(folder, told_settings, other) as recorder:
        for number in range(12):
            owner = "ann" if number % 2 else "bob"
            for keep, key, tokens in ((recorder.served, "1" if number % 3 == 0 else "2", 100), (None, "1", 400)):
                trace = told(f"r{number}", key, tokens).trace
                assert trace is not None
                trace = replace(trace, prompts=((Message(content=f"Question {number}?"),),))
                if keep is not None:
                    keep(trace, [{"role": "user", "content": "?"}], owner)
                else:
                    recorder.shadowed(trace, owner)
    return folder


def feedback(folder: Path, said: Callable[[int], Feedback | None]) -> None:
    settings = read_settings(folder / "served"), read_settings(folder / "shadow")
    with Recorder(folder, *({key: one[key] for key in ("kind", "model", "strategy")} for one in settings)) as recorder:
        for number in range(12):
            if (word := said(number)) is not None:
                recorder.said(f"r{number}", word).result()


def test_a_score_is_of_what_was_served_and_only_a_right_answer_tells_of_others(tmp_path: Path) -> None:
    folder = live(tmp_path / "live")

    def words(number: int) -> Feedback | None:
        owner = "ann" if number % 2 else "bob"
        if number == 4:
            return Feedback(score=1.0, answer="1", owner="ann", at=1.0)  # not hers
        if number == 5:
            return None
        return Feedback(score=float(number % 3 == 0), answer="1" if number < 6 else None, owner=owner, at=1.0)

    feedback(folder, words)
    served, shadow = feedback_credits(folder / "served"), feedback_credits(folder / "shadow")
    assert served == {f"r{number}": float(number % 3 == 0) for number in range(12) if number not in (4, 5)}
    assert shadow == {f"r{number}": 1.0 for number in range(4)}


def test_the_report_begins_with_what_it_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = live(tmp_path / "live")
    runs = str(folder / "served"), str(folder / "shadow")
    before = main(("report", *runs), capsys, monkeypatch)
    assert "judged" not in before.out
    feedback(
        folder,
        lambda number: Feedback(score=float(number % 3 == 0), answer="1", owner="ann" if number % 2 else "bob", at=1.0),
    )
    result = main(("report", *runs), capsys, monkeypatch)
    first, *rest = result.out.splitlines()
    assert re.match(
        r"On 12 requests self_consistency was judged better than none on 67% \(\d+ to \d+\) and worse on 0% \(0 to "
        r"\d+\), at 4 times the tokens \(4 to 4\); judged by callers' feedback\.$",
        first,
    ), first
    assert sum("key ann" in line for line in rest) == 1
    as_json = json.loads(main(("report", *runs, "--json"), capsys, monkeypatch).out)
    (groups,) = as_json["judged"].values()
    assert {"", "key ann", "key bob"} < groups.keys()
    assert groups["key ann"]["requests"] == 6
    graded = grade_run(folder / "shadow", None, tmp_path / "graded")
    assert (graded.problems, graded.right) == (12, 12.0)


def test_a_judge_is_asked_of_what_nobody_else_has_said_and_is_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = live(tmp_path / "live")
    feedback(folder, lambda number: Feedback(score=0.25, answer=None, owner="bob", at=1.0) if number == 0 else None)
    asked: list[str] = []

    def says(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request.messages[-1].text)
        return "I see.\nVerdict: Yes" if "solution:\n1\n" in request.messages[-1].text else "Hm.\nVerdict: No"

    engine = ScriptedEngine(says, name="strict")
    engine._spec = EngineSpec(name="strict", powers=frozenset())
    graded = grade_run(folder / "served", None, tmp_path / "served", judge=engine)
    assert graded.problems == 12
    assert len(asked) == 11
    assert all(f"Question {number}?" in "".join(asked) for number in range(1, 12))
    credits = {result.problem: result.credit for result in read_results(tmp_path / "served")}
    assert credits == {"r0": 0.25, **{f"r{number}": float(number % 3 == 0) for number in range(1, 12)}}
    assert graded.cost["tokens"] == sum(map(len, asked)) + sum(
        len("I see.\nVerdict: Yes" if "solution:\n1\n" in one else "Hm.\nVerdict: No") for one in asked
    )
    told_how = read_settings(tmp_path / "served")["graded"]
    assert [sorted(one)[0] for one in told_how] == ["feedback", "cost"]
    assert told_how[1]["judge"] == "strict"
    grade_run(folder / "shadow", None, tmp_path / "shadow", judge=engine)
    said = main(("report", str(tmp_path / "served"), str(tmp_path / "shadow")), capsys, monkeypatch).out
    assert "judged by the judge strict" in said


def test_a_judge_without_money_costs_nothing_and_says_nothing(tmp_path: Path) -> None:
    folder = live(tmp_path / "live")
    engine = ScriptedEngine(lambda request, child, rng: "Verdict: Yes", name="dear")
    with pytest.raises(Exception, match=r"(?i)budget|may cost|Nobody has said"):
        grade_run(folder / "served", None, tmp_path / "out", judge=engine, budget="5-tokens")
    assert not (tmp_path / "out").exists()
