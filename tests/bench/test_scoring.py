"""Scores of recorded samples: what they hold, what they cost, going on, and the six rates of soundness they are for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.bench.scoring import ScoringStanding, score_pool
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Completion, Request
from outthink.models.scripted import Reply, ScriptedEngine
from outthink.records.pools import read_pool
from outthink.reports.analysis import Analysis, Cell
from outthink.reports.laws.table import analyse
from outthink.rewards.soundness import FLAWS
from tests.tools.virtual import run

JUDGES = [f"soundness?flaw={flaw}" for flaw in FLAWS]


def sample(text: str, correct: bool, finish: str = "eos") -> dict[str, Any]:
    return {"text": text, "correct": correct, "finish": finish, "key": "1" if correct else "2", "tokens": 10}


def pool(path: Path, *problems: list[dict[str, Any]]) -> Path:
    rows = [{"id": f"p{at}", "question": f"Question {at}?", "samples": one} for at, one in enumerate(problems)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_flaws(request: Request, child: int, rng: np.random.Generator) -> Completion:
    """A judge that sees a flaw where a solution names it."""
    asked = request.messages[-1].text
    flaw = next(name for name, words in FLAWS.items() if words in asked)
    seen = f"[{flaw}]" in asked
    return Completion(text="No", tokens=2, labels=(math.log(0.1 if seen else 0.9), math.log(0.9 if seen else 0.1)))


def scored(path: Path, out: Path, reply: Reply = by_flaws, **options: Any) -> ScoringStanding:
    options.setdefault("verifiers", JUDGES)
    return run(score_pool(path, out, models={"model": ScriptedEngine(reply)}, **options))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_sample_gets_a_score_of_every_judge_and_cut_ones_none(tmp_path: Path) -> None:
    recorded = pool(
        tmp_path / "pool.jsonl", [sample("fine", True), sample("[gap]", True), sample("on", False, "length")]
    )
    standing = scored(recorded, tmp_path / "new.jsonl")
    assert (standing.done, standing.total, dict(standing.failed)) == (1, 1, {})
    (row,) = lines(tmp_path / "new.jsonl")
    assert row["samples"] == lines(recorded)[0]["samples"]
    assert row["scores"][JUDGES[0]] == pytest.approx([0.9, 0.1, None])
    assert row["scores"][JUDGES[1]] == pytest.approx([0.9, 0.9, None])
    assert standing.cost["tokens"] > 0
    assert {*read_pool(tmp_path / "new.jsonl").scorers} == {*JUDGES}


def test_steps_are_scored_each(tmp_path: Path) -> None:
    recorded = pool(tmp_path / "pool.jsonl", [sample("a\n\nb\n\nc", True), sample("<think>x\n\ny</think>a", False)])
    standing = scored(recorded, tmp_path / "new.jsonl", verifiers=[], prms=["random"])
    assert standing.done == 1
    (row,) = lines(tmp_path / "new.jsonl")
    assert [len(steps) for steps in row["step_scores"]["random"]] == [3, 1]


def test_it_goes_on_where_it_was_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    recorded = pool(tmp_path / "pool.jsonl", [sample("fine", True)], [sample("dead", True)])

    def dies(request: Request, child: int, rng: np.random.Generator) -> Completion | EngineError:
        return EngineError("gone") if "dead" in request.messages[-1].text else by_flaws(request, child, rng)

    first = scored(recorded, tmp_path / "new.jsonl", dies)
    assert (first.done, {*first.failed}) == (1, {"p1"})
    asked: list[str] = []

    def listening(request: Request, child: int, rng: np.random.Generator) -> Completion:
        asked.append(request.messages[-1].text)
        return by_flaws(request, child, rng)

    second = scored(recorded, tmp_path / "new.jsonl", listening)
    assert (second.done, dict(second.failed)) == (2, {})
    assert len(asked) == len(JUDGES)
    assert all("dead" in text for text in asked)
    with pytest.raises(UsageError, match="has no scores by 'judge'"):
        scored(recorded, tmp_path / "new.jsonl", verifiers=["judge"])


def test_what_cannot_be_paid_for_is_told_and_not_written(tmp_path: Path) -> None:
    recorded = pool(tmp_path / "pool.jsonl", [sample("fine", True)])
    standing = scored(recorded, tmp_path / "new.jsonl", budget="3-tokens")
    assert standing.done == 0
    assert {*standing.failed} == {"p0"}


def test_what_the_budget_cut_off_is_not_written_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    recorded = pool(tmp_path / "pool.jsonl", [sample(f"fine {at}", True) for at in range(6)])
    judge: dict[str, Any] = {"verifiers": ["soundness?flaw=gap"]}
    whole = scored(recorded, tmp_path / "whole.jsonl", **judge)
    cost = whole.cost["tokens"]
    short = scored(recorded, tmp_path / "new.jsonl", budget=f"{cost - 1:.0f}-tokens", **judge)
    assert (short.done, short.unpaid) == (0, True)
    assert 0 < short.cost["tokens"] < cost
    again = scored(recorded, tmp_path / "new.jsonl", budget=f"{2 * cost:.0f}-tokens", **judge)
    assert (again.done, again.unpaid) == (1, False)
    assert lines(tmp_path / "new.jsonl") == lines(tmp_path / "whole.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 7}, "was scored with other settings .*seed is 0 there, 7 now"),
        ({"template": "{question} Go."}, "template is None there"),
        ({"delimiter": " "}, "delimiter is"),
        ({"name": "other"}, "is 'scripted' there, 'other' now"),
        ({"texts": "others"}, "is not of this pool"),
        ({"id": "p9"}, "is not of this pool"),
    ],
)
def test_it_goes_on_only_with_the_same_samples_and_settings(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    whole = [sample("a\n\nb", True)]
    scored(pool(tmp_path / "pool.jsonl", whole), tmp_path / "new.jsonl", prms=["random"])
    before = (tmp_path / "new.jsonl").read_bytes()
    named = change.pop("name", "scripted")
    words = change.pop("texts", "a\n\nb")
    name = change.pop("id", "p0")
    path = pool(tmp_path / "other.jsonl", [sample(words, True)], whole)
    path.write_text(path.read_text().replace('"p0"', json.dumps(name)))
    engine = ScriptedEngine(by_flaws, name=named)
    with pytest.raises(UsageError, match=message):
        run(
            score_pool(
                path,
                tmp_path / "new.jsonl",
                models={"model": engine},
                prms=["random"],
                verifiers=JUDGES,
                **change,
            )
        )
    assert (tmp_path / "new.jsonl").read_bytes() == before


def test_scorers_know_what_was_recorded_beside_the_text(tmp_path: Path) -> None:
    sure = {**sample("fine", True), "logprobs": [-1.0, -3.0]}
    recorded = pool(tmp_path / "pool.jsonl", [sure, sample("fine, too", True)])
    standing = scored(recorded, tmp_path / "new.jsonl", verifiers=["confidence"])
    (row,) = lines(tmp_path / "new.jsonl")
    assert row["scores"]["confidence"] == pytest.approx([math.exp(-2), None])
    assert standing.missing == {"confidence": 1}, "what has no score is told"


def test_steps_of_what_was_cut_off_are_gone_on_from(tmp_path: Path) -> None:
    """Its last step is no answer, as that of a finished sample is."""
    asked: list[str] = []

    def listening(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request.prefix_text)
        return "\n#### 1"

    both = [sample("a\n\nb", True), sample("c\n\nd", True, "length")]
    scored(pool(tmp_path / "pool.jsonl", both), tmp_path / "new.jsonl", listening, verifiers=[],
           prms=["rollout?m=1&verifier=random"])  # fmt: skip
    assert any(text.endswith("d") for text in asked)
    assert not any(text.endswith("b") for text in asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ""}, "The question is empty"),
        ({"scores": [1, 2]}, "scores that do not say by whom"),
        ({"scores": {"judge": [1.0]}}, "has scores by 'judge' already: leave that scorer out"),
        ({"samples": [{"text": 17}]}, "text is no text"),
        ({"samples": [{"steps": [1, None]}]}, "steps is no list of texts"),
        ({"samples": [{"text": "a", "logprobs": [2.0]}]}, "a logprob is 2.0"),
        ({"samples": [{"text": "a", "tokens": -3}]}, "tokens is -3"),
        ({"extra": int("9" * 4200)}, "a number has more than 4,000 digits"),
        ({"id": [1]}, "lacks its id"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named_before_anything_is_paid(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    fine = {"id": "a", "question": "q", "samples": [{"text": "a"}]}
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (fine, {**fine, "id": "b", **change})))
    asked: list[str] = []

    def listening(request: Request, child: int, rng: np.random.Generator) -> str:
        asked.append(request.messages[-1].text)
        return "Yes"

    with pytest.raises(UsageError, match=f"Line 2 of .*{message}"):
        scored(path, tmp_path / "new.jsonl", listening, verifiers=["judge"])
    assert not asked
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verifiers": []}, "Give a scorer"),
        ({"verifiers": ["judge", "judge"]}, "given twice"),
        ({"verifiers": ["jugde"]}, "did you mean 'judge'"),
        ({"delimiter": ""}, "delimiter is empty"),
    ],
)
def test_says_what_cannot_be_done(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    recorded = pool(tmp_path / "pool.jsonl", [sample("fine", True)])
    with pytest.raises(UsageError, match=message):
        scored(recorded, tmp_path / "new.jsonl", **options)


# ------------------------------------------------------------------------------------------------- the six rates

RIGHT_AND_SOUND = [sample("[gap]", True), sample("[gap]", True), sample("[gap]", False), sample("fine", True)]


def law(tmp_path: Path, *problems: list[dict[str, Any]], reply: Reply = by_flaws, **options: Any) -> Analysis:
    scored(pool(tmp_path / "pool.jsonl", *problems), tmp_path / "new.jsonl", reply)
    return analyse("soundness", [tmp_path / "new.jsonl"], **options)


def rates(analysis: Analysis) -> list[float]:
    return [row[1].value for row in analysis.rows if isinstance(row[1], Cell)]


def test_all_six_rates_are_told(tmp_path: Path) -> None:
    analysis = law(tmp_path, RIGHT_AND_SOUND, [sample("[cases]", True), sample("fine", False)] * 2)
    assert rates(analysis) == pytest.approx([0.625, 0.625, 0.75, 1.0, 1.0, 0.125])
    assert rates(analysis)[-1] <= min(rates(analysis))
    assert any("Nobody has compared" in told for told in analysis.sentences)


def test_coverage_by_right_answers_and_by_sound_ones(tmp_path: Path) -> None:
    analysis = law(tmp_path, RIGHT_AND_SOUND, RIGHT_AND_SOUND)
    right, sound = (series.y for series in analysis.figure.series)
    assert list(right) == pytest.approx([0.75, 1.0, 1.0])
    assert list(sound) == pytest.approx([0.25, 0.5, 1.0])


def test_judges_that_always_pass_leave_the_accuracy_of_answers(tmp_path: Path) -> None:
    always = law(
        tmp_path,
        RIGHT_AND_SOUND,
        reply=lambda request, child, rng: Completion(text="No", tokens=2, labels=(-0.1, -3.0)),
    )
    assert rates(always) == pytest.approx([0.75, 1, 1, 1, 1, 0.75])


def test_what_was_cut_off_passes_nothing_and_is_told(tmp_path: Path) -> None:
    analysis = law(tmp_path, [sample("fine", True), sample("on and on", False, "length")])
    assert rates(analysis) == pytest.approx([0.5] * 6)
    assert any("50.0% of the samples were cut off" in told for told in analysis.sentences)


def test_no_right_answer_is_said_and_the_rates_stand(tmp_path: Path) -> None:
    analysis = law(tmp_path, [sample("fine", False), sample("[gap]", False)])
    assert rates(analysis) == pytest.approx([0, 0.5, 1, 1, 1, 0])
    assert any("No answer is right" in told for told in analysis.sentences)


def test_what_people_found_corrects_the_rates(tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    found = [[], ["gap"], ["gap"], []]  # the judge of gaps passes one sound sample of two and no flawed one
    labels.write_text(
        "".join(json.dumps({"problem": "p0", "sample": at, "flaws": flaws}) + "\n" for at, flaws in enumerate(found))
    )
    texts = ["[gap]", "[gap]", "[gap]", "fine"]
    analysis = law(tmp_path, [sample(text, True) for text in texts], labels=labels)
    gap = dict(zip(analysis.columns, analysis.rows[1], strict=True))
    assert [gap[name].value for name in ("rate", "corrected", "TPR", "TNR")] == pytest.approx([0.25, 0.5, 0.5, 1.0])  # type: ignore[union-attr]
    assert dict(zip(analysis.columns, analysis.rows[2], strict=True))["corrected"] is None
    assert any("no flawed sample of 'cases'" in told for told in analysis.sentences)
    for wrong, message in [
        ({"problem": "p9", "sample": 0, "flaws": []}, "does not have"),
        ({"problem": "p0", "sample": 4, "flaws": []}, "from 0 to 3"),
        ({"problem": "p0", "sample": 0, "flaws": ["gaps"]}, "a list with some of gap"),
    ]:
        labels.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(UsageError, match=message):
            analyse("soundness", [tmp_path / "new.jsonl"], labels=labels)


def test_a_pool_without_the_judges_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"outthink score .*--verifier 'soundness\?flaw=gap'"):
        analyse("soundness", [pool(tmp_path / "pool.jsonl", [sample("fine", True)])])


@pytest.mark.parametrize("other", [None, 5, "text"])
def test_a_sample_that_is_no_object_is_told(tmp_path: Path, other: object) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps({"id": "a", "question": "q", "samples": [{"text": "a"}, other]}) + "\n")
    with pytest.raises(UsageError, match="has samples that are no objects"):
        run(score_pool(pool, tmp_path / "out.jsonl", verifiers=["judge"], models={}))
