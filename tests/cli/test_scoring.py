"""The command `score`, and what is made of its scores: six rates, a replay and a probe."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.models.engine import Completion, Request
from outthink.models.scripted import ScriptedEngine
from outthink.rewards.soundness import FLAWS


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of two problems, and a judge who finds a gap in what says so."""

    def judge(request: Request, child: int, rng: np.random.Generator) -> Completion:
        text = request.messages[-1].text
        seen = FLAWS["gap"] in text and "[gap]" in text
        return Completion(text="No", tokens=2, labels=(math.log(0.2 if seen else 0.8), math.log(0.8 if seen else 0.2)))

    monkeypatch.setattr("outthink.models.open_engine", lambda name, *, price=None: ScriptedEngine(judge, name=name))
    texts = [("[gap] so 4", "4"), ("so 4", "4"), ("so 5", "5")]
    samples = [
        {"text": text, "answer": answer, "key": answer, "tokens": 9, "finish": "eos", "correct": answer == "4"}
        for text, answer in texts
    ]
    rows = [{"id": f"q{at}", "question": f"Question {at}", "answer": "4", "samples": samples} for at in range(2)]
    path = Path("samples.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_pool_is_scored_and_six_rates_are_told(outthink: Any, recorded: Path) -> None:
    judges = [word for flaw in FLAWS for word in ("--verifier", f"soundness?flaw={flaw}")]
    scored = outthink("score", str(recorded), "--out", "sound.jsonl", "--model", "toy", *judges)
    assert scored.code == 0, scored.err
    assert "sound.jsonl: 2 of 2 problems scored; " in scored.out
    assert "tokens now" in scored.out
    again = outthink("score", str(recorded), "--out", "sound.jsonl", "--model", "toy", *judges)
    assert "2 of 2 problems scored; nothing now" in again.out

    law = outthink("law", "soundness", "sound.jsonl", "--json")
    assert law.code == 0, law.err
    rates = [row["rate"]["value"] for row in json.loads(law.out)["rows"]]
    assert rates == pytest.approx([2 / 3, 2 / 3, 1, 1, 1, 1 / 3])


def test_recorded_scores_choose_in_a_replay(outthink: Any, recorded: Path) -> None:
    judge = ("--verifier", "soundness?flaw=gap")
    scored = outthink("score", str(recorded), "--out", "sound.jsonl", "--model", "toy", *judge)
    assert scored.code == 0, scored.err
    words = ("--strategies", "majority_best,best_of_n", "--n", "3", *judge)
    replayed = outthink("replay", "sound.jsonl", *words, "--json")
    assert replayed.code == 0, replayed.err
    assert "majority_best" in replayed.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give a scorer: --verifier NAME for answers, --prm NAME for steps."),
        (("--verifier", "jugde"), "did you mean 'judge'"),
        (("--prm", "soundness"), "scores whole answers and not steps"),
        (("--verifier", "judge", "--out", "sound.jsonl.gz"), "compress it when it is complete"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    outthink: Any, recorded: Path, words: tuple[str, ...], message: str
) -> None:
    refused = outthink("score", str(recorded), "--out", "sound.jsonl", "--model", "toy", *words)
    assert refused.code == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1


def test_a_bound_without_the_values_it_is_for_is_refused(outthink: Any, recorded: Path) -> None:
    refused = outthink("prm", "train", str(recorded), "--bound", "0.5")
    assert refused.code == 2
    assert "--bound is of --values: name the scorer whose values it is for." in refused.err


def test_what_has_no_score_is_told_and_a_larger_budget_is_asked_for(outthink: Any, recorded: Path) -> None:
    none = outthink("score", str(recorded), "--out", "a.jsonl", "--model", "toy", "--verifier", "confidence")
    assert none.code == 0
    assert "confidence gave no score to 6 of what it was shown." in none.err
    short = outthink("score", str(recorded), "--out", "b.jsonl", "--model", "toy", "--verifier", "soundness?flaw=gap",
                     "--budget", "10-tokens")  # fmt: skip
    assert short.code == 1
    assert "soundness?flaw=gap can cost more than the budget in a single call." in short.err
    assert "Run it with a larger --budget to go on." in short.err
    assert "max_tokens" not in short.err


def test_the_command_that_the_law_suggests_adds_what_is_missing(outthink: Any, recorded: Path) -> None:
    scored = outthink("score", str(recorded), "--out", "a part.jsonl", "--model", "toy", "--verifier", "judge")
    assert scored.code == 0, scored.err
    refused = outthink("law", "soundness", "a part.jsonl")
    assert refused.code == 2
    (command,) = re.findall("`outthink (.*)`", refused.err)
    words = shlex.split(command)
    assert outthink(*words, "--model", "toy").code == 0
    law = outthink("law", "soundness", words[words.index("--out") + 1])
    assert law.code == 0, law.err
