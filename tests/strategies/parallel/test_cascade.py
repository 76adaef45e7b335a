"""A draft model and a dear one: who answers, what is refused, and the calibration from a pool."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink import Problem, Sampling, Trace
from outthink.driver import solve_async
from outthink.errors import EngineError, MissingResource, PromptTooLong, UnknownName, UsageError
from outthink.learn.cascade import fit
from outthink.maths.conformal import takes_over
from outthink.maths.selection import numbers
from outthink.models.engine import Completion, Request
from outthink.models.scripted import ScriptedEngine
from outthink.rng import Rng
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.cascade import Cascade, DraftScores, Signal, drafted
from tests.cli.test_cli import main
from tests.tools.toys import coin, problem
from tests.tools.virtual import run

REAL = Path(os.environ.get("OUTTHINK_DATA", "no data")) / "pool_gsm8k_qwen05b" / "samples.jsonl.gz"
Said = Callable[[Request, int, np.random.Generator], "str | Completion | EngineError"]


def says(*answers: str) -> ScriptedEngine:
    """Each sample its answer, in turn."""
    return ScriptedEngine(lambda request, child, rng: f"#### {answers[child % len(answers)]}", name="cheap")


def solve(strategy: Cascade, draft: ScriptedEngine | None, dear: ScriptedEngine | None = None, **options: Any) -> Trace:
    options.setdefault("sampling", Sampling(max_tokens=20))
    asked: Problem = options.pop("problem", problem())
    dear = dear or ScriptedEngine(lambda request, child, rng: "#### 42", name="dear")
    models = {} if draft is None else {"draft": draft}
    return run(solve_async(asked, strategy, model=dear, models=models, **options))


def roles(trace: Trace) -> set[str]:
    return {call.role for call in trace.calls}


# ---- what a draft is worth ------------------------------------------------------------------------------------------


def test_the_scores_of_a_draft() -> None:
    keys = [[0, 0, 1, -1], [-1, -1, -1, -1]]
    choice, badness = drafted("agreement", keys)
    assert choice.index.tolist() == [0, -1]
    assert badness.tolist() == [0.5, pytest.approx(math.nan, nan_ok=True)]
    logprobs = [[-0.9, -0.3, -0.1, -0.05], [-1.0, -1.0, -1.0, -1.0]]
    choice, badness = drafted("logprob", keys, logprobs=logprobs)
    assert choice.index.tolist() == [0, -1]
    assert badness[0] == 0.3  # of the samples with its answer
    assert math.isnan(badness[1])
    choice, badness = drafted("verifier", keys, scores=[[0.1, 0.2, 0.75, 0.99], [0.9] * 4])
    assert choice.index.tolist() == [2, -1]  # what cannot be read cannot win
    assert badness[0] == 0.25
    assert math.isnan(badness[1])


def test_scores_that_are_missing() -> None:
    assert math.isnan(float(drafted("logprob", [0, 0])[1]))
    assert math.isnan(float(drafted("verifier", [0, 0])[1]))
    assert math.isnan(float(drafted("logprob", [0, 0, 1], logprobs=[math.nan, math.nan, -0.1])[1]))
    assert float(drafted("logprob", [0, 0, 1], logprobs=[math.nan, -0.5, -0.1])[1]) == 0.5
    assert float(drafted("verifier", [0, 1], scores=[math.nan, 0.5])[1]) == 0.5


def test_the_order_of_the_samples_changes_no_score() -> None:
    rng = np.random.default_rng(0)
    signals: tuple[Signal, ...] = ("agreement", "logprob", "verifier")
    for signal in signals:
        for _ in range(50):
            keys, values, order = rng.integers(0, 3, 6), rng.random(6), rng.permutation(6)
            keys[:2] = 0, 0
            keys[2:] = np.where(keys[2:] == 0, 1, keys[2:])
            keys[3:5] = 0  # one clear winner
            first = drafted(signal, keys, logprobs=-values, scores=values)[1]
            again = drafted(signal, keys[order], logprobs=-values[order], scores=values[order])[1]
            assert float(first) == float(again)


# ---- who answers ----------------------------------------------------------------------------------------------------


def test_a_draft_that_conforms_stands() -> None:
    trace = solve(Cascade(calibration=(0.5,) * 9, alpha=0.1), says("7"))
    assert (trace.answer, trace.confidence, roles(trace)) == ("7", 1.0, {"draft"})
    assert len(trace.candidates) == 4


def test_a_draft_that_does_not_is_taken_over() -> None:
    trace = solve(Cascade(calibration=(0.0,) * 9, alpha=0.1, m=3), says("7", "7", "8", "9"))
    assert (trace.answer, trace.confidence, roles(trace)) == ("42", 1.0, {"draft", "model"})
    assert len(trace.candidates) == 4 + 3
    assert [of.answer for of in trace.rounds] == ["7", "42"]
    assert {of.kind for of in trace.calls} == {"sample"}


def test_the_ends_of_alpha() -> None:
    for number in range(20):
        of: dict[str, Any] = {"problem": problem(f"p{number}")}
        assert roles(solve(Cascade(calibration=(0.25, 0.5), alpha=1.0), says("7"), **of)) == {"draft", "model"}
        assert roles(solve(Cascade(calibration=(0.25, 0.5), alpha=0.0), says("7", "8", "9", "10"), **of)) == {"draft"}


def test_a_draft_without_a_score_is_taken_over_even_at_alpha_0() -> None:
    trace = solve(Cascade(calibration=(0.5,), alpha=0.0), ScriptedEngine(lambda request, child, rng: "I do not know"))
    assert trace.answer == "42"
    mute = ScriptedEngine(lambda request, child, rng: Completion(text="#### 7", tokens=6))
    assert solve(Cascade(calibration=(0.5,), alpha=0.0, signal="logprob"), mute).answer == "42"
    silent = solve(
        Cascade(calibration=(0.5,), alpha=0.0, signal="verifier"), says("7"), verifier=lambda asked, said: None
    )
    assert silent.answer == "42"


def test_fewer_samples_than_were_calibrated_are_taken_over() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        return EngineError("lost") if child == 2 else "#### 7"

    assert solve(Cascade(calibration=(0.5,), alpha=0.0), ScriptedEngine(reply)).answer == "42"
    dead = ScriptedEngine(lambda request, child, rng: EngineError("gone"))
    trace = solve(Cascade(calibration=(0.5,), alpha=0.0), dead)
    assert trace.answer == "42"
    assert trace.stopped == "finished"
    short = ScriptedEngine(lambda request, child, rng: "#### 7", context=5)

    async def bound(request: Request) -> Any:
        raise PromptTooLong("too long")

    short.bound = bound  # type: ignore[method-assign]
    assert solve(Cascade(calibration=(0.5,), alpha=0.0), short).answer == "42"


def test_the_draft_stands_where_the_dear_model_has_no_answer() -> None:
    strategy = Cascade(calibration=(0.5,), alpha=1.0)
    trace = solve(strategy, says("7"), ScriptedEngine(lambda request, child, rng: "I do not know"))
    assert ([of.answer for of in trace.rounds], trace.stopped) == (["7", "7"], "finished")
    trace = solve(strategy, says("7"), ScriptedEngine(lambda request, child, rng: EngineError("gone")))
    assert (trace.answer, trace.stopped) == ("7", "error")


def test_a_budget_that_ends_between_draft_and_take_over_keeps_the_draft() -> None:
    strategy = Cascade(calibration=(0.5,), alpha=1.0)
    # the prompt has 12 tokens, read once, and an answer 6: 36 tokens for the draft; 32 more are the worst of a sample
    enough = solve(strategy, says("7"), budget="68-tokens")
    assert (enough.answer, enough.stopped) == ("42", "finished")
    short = solve(strategy, says("7"), budget="67-tokens")
    assert (short.answer, short.stopped) == ("7", "budget")
    assert roles(short) == {"draft"}


def test_the_verifier_chooses_the_draft_and_scores_it() -> None:
    def score(question: str, solution: str) -> float:
        return {"#### 7": 0.4, "#### 8": 0.9}[solution]

    strategy = Cascade(calibration=(0.5,) * 9, alpha=0.1, signal="verifier")
    trace = solve(strategy, says("7", "7", "7", "8"), verifier=score)
    assert (trace.answer, roles(trace)) == ("8", {"draft", "verifier"})
    assert trace.rounds[-1].scores == (0.4, 0.4, 0.4, 0.9)
    assert solve(strategy, says("7"), verifier=score).answer == "42"


def test_the_logprob_of_the_draft() -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> Completion:
        return Completion(text="#### 7", tokens=6, logprobs=(-0.5 - child,) * 6 if request.logprobs else None)

    strategy = Cascade(calibration=(0.6,) * 9, alpha=0.1, signal="logprob")
    assert solve(strategy, ScriptedEngine(reply)).answer == "7"  # 0.5
    assert solve(replace(strategy, calibration=(0.4,) * 9), ScriptedEngine(reply)).answer == "42"


def test_without_a_role_the_draft_is_the_main_model() -> None:
    trace = solve(Cascade(calibration=(0.5,), alpha=1.0), None)
    assert {candidate.address[0] for candidate in trace.candidates} == {"draft", "model"}


QUESTIONS = 300


@pytest.mark.parametrize(("calibrated_on", "low", "high"), [(0.6, 0.18, 0.42), (0.9, 0.6, 1.0)])
def test_the_rate_is_alpha_where_draft_and_dear_are_one_model_and_breaks_on_harder_questions(
    calibrated_on: float, low: float, high: float
) -> None:
    """Ranks know nothing of how good a model is, so the rate is alpha = 0.3 here, too, and only a shift moves it.

    Standard deviations: 0.026 from 300 decisions and 0.014 from 1,000 calibration scores, 0.030 together; 0.12 is four
    of them, one false alarm in 16,000. Calibrated at 0.9, four samples agree with odds .66, three with .29, so those
    with three or fewer are taken over in .86 of cases or always: at 0.6 that is .82 of all, and 0.6 is far below.
    """
    rng = np.random.default_rng(0)
    keys = np.where(rng.random((1000, 4)) < calibrated_on, 42, 10 + rng.integers(0, 5, (1000, 4)))
    stored = tuple(drafted("agreement", keys)[1].tolist())
    engine = coin(0.6, wrong=5)
    strategy = Cascade(calibration=stored, alpha=0.3)
    taken = [
        "model" in roles(solve(strategy, None, engine, problem=problem(f"p{number}"))) for number in range(QUESTIONS)
    ]
    assert low <= np.mean(taken) <= high


# ---- the file, and what is refused ----------------------------------------------------------------------------------

FILE = DraftScores(
    model="cheap", signal="agreement", n=4, sampling=Sampling(max_tokens=20), scores=(0.5, None, 0.25), made={"seed": 0}
)


def saved(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "cascade.json"
    path.write_text(replace(FILE, **changes).text(), encoding="utf-8")
    return str(path)


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert DraftScores.open(path) == replace(FILE, scores=(0.25, 0.5, None))
    assert len(Path(path).read_text().splitlines()) == 9  # to be read by people


def test_a_calibration_serves_the_strategy(tmp_path: Path) -> None:
    strategy: Any = make_strategy("cascade", {"calibration": saved(tmp_path), "alpha": "0.0"})
    trace = solve(strategy, says("7"))
    assert (trace.answer, trace.strategy["calibration"]) == ("7", strategy.calibration)
    assert solve(replace(strategy, alpha=1.0), says("7")).answer == "42"
    stored = numbers(DraftScores.open(strategy.calibration).scores)
    for number in range(30):  # the same decision as by hand, with the random number of this question
        of = problem(f"p{number}")
        u = 1 - Rng(0, of.id).at("take over").random()
        by_hand = bool(takes_over(0.25, stored, 0.5, u))
        draft = says("7", "7", "7", "8")
        assert ("model" in roles(solve(replace(strategy, alpha=0.5), draft, problem=of))) is by_hand


def test_a_calibration_of_something_else_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(UsageError, match="is for n = 4 and signal = agreement, not for n = 5 and signal = agreement"):
        Cascade(calibration=path, n=5)
    with pytest.raises(UsageError, match="not for n = 4 and signal = logprob"):
        Cascade(calibration=path, signal="logprob")
    with pytest.raises(UsageError, match="is for the draft model cheap, not for scripted: pass --role draft=cheap"):
        solve(Cascade(calibration=path), ScriptedEngine(lambda request, child, rng: ""))
    with pytest.raises(UsageError, match=r"is for samples drawn with .*max_tokens=20.*, not with .*max_tokens=30"):
        solve(Cascade(calibration=path), says("7"), sampling=Sampling(max_tokens=30))
    anyhow = saved(tmp_path, sampling=None)  # the pool did not say
    assert solve(Cascade(calibration=anyhow, alpha=0.0), says("7"), sampling=Sampling(max_tokens=30)).answer == "7"


def test_what_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(MissingResource, match="outthink cascade fit"):
        solve(Cascade(), says("7"))
    with pytest.raises(MissingResource, match="--verifier"):
        solve(Cascade(calibration=(0.5,), signal="verifier"), says("7"))
    plain = says("7")
    plain._spec = replace(plain.spec, powers=frozenset())
    with pytest.raises(MissingResource, match="cheap gives no token logprobs"):
        solve(Cascade(calibration=(0.5,), signal="logprob"), plain)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n": 0, "signal": "logprob"}, "n must be at least 1"),
        ({"m": 0}, "m must be at least 1"),
        ({"alpha": 1.5}, "alpha must be from 0 to 1"),
        ({"n": 1}, "always agrees with itself"),
    ],
)
def test_hyperparameters_out_of_range(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cascade(**wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no calibration; make one with `outthink cascade fit`"),
        ("[]", "is no calibration"),
        ("{}", "is no calibration"),
        ('{"takeover": 2}', "has version 2; this program reads 1: fit it again"),
        ('{"takeover": 1, "model": "m"}', "is not a whole calibration"),
        (FILE.text().replace("0.25", '"x"'), "is not a whole calibration"),
    ],
)
def test_a_broken_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "cascade.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        Cascade(calibration=str(path))
    with pytest.raises(UsageError, match="Cannot read the calibration"):
        Cascade(calibration=str(tmp_path / "nothing.json"))


# ---- from a pool ----------------------------------------------------------------------------------------------------


def row(name: str, answers: str, **more: Any) -> dict[str, Any]:
    """One sample for each letter; "?" cannot be read, and A is right."""
    samples = [
        {
            "key": None if answer == "?" else answer,
            "correct": answer == "A",
            "tokens": 5,
            "logprobs": [-0.1 * (place + 1)],
            "reward": round(0.9 - 0.1 * place, 1),
        }
        for place, answer in enumerate(answers)
    ]
    meta = {"model": "cheap", "sampling": {"temperature": 0.8, "top_p": 1.0, "max_tokens": 20}}
    return {"id": name, "question": name, "samples": samples, "meta": meta, **more}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(of) + "\n" for of in rows))
    return path


@pytest.mark.parametrize("answers", ["AAAA", "BBBB"])
def test_what_drafts_of_one_kind_cannot_tell_is_said_in_words(tmp_path: Path, answers: str) -> None:
    pool = write(tmp_path / "pool.jsonl", row("a", answers), row("b", answers))
    text = " ".join(fit(pool, signal="agreement", n=4).sentences())
    assert "one kind is missing" in text
    assert "Taken over are: at alpha 0.1 none," in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_a_calibration_from_a_pool(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", row("a", "AAAA"), row("b", "ABBB"), row("c", "????"))
    found = fit(pool, signal="agreement", n=4)
    assert found.calibration == DraftScores(
        model="cheap",
        signal="agreement",
        n=4,
        sampling=Sampling(max_tokens=20),
        scores=(0.0, 0.25, None),
        made={"pool": "pool.jsonl", "seed": 0},
    )
    assert found.right.tolist() == [True, False, False]
    assert found.auroc == 1.0
    assert "the draft is right on 33.3%" in found.sentences()[0]
    assert "in 100% of pairs" in found.sentences()[1]
    assert "1 have no score, so about 33.3%" in found.sentences()[2]
    assert "not how often an answer is wrong" in found.sentences()[-1]
    assert fit(pool, signal="logprob", n=4).calibration.scores == (0.1, 0.2, None)
    by = fit(pool, signal="verifier", n=4).calibration
    assert by.scores == (0.1, 0.1, None)
    assert by.made["verifier"] == "reward"


def test_every_question_gives_the_score_of_one_random_subset(tmp_path: Path) -> None:
    rows = [row(f"q{number}", "AAAAABBBBB") for number in range(300)]
    pool = write(tmp_path / "pool.jsonl", *rows)
    found = fit(pool, signal="agreement", n=2)
    assert fit(pool, signal="agreement", n=2).calibration == found.calibration
    assert fit(pool, signal="agreement", n=2, seed=1).calibration != found.calibration
    # two of five and five are alike with chance 4/9; six standard errors of 300 are 0.17: one false alarm in 5 * 10^8
    assert np.mean([of == 0 for of in found.calibration.scores]) == pytest.approx(4 / 9, abs=0.17)
    # and a subset is not always the same samples
    assert len(set(fit(pool, signal="logprob", n=1).calibration.scores)) == 10


def test_pools_that_cannot_calibrate(tmp_path: Path) -> None:
    def refused(said: str, *rows: dict[str, Any], **options: Any) -> None:
        given: dict[str, Any] = {"signal": "agreement", "n": 2, **options}
        with pytest.raises(UsageError, match=said):
            fit(write(tmp_path / "pool.jsonl", *rows), **given)

    good = row("a", "AAAA")
    refused("has 4 samples of each question, so n must be at most 4", good, n=5)
    refused("n must be at least 2 for agreement", good, n=1)
    refused("n must be at least 1 for logprob", good, n=0, signal="logprob")
    refused("does not hold independent samples", {**good, "steps": []})
    refused("was recorded with cheap, not with other", good, model="other")
    refused("does not say which model wrote it: name it with --model", {**good, "meta": {}})
    refused("has no answers", {"id": "a", "samples": [{"correct": True}] * 4})
    bare = {"id": "a", "samples": [{"correct": True, "key": "A"}] * 4}
    refused("has no logprobs", bare, signal="logprob")
    refused("has no scores of a verifier", bare, signal="verifier")
    refused("several verifiers: name one of other, reward", {**good, "scores": {"other": [1] * 4}}, signal="verifier")
    refused("did you mean 'reward'", good, signal="verifier", verifier="rewards")
    refused("something else than how", {**good, "meta": {"model": "m", "sampling": {"heat": 1}}})
    assert fit(write(tmp_path / "pool.jsonl", bare), signal="agreement", n=2, model="m").calibration.model == "m"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pool.jsonl", row("a", "AAAA"), row("b", "ABBB"))
    found = main(["cascade", "fit", "pool.jsonl", "--n", "3", "-o", "out.json"], capsys, monkeypatch)
    assert (found.code, found.err) == (0, "")
    assert "not how often an answer is wrong" in found.out
    assert "--strategy cascade --role draft=cheap --signal agreement --n 3 --calibration out.json" in found.out
    assert DraftScores.open("out.json").n == 3
    assert main(["cascade", "fit", "pool.jsonl", "-o", "out.txt"], capsys, monkeypatch).err.startswith("outthink: ")
    assert main(["cascade"], capsys, monkeypatch).code == 0


@pytest.mark.skipif(not REAL.exists(), reason="the recorded pool is not here")
@pytest.mark.parametrize("signal", ["agreement", "logprob"])
def test_the_rate_on_held_out_halves_of_a_real_pool(signal: Any) -> None:
    """A random half is exchangeable with the other one, so the mean rate over halves is alpha, whatever the pool."""
    found = fit(REAL, signal=signal, n=4, model="m", answer="math")
    badness = numbers(found.calibration.scores)
    rng = np.random.default_rng(0)
    for alpha in (0.1, 0.3, 0.5):
        rates = []
        for _ in range(400):
            order = rng.permutation(len(badness))
            stored, new = badness[order[:50]], badness[order[50:]]
            rates.append(takes_over(new, stored, alpha, 1 - rng.random(50)).mean())
        # a rate varies by less than 0.1 from half to half, so the mean by less than 0.005: six of them
        assert np.mean(rates) == pytest.approx(alpha, abs=0.03)


def test_the_old_names_say_the_new_ones(capsys: Any, monkeypatch: Any) -> None:
    with pytest.raises(UnknownName, match="There is no strategy 'atts'; it is called 'cascade' now"):
        make_strategy("atts")
    for words in (
        ["strategies", "atts"],
        ["bench", "gsm8k", "--strategy", "atts"],
        ["solve", "2+2", "--strategy=atts"],
    ):
        came = main(words, capsys, monkeypatch)
        assert (came.code, came.err) == (2, "outthink: There is no strategy 'atts'; it is called 'cascade' now.\n")
    came = main(["takeover", "fit", "pool.jsonl"], capsys, monkeypatch)
    assert (came.code, came.err) == (2, "outthink: The command takeover is called cascade now.\n")
