"""The trainable process reward model: steps and their logprobs, features, training, its file, scoring, measures."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from outthink.bench.pool import record_pool
from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.errors import UnknownName, UsageError
from outthink.learn import prm
from outthink.learn.evaluation import best_threshold, evaluate, on_marked, on_pool
from outthink.learn.examples import examples, read_recording
from outthink.learn.measures import (
    auroc,
    average_precision,
    brier,
    calibration_error,
    first_error,
    reliability,
    step_f1,
    wins,
)
from outthink.learn.prm import train
from outthink.maths.intervals import Bootstrap
from outthink.models.engine import Completion, EngineSpec, Request
from outthink.models.scripted import ScriptedEngine
from outthink.records.ends import TokenEnds
from outthink.rewards.making import make_scorer
from outthink.rewards.trained import HEADS, Feature, Head, Steps, TrainedPRM, cut, features, head_for, prefixes
from outthink.strategies.making import make_strategy
from outthink.strategies.parallel.self_consistency import SelfConsistency
from outthink.strategies.search.rebase import Rebase
from outthink.tasks.example import Example
from outthink.types import Candidate, Message, Problem, Sampling, Trace
from outthink.types import path as path_of
from tests.cli.test_cli import main
from tests.tools.toys import problem
from tests.tools.virtual import run

# ---- cutting --------------------------------------------------------------------------------------------------------


def pieces(*texts: str) -> list[tuple[str, list[float]]]:
    """Tokens with the logprobs -1, -2 ..."""
    return [(text, [-float(number)]) for number, text in enumerate(texts, start=1)]


def plain(steps: Steps | None) -> Any:
    assert steps is not None
    whole = None if steps.whole is None else steps.whole.tolist()
    return steps.texts, None if steps.logprobs is None else [numbers.tolist() for numbers in steps.logprobs], whole


def test_tokens_belong_to_the_step_in_which_their_text_begins() -> None:
    steps = cut(pieces("one", " two", "\n", " three", "\n\n", "four"), "\n")
    assert plain(steps) == (("one two", "three", "four"), [[-1, -2, -3], [-4, -5], [-6]], [-1, -2, -3, -4, -5, -6])


def test_steps_of_white_space_are_left_out_and_their_tokens_count_to_the_next_step() -> None:
    steps = cut(pieces(" ", "\n", "one", "\n", "\n", "  ", "two", "\n", "\n"), "\n")
    assert plain(steps) == (("one", "two"), [[-1, -2, -3, -4], [-5, -6, -7, -8]], [-1, -2, -3, -4, -5, -6, -7, -8, -9])
    assert cut(pieces(" ", "\n"), "\n") is None
    assert cut([], "\n") is None


def test_a_piece_that_reaches_into_another_step_hides_where_its_logprobs_begin() -> None:
    assert plain(cut([("one\ntwo", [-1.0, -2.0])], "\n")) == (("one", "two"), None, [-1, -2])
    assert plain(cut(pieces("one", "\ntwo", "\n", "three"), "\n"))[1] == [[-1], [-2, -3], [-4]]  # it begins in step two
    assert plain(cut(pieces("one", " \n two t", "hree"), "\n"))[1] == [[-1], [-2, -3]]
    assert plain(cut(pieces("one", "x\ntwo", "three"), "\n"))[1] is None
    assert plain(cut([("one\n", [-1.0]), ("two", None)], "\n")) == (("one", "two"), None, None)
    assert plain(cut([("one\n", []), ("two", [])], "\n")) == (("one", "two"), None, None)
    # what somebody put there has no tokens of its own
    assert plain(cut([("one", [-1.0]), (" more\n", []), ("two", [-2.0])], "\n"))[1] == [[-1], [-2]]


def test_steps_that_are_numbered() -> None:
    text = ["Step 1:", " a", "\nStep 2:", " b", "\nStep 3:", " c"]
    steps = cut(pieces(*text), "\nStep {step}:")
    assert plain(steps)[0] == ("Step 1: a\nStep 2:", "b\nStep 3:", "c")
    assert plain(steps)[1] == [[-1, -2, -3], [-4, -5], [-6]]


TOKENS = ("a", " b", "1", " ", "\n", "\n\n", ".\n", "####")


@settings(max_examples=300, deadline=None)
@example(["\n", "\n\n", "\n", "a"], "\n\n")  # white space in one segment with what follows it
@given(st.lists(st.sampled_from(TOKENS), max_size=24), st.sampled_from(["\n", "\n\n", ".\n"]))
def test_a_recorded_sample_is_known_at_the_end_of_a_step_as_a_search_knows_it(text: list[str], delimiter: str) -> None:
    """A search's segment ends with the token that completes the delimiter; its logprobs come with it."""
    tokens = pieces(*text)
    segments: list[tuple[str, list[float]]] = []
    done = True
    for piece, values in tokens:
        if done:
            segments.append(("", []))
        segments[-1] = (segments[-1][0] + piece, segments[-1][1] + values)
        done = delimiter in segments[-1][0]
    trained = prefixes(tokens, delimiter)
    lived = [cut(segments[: end + 1], delimiter) for end in range(len(segments)) if segments[end][0].strip()]
    assert len(trained) == len(lived)
    if lived:
        lived[-1] = cut(segments, delimiter)  # white space may follow
    for before, live in zip(trained, lived, strict=True):
        assert plain(before) == plain(live)
        assert live is not None
        assert features("What is 1 + 1?", before) == features("What is 1 + 1?", live)


def test_without_tokens_only_texts_are_known_before_the_end() -> None:
    beginnings = prefixes([("one\ntwo\n", [-1.0, -2.0])], "\n")
    assert [plain(steps) for steps in beginnings] == [(("one",), None, None), (("one", "two"), None, [-1, -2])]
    assert [plain(steps) for steps in prefixes([("one\ntwo", None)], "\n")] == [
        (("one",), None, None),
        (("one", "two"), None, None),
    ]


# ---- features -------------------------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    question = "What is 12 + 7 - 1,500?"
    steps = cut(pieces("12 + 7 = 19", "\n", "19 - 1500", " = 20", "\n"), "\n")
    assert steps is not None
    values = features(question, steps)
    assert set(values) == set(HEADS["steps"])
    assert (values["steps"], values["question_numbers"], values["step_numbers"]) == (2, 3, 3)
    assert values["numbers_known"] == pytest.approx(2 / 3)  # 19 and 1500, but not 20
    assert values["numbers_of_question"] == pytest.approx(1 / 3)
    assert values["numbers_of_previous"] == pytest.approx(1 / 3)
    assert values["numbers_used"] == 1
    assert values["numbers_used_before"] == pytest.approx(2 / 3)
    assert values["runs2_of_question"] == 0.25  # "- 1500" of "19 -", "- 1500", "1500 =", "= 20"
    assert values["runs2_used"] == pytest.approx(3 / 7)  # with "12 +" and "+ 7"
    assert (values["repeats"], values["answers"]) == (0, 0)
    assert values["step_total"] == pytest.approx(-math.log(12 + 1e-3))  # of -3, -4 and -5
    assert values["step_least"] == pytest.approx(-math.log(5 + 1e-3))
    assert values["all_total"] == pytest.approx(-math.log(15 + 1e-3))
    assert values["step_unlikely"] == 3
    assert values["path_previous_least"] == pytest.approx(-math.log(2 + 1e-3))


def test_what_is_right_is_not_known_to_the_features() -> None:
    """Nothing is worked out: a right sum and a wrong one of the same form look the same."""
    right, wrong = (cut([(f"3 + 4 = {total}", [-1.0, -0.5])], "\n") for total in (7, 8))
    assert right is not None
    assert wrong is not None
    assert features("What is 3 + 4?", right) == features("What is 3 + 4?", wrong)


def test_answers_and_repetitions_are_seen() -> None:
    def last(*texts: str) -> dict[str, float]:
        return features("?", Steps(texts))

    assert last("so", "#### 4")["answers"] == last("The answer is 4")["answers"] == last("\\boxed{4}")["answers"] == 1
    assert last("#### 4", "more")["answered"] == 1
    assert last("x", "y", "x")["repeats"] == 1
    assert last("x", "y", "x")["repeated"] == pytest.approx(1 / 3)


def test_the_classifier_that_knows_most_is_used() -> None:
    known = cut(pieces("a", "\n", "b"), "\n")
    unclear, mute = cut([("a\nb", [-1.0])], "\n"), cut([("a\nb", None)], "\n")
    assert known is not None
    assert unclear is not None
    assert mute is not None
    assert [head_for(steps) for steps in (known, unclear, mute)] == ["steps", "whole", "text"]
    assert head_for(known, ["text", "whole"]) == "whole"
    assert set(HEADS["text"]) < set(HEADS["whole"]) < set(HEADS["steps"])


# ---- pools to learn from --------------------------------------------------------------------------------------------


def recorded(
    path: Path, problems: int = 24, samples: int = 4, *, seed: int = 0, ends: bool = True, **fields: Any
) -> Path:
    """A pool of sums in which wrong samples are unsure of their second step, and longer; words are tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(problems):
        a, b = rng.integers(1, 90, size=2)
        of_problem = []
        for _ in range(samples):
            right = bool(rng.random() < 0.5)
            total = a + b + (not right)
            text = f"Add {a} and {b}.\n{a} + {b} = {total}\n" + ("Let me see.\n" if not right else "") + f"#### {total}"
            tokens = re.findall(r"\s*\S+|\s+", text)
            unsure = {".\n", "\n"}
            logprobs = [-0.05 - 0.02 * rng.random() for _ in tokens]
            for place, token in enumerate(tokens):
                if token.strip() == "=" or token in unsure:
                    logprobs[place] = float(-rng.exponential(0.3 if right else 1.5))
            sample = {
                "text": text,
                "tokens": len(tokens),
                "token_ids": [sum(map(ord, token)) for token in tokens],
                "logprobs": [round(value, 4) for value in logprobs],
                "finish": "eos",
                "answer": str(total),
                "key": str(total),
                "correct": right,
            }
            if ends:
                sample["ends"] = np.cumsum([len(token) for token in tokens]).tolist()
            of_problem.append({**sample, **fields})
        question = f"What is {a} + {b}? ({seed}.{number})"
        meta = {"model": "toy", "sampling": {"temperature": 0.8}}
        rows.append({"id": f"p{number}", "question": question, "answer": str(a + b), "prompt_tokens": 9})
        rows[-1] |= {"samples": of_problem, "meta": meta}
    return write(path, rows)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("pools") / "pool.jsonl")


@pytest.fixture(scope="module")
def trained(pool: Path) -> prm.Training:
    return train(pool, delimiter="\n", folds=3)


@pytest.fixture(scope="module")
def probe(trained: prm.Training) -> TrainedPRM:
    return trained.probe


def test_every_beginning_is_labelled_by_the_outcome_of_its_sample(pool: Path) -> None:
    labelled = examples(read_recording(pool), "\n")
    rows = rows_of(pool)
    assert len(labelled.right) == sum(1 + sample["text"].count("\n") for row in rows for sample in row["samples"])
    for place in range(len(labelled.right)):
        sample = rows[labelled.problem[place]]["samples"][labelled.sample[place]]
        assert labelled.right[place] == sample["correct"]
        assert labelled.last[place] == (labelled.depth[place] == 1 + sample["text"].count("\n"))
    assert all(labelled.known(head).all() for head in HEADS)


VALUES = "rollout?m=8"


def valued(path: Path, values: Callable[[bool, int], list[float | None]]) -> Path:
    """The pool with values of steps, by whether the sample is right and how many steps it has."""
    rows = rows_of(path)
    for row in rows:
        steps = [values(one["correct"], 1 + one["text"].count("\n")) for one in row["samples"]]
        row["step_scores"] = {VALUES: steps}
    return write(path.with_name("valued.jsonl"), rows)


def test_steps_are_labelled_by_whether_they_keep_the_value_before_them(tmp_path: Path) -> None:
    samples = [True, False, False, False]
    rows = [*rows_of(recorded(tmp_path / "pool.jsonl", problems=2))]
    for row in rows:
        for sample, right in zip(row["samples"], samples, strict=True):
            sample |= {"text": "a\nb\nc", "correct": right, "tokens": 5, "token_ids": None, "logprobs": None}
            sample.pop("ends", None)
        # before the first step the value is the share of right samples, 0.25
        row["step_scores"] = {VALUES: [[0.25, 0.5, 0.3], [0.5, 0.45, 0.0], [0.1, 0.0, 0.4], [0.5, None, 0.5]]}
    labelled = examples(read_recording(write(tmp_path / "values.jsonl", rows), values=VALUES), "\n")
    first = labelled.problem == 0
    told = {
        (int(sample), int(depth)): bool(right)
        for sample, depth, right in zip(
            labelled.sample[first], labelled.depth[first], labelled.right[first], strict=True
        )
    }
    assert told == {
        (0, 1): True,
        (0, 2): True,
        (0, 3): False,  # 0.6 of it
        (1, 1): True,
        (1, 2): True,  # 0.9 of it
        (1, 3): False,
        (2, 1): False,
        (2, 2): False,
        (2, 3): False,  # from nothing
        (3, 1): True,  # what is not known is left out, and so is what follows it
    }
    assert not examples(read_recording(tmp_path / "values.jsonl", values=VALUES), "\n", bound=2.5).right[first].any()


def test_a_probe_learns_from_values_of_steps(pool: Path, tmp_path: Path) -> None:
    copied = write(tmp_path / "pool.jsonl", rows_of(pool))
    falls = valued(copied, lambda right, steps: [0.5, *[0.5 if right else 0.1] * (steps - 1)])
    learnt = train(falls, delimiter="\n", folds=3, values=VALUES)
    assert learnt.probe.trained["labels"] == {"values": VALUES, "bound": 0.8}
    assert learnt.probe.text() != train(falls, delimiter="\n", folds=3).probe.text()
    with pytest.raises(UsageError, match="has no step_scores by 'judge'"):
        train(falls, delimiter="\n", values="judge")
    with pytest.raises(UsageError, match="another --delimiter"):
        train(falls, delimiter=" ", values=VALUES)
    with pytest.raises(UsageError, match="bound must be above 0"):
        train(falls, delimiter="\n", values=VALUES, bound=0.0)


def test_it_learns_what_there_is_to_learn(trained: prm.Training) -> None:
    """Wrong samples are a line longer, so finished ones are told apart; with logprobs earlier ones are, too."""
    for kinds in trained.held_out.values():
        for quality in kinds.values():
            assert quality.finished[0] > 0.99
            assert quality.auroc[1] <= quality.auroc[0] <= quality.auroc[2]
    assert trained.held_out["steps"]["logistic"].auroc[0] > trained.held_out["text"]["logistic"].auroc[0] + 0.05
    assert trained.probe.trained["problems"] == 24
    assert trained.probe.trained["model"] == "toy"
    assert trained.unclear == 0


def test_the_same_pool_and_seed_give_the_same_file(pool: Path, trained: prm.Training, tmp_path: Path) -> None:
    told: list[int] = []
    again = train(pool, delimiter="\n", folds=3, tell=lambda text, done, total: told.append(done * 100 // total))
    assert told == sorted(set(told)), "it never goes back"
    assert max(told) < 100
    assert again.probe.text() == trained.probe.text()
    assert train(pool, delimiter="\n", folds=3, seed=1).probe.text() != trained.probe.text()


def test_all_samples_of_a_problem_are_in_one_fold(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = examples(read_recording(pool), "\n")
    whole = {problem: int((labelled.problem == problem).sum()) for problem in np.unique(labelled.problem)}
    column = np.array([[row[0]] for row in labelled.values["text"] * 0 + labelled.problem[:, None]])
    taught: list[dict[int, int]] = []

    def constant(kind: str, values: Any, right: Any, names: Any, seed: int) -> Any:
        taught.append({int(problem): int(n) for problem, n in zip(*np.unique(values, return_counts=True), strict=True)})
        return lambda asked: np.full(len(asked), 0.5)

    monkeypatch.setattr(prm, "fit", constant)
    fold = np.random.default_rng(0).permutation(24) % 5
    prm._held_out_scores("logistic", column, labelled.right, fold[labelled.problem], "text", 0)
    assert len(taught) == 5
    for counts in taught:
        assert all(n == whole[problem] for problem, n in counts.items())  # a problem is there as a whole, or not at all
    assert sum(len(whole) - len(counts) for counts in taught) == len(whole)  # and is held out exactly once


def test_training_folds_by_problem(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = examples(read_recording(pool), "\n").problem
    pairs = []

    def spy(kind: str, values: Any, right: Any, part: Any, head: str, seed: int) -> Any:
        pairs.append(set(zip(problems.tolist(), part.tolist(), strict=True)))
        return np.linspace(0, 1, len(right))

    monkeypatch.setattr(prm, "_held_out_scores", spy)
    train(pool, delimiter="\n", folds=4)
    assert len(pairs) == len(HEADS) * len(prm.CLASSIFIERS)
    for folds in pairs:
        assert len(folds) == 24  # one fold for each problem
        assert {part for _, part in folds} == set(range(4))


def test_samples_that_lack_what_the_others_have_do_not_become_a_class_of_their_own(pool: Path, tmp_path: Path) -> None:
    """Where ends are known of those only that were cut off, "steps" would learn that all are wrong."""
    rows = rows_of(pool)
    for row in rows:
        for sample in row["samples"]:
            if sample["correct"]:
                del sample["ends"]
        row["samples"][0] |= {"text": "#### 3", "ends": None}  # all of its logprobs are of its one step
    labelled = examples(recording := read_recording(write(tmp_path / "half.jsonl", rows)), "\n")
    lacking = sum(sample.get("ends") is None for row in rows for sample in row["samples"])
    assert (recording.clear, recording.unclear) == (False, lacking)
    assert not labelled.known("steps").any()
    assert (labelled.known("whole") == labelled.last).all()
    assert labelled.known("text").all()
    assert set(train(tmp_path / "half.jsonl", delimiter="\n", folds=3).probe.heads) == {"whole", "text"}

    rows = rows_of(pool)
    del rows[0]["samples"][0]["ends"], rows[1]["samples"][0]["logprobs"]
    labelled = examples(recording := read_recording(write(tmp_path / "few.jsonl", rows)), "\n")
    assert (recording.clear, recording.unclear) == (True, 1)
    assert labelled.known("steps").all()
    left = {(int(p), int(s)) for p, s in zip(labelled.problem, labelled.sample, strict=True)}
    assert left == {(p, s) for p in range(24) for s in range(4)} - {(0, 0), (1, 0)}


def test_a_pool_of_texts_gives_a_probe_of_texts(tmp_path: Path) -> None:
    trained = train(recorded(tmp_path / "texts.jsonl", logprobs=None), delimiter="\n", folds=3)
    assert set(trained.probe.heads) == {"text"}
    assert trained.probe.reads == frozenset()


def test_a_tokenizer_tells_where_tokens_end(tmp_path: Path) -> None:
    """As in a pool of an earlier version, which has ids and no ends."""

    rows = rows_of(recorded(tmp_path / "with.jsonl"))
    numbers: dict[str, int] = {"": 0}
    for row in rows:
        for sample in row["samples"]:
            tokens = [*re.findall(r"\s*\S+|\s+", sample["text"]), ""]
            sample["token_ids"] = [numbers.setdefault(token, len(numbers)) for token in tokens]
            sample["logprobs"].append(-0.5)  # the end mark, which has no text
            del sample["ends"]
    words = Bytes({number: token.encode() for token, number in numbers.items()}, "strict")
    old = write(tmp_path / "old.jsonl", rows)
    assert not read_recording(old).clear
    told = read_recording(old, words)
    assert told.clear
    assert told.samples == read_recording(tmp_path / "with.jsonl").samples


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:1], "has one problem"),
        (lambda rows: [with_samples(row, correct=True) for row in rows], "All samples of .* are right"),
        (lambda rows: [with_samples(row, correct=False) for row in rows], "All samples of .* are wrong"),
        (lambda rows: [with_samples(row, correct=row is rows[0]) for row in rows], "come from too few problems"),
        (lambda rows: [with_samples(row, text=" ", ends=None) for row in rows], "holds no texts"),
        (lambda rows: [*rows[:2], {**rows[2], "question": None}, *rows[3:]], r"Line 3 of .* has no question"),
        (lambda rows: [*rows[:4], with_samples(rows[4], correct=None)], r"Line 5 of .* whether it is correct"),
        (lambda rows: [*rows[:4], with_samples(rows[4], logprobs=["?"])], r"Line 5 of .* cannot be read"),
        (lambda rows: [rows[0], with_samples(rows[1], ends=[1] * 99, logprobs=[-1.0] * 99)], "ends of tokens are not"),
        (lambda rows: [{**rows[0], "steps": []}, *rows[1:]], "build on each other"),
        (lambda rows: [], "holds no samples"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    rows = rows_of(recorded(tmp_path / "pool.jsonl", problems=6))
    write(tmp_path / "pool.jsonl", change(rows))
    with pytest.raises(UsageError, match=said):
        train(tmp_path / "pool.jsonl", delimiter="\n")


def with_samples(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**row, "samples": [{**sample, **fields} for sample in row["samples"]]}


def test_options_out_of_range(pool: Path) -> None:
    with pytest.raises(UsageError, match="folds must be at least 2, not 1"):
        train(pool, folds=1)
    with pytest.raises(UsageError, match="delimiter is empty"):
        train(pool, delimiter="")


def test_without_the_packages_it_says_so(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(UsageError, match=r"pip install 'outthink\[learn\]'"):
        train(pool)


def test_the_network_is_kept_only_where_it_is_clearly_better() -> None:
    """Right where both of two features agree: no sum of the two can tell. Where one feature tells, the simpler one."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3000, 2))
    problems = np.repeat(np.arange(60), 50)
    fold = np.random.default_rng(0).permutation(60) % 5
    bootstrap = Bootstrap(60)
    for right, network in ((values.prod(1) > 0, True), (values[:, 0] + rng.normal(size=3000) > 0, False)):
        scores = {}
        for kind in prm.CLASSIFIERS:
            scores[kind] = np.empty(3000)
            for part in range(5):
                test = fold[problems] == part
                scores[kind][test] = prm.fit(kind, values[~test], right[~test], ("a", "b"), 0)(values[test])
        assert prm._clearly_better(scores, right, problems, bootstrap) is network


def test_a_feature_that_never_changes_does_no_harm() -> None:
    values = np.column_stack([np.full(40, 3.0), np.arange(40.0)])
    head = prm.fit("logistic", values, np.arange(40) >= 20, ("constant", "number"), 0)
    assert head.features["constant"].scale == 1
    assert abs(head.features["constant"].weights[0]) < 1e-3
    assert auroc(head(values), np.arange(40) >= 20) == 1


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(probe: TrainedPRM, tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text(probe.text(), encoding="utf-8")
    read = make_scorer(str(tmp_path / "probe.json"))
    assert read == probe
    assert make_scorer(str(tmp_path / "probe.json"), process=True) == probe
    assert json.loads(probe.text())["probe"] == 1
    assert probe.text().count("\n") > 100  # a line for each feature
    assert len(repr(probe)) < 100
    assert repr(probe) == repr(read) != repr(replace(probe, delimiter="\n\n"))


def test_scores_by_hand() -> None:
    """Logistic regression, and one with hidden units, of which one is off."""
    feature = Feature(mean=1.0, scale=2.0, weights=(0.5,))
    plain_head = Head(features={"a": feature, "b": replace(feature, weights=(-1.0,))}, biases=(0.25,))
    assert plain_head(np.array([[3.0, 1.0], [1e9, 1.0]])) == pytest.approx(
        [1 / (1 + math.exp(-0.75)), 1 / (1 + math.exp(-2.75))]  # far away is as 5 scales away
    )
    hidden = Head(
        features={"a": replace(feature, weights=(1.0, -1.0))}, biases=(0.5, 0.5), output=(2.0, 7.0), offset=-1
    )
    assert hidden(np.array([3.0])) == pytest.approx(1 / (1 + math.exp(-(2 * 1.5 - 1))))


def broken(text: str, change: Any) -> str:
    raw = json.loads(text)
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(probe=2), "has version 2; this program reads 1: train it again"),
        (lambda raw: raw.pop("probe"), "is not a probe; train one"),
        (lambda raw: raw.pop("delimiter"), r"is not a whole probe \(delimiter: "),
        (lambda raw: raw.update(delimiter=""), "the delimiter is empty"),
        (lambda raw: raw["heads"].pop("text"), "there is no classifier for text alone"),
        (lambda raw: raw["heads"]["text"]["features"].pop("steps"), "other features than this program knows"),
        (lambda raw: raw["heads"].update(more=raw["heads"]["text"]), "other features than this program knows"),
        (lambda raw: raw["heads"]["text"]["biases"].append(1.0), "biases, and as many weights"),
        (lambda raw: raw["heads"]["text"].update(offset=float("nan")), "must be finite"),
        (lambda raw: raw["heads"]["text"]["features"]["steps"].update(scale=0), "scales must be above 0"),
        (lambda raw: raw["heads"]["text"]["features"]["steps"].update(mean="x"), "is not a whole probe"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(probe: TrainedPRM, change: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text(broken(probe.text(), change), encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        make_scorer(str(tmp_path / "probe.json"))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Cannot read the probe .*nowhere\.json: No such file"):
        make_scorer(str(tmp_path / "nowhere.json"))
    for content in ("{", "[1]", "", "\x00"):
        (tmp_path / "other.json").write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=r"other\.json is not a probe"):
            make_scorer(str(tmp_path / "other.json"))
    with pytest.raises(UnknownName, match=r"FILE\.json"):
        make_scorer("probe")


def test_nothing_is_spent_on_a_probe_that_cannot_be_used(tmp_path: Path) -> None:
    def reply(request: Request, child: int, rng: np.random.Generator) -> str:
        raise AssertionError

    with pytest.raises(UsageError, match="Cannot read the probe"):
        run(solve_async(problem(), "best_of_n", model=ScriptedEngine(reply), verifier=str(tmp_path / "no.json")))


def test_scoring_needs_numpy_only(probe: TrainedPRM, tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text(probe.text(), encoding="utf-8")
    code = (
        "import sys; from outthink.rewards.making import make_scorer; "
        "found = make_scorer('probe.json').chance('What is 1 + 1?', [('1 + 1 = 2', None)]); "
        "assert 0 < found < 1; "
        "print([name for name in ('sklearn', 'joblib', 'scipy', 'threadpoolctl') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown == "[]\n"


# ---- scoring --------------------------------------------------------------------------------------------------------


def score(probe: TrainedPRM, *paths: Sequence[Candidate]) -> list[float | None]:
    return asyncio.run(probe.score(problem(), [tuple(path) for path in paths]))


def segment(text: str, *logprobs: float) -> Candidate:
    return Candidate(address=("m", 0, 0), text=text, logprobs=logprobs or None)


def test_a_run_does_not_go_on_with_a_probe_that_was_trained_again(probe: TrainedPRM, tmp_path: Path) -> None:
    file = tmp_path / "probe.json"

    def go() -> None:
        one = Example(problem=problem(), gold=("2",))
        options: dict[str, Any] = {"store": tmp_path / "run", "sampling": Sampling(max_tokens=20)}
        engine = ScriptedEngine(lambda *_: "#### 2")
        run(bench([one], SelfConsistency(n=1), model=engine, verifier=str(file), **options))

    file.write_text(probe.text(), encoding="utf-8")
    go()
    go()
    file.write_text(replace(probe, trained={**probe.trained, "seed": 8}).text(), encoding="utf-8")
    with pytest.raises(UsageError, match="verifier"):
        go()


def test_paths_are_scored_by_what_is_known_of_them(probe: TrainedPRM) -> None:
    def by(head: str, steps: Steps | None) -> float:
        assert steps is not None
        known = features(problem().question, steps)
        return float(probe.heads[head](np.array([known[name] for name in HEADS[head]])))

    parts = segment("1 + 1 = 2\n", -0.5, -0.1), segment("#### 2", -0.2)
    whole = segment("1 + 1 = 2\n#### 2", -0.5, -0.1, -0.2)
    mute = segment("1 + 1 = 2\n#### 2")
    scores = score(probe, parts, (whole,), (mute,), (segment(" \n", -1.0),), ())
    assert scores == [
        by("steps", cut([("1 + 1 = 2\n", [-0.5, -0.1]), ("#### 2", [-0.2])], "\n")),
        by("whole", cut([("1 + 1 = 2\n#### 2", [-0.5, -0.1, -0.2])], "\n")),
        by("text", cut([("1 + 1 = 2\n#### 2", None)], "\n")),
        None,
        None,
    ]
    assert len({value for value in scores if value is not None}) == 3
    assert all(value is None or 0 < value < 1 for value in scores)


def test_a_step_that_was_cut_at_its_cap_goes_on_in_the_next_segment(probe: TrainedPRM) -> None:
    cut_off = [segment("1 + ", -0.5), segment("1 = 2\n", -0.1)]
    assert score(probe, cut_off) == score(probe, [segment("1 + 1 = 2\n", -0.5, -0.1)])


def talk(request: Request, child: int, rng: np.random.Generator) -> Completion:
    """A sum in lines, which follows from its first line, with logprobs that follow from the text before each token."""
    first = request.prefix_text.split("\n")[0] or f"Take {rng.integers(3)}."
    whole = "\n".join([first, *(f"{place} + {first[5]} = {place + int(first[5])}" for place in range(3)), "#### 3"])
    text = whole[len(request.prefix_text) :]
    ends = [text.find(stop) + len(stop) for stop in request.stop if stop in text]
    text = text[: min(ends)] if ends else text
    start = len(request.prefix_text)
    return Completion(
        text=text,
        tokens=len(text),
        token_ids=tuple(map(ord, text)),
        logprobs=tuple(-((start + place) * 37 % 101) / 50 for place in range(len(text))),
        finish="stop" if ends else "eos",
    )


def test_training_and_searching_see_the_same_features(probe: TrainedPRM, tmp_path: Path) -> None:
    """What a pool says of the beginnings of its samples is what live candidates of a search say."""
    asked = Problem(id="p", messages=(Message(content="What is 1 + 2?"),))
    run(record_pool([Example(asked, ("3",))], n=8, model=ScriptedEngine(talk), path=tmp_path / "pool.jsonl"))
    recording = read_recording(tmp_path / "pool.jsonl")
    assert recording.clear
    told = {}
    for solution, _ in recording.samples[0]:
        for steps in prefixes(solution, "\n"):
            told["\n".join(steps.texts)] = features(recording.questions[0], steps)
    trace: Trace = run(
        solve_async(asked, Rebase(width=6, delimiter="\n", balance=1e9), model=ScriptedEngine(talk), prm=probe)
    )
    by_id = {candidate.id: candidate for candidate in trace.candidates}
    seen = {}
    for candidate in trace.candidates:
        segments = path_of(candidate, by_id)
        steps_now = cut([(one.text, one.logprobs) for one in segments], probe.delimiter)
        assert steps_now is not None
        assert head_for(steps_now) == "steps"
        seen["\n".join(steps_now.texts)] = features(asked.question, steps_now)
    assert len(seen) == 15  # three first lines, each with four that follow
    assert told.keys() == seen.keys()
    for text, known in seen.items():
        assert known == pytest.approx(told[text], abs=1e-12)
    assert len(set(trace.rounds[-1].scores or ())) == 3


def test_a_whole_sample_is_scored_with_all_its_logprobs(probe: TrainedPRM) -> None:
    trace: Trace = run(
        solve_async(problem(), make_strategy("best_of_n", {"n": 4}), model=ScriptedEngine(talk), verifier=probe)
    )
    texts = [candidate.text for candidate in trace.candidates]
    lone = [probe.chance(problem().question, [(candidate.text, candidate.logprobs)]) for candidate in trace.candidates]
    assert list(trace.rounds[-1].scores or ()) == lone
    mute = [probe.chance(problem().question, [(text, None)]) for text in texts]
    assert mute != lone


def test_a_probe_that_reads_logprobs_needs_a_model_that_gives_them(probe: TrainedPRM) -> None:
    class Mute(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return EngineSpec(name="mute")

    engine = Mute(talk)
    with pytest.raises(UsageError, match="mute gives no token logprobs"):
        run(solve_async(problem(), "best_of_n", model=engine, verifier=probe))
    texts = replace(probe, heads={"text": probe.heads["text"]})
    assert run(solve_async(problem(), make_strategy("best_of_n", {"n": 2}), model=engine, verifier=texts)).answer == "3"


# ---- where tokens end -----------------------------------------------------------------------------------------------


class Bytes:
    """Tokens are groups of bytes; what they hold of a character in part is left out or a replacement character."""

    def __init__(self, tokens: Mapping[int, bytes], errors: str) -> None:
        self._tokens, self._errors = tokens, errors
        self.asked = 0

    async def decode(self, ids: Sequence[int]) -> str:
        self.asked += 1
        return b"".join(self._tokens[token] for token in ids).decode(errors=self._errors)

    async def encode(self, text: str) -> tuple[int, ...]:
        raise AssertionError


@pytest.mark.parametrize("errors", ["ignore", "replace"])
def test_tokens_that_share_characters_are_read_together(errors: str) -> None:
    data = "a ÷ 😀!\n".encode()
    tokens = [data[:1], data[1:3], data[3:5], data[5:7], data[7:9], data[9:]]  # " \xc3", "\xb7 ", "\xf0\x9f" ...
    engine = Bytes(dict(enumerate(tokens)), errors)
    ends = asyncio.run(TokenEnds(engine).locate(range(6), data.decode()))
    assert ends == [1, 2, 4, 4, 5, 7]
    assert asyncio.run(TokenEnds(engine).locate([0, 5], data.decode())) is None
    assert asyncio.run(TokenEnds(engine).locate([], "a")) is None


@pytest.mark.parametrize("errors", ["replace", "ignore"])
def test_one_split_character_does_not_ask_for_every_token(errors: str) -> None:
    tokens = {0: b"word ", 1: b"caf\xc3", 2: b"\xa9 ", 3: b"end"}
    engine = Bytes(tokens, errors)
    ids = [0] * 400 + [1, 2] + [0] * 400 + [3]
    text = "word " * 400 + "caf\u00e9 " + "word " * 400 + "end"
    ends = asyncio.run(TokenEnds(engine).locate(ids, text))
    assert ends is not None
    assert ends[399:403] == [2000, 2003, 2005, 2010]
    assert ends[-1] == len(text)
    assert engine.asked < 12


def test_each_token_is_asked_for_once() -> None:
    engine = Bytes({0: b"one ", 1: b"two", 2: b""}, "strict")
    ends = TokenEnds(engine)
    assert asyncio.run(ends.locate([0, 1, 2], "one two")) == [4, 7, 7]  # an end mark has no text
    assert asyncio.run(ends.locate([0, 0, 1], "one one two")) == [4, 8, 11]
    assert engine.asked == 3


def test_a_pool_says_where_its_tokens_end(tmp_path: Path) -> None:
    asked = Problem(id="p", messages=(Message(content="?"),))
    engine = ScriptedEngine(lambda request, child, rng: "é\n#### 1")
    run(record_pool([Example(asked, ("1",))], n=2, model=engine, path=tmp_path / "pool.jsonl"))
    (row,) = rows_of(tmp_path / "pool.jsonl")
    assert row["samples"][0]["ends"] == list(range(1, 9))

    class Plain(ScriptedEngine):
        @property
        def spec(self) -> EngineSpec:
            return replace(super().spec, powers=frozenset({"logprobs"}))

    engine = Plain(lambda request, child, rng: "é\n#### 1")
    run(record_pool([Example(asked, ("1",))], n=2, model=engine, path=tmp_path / "plain.jsonl"))
    assert rows_of(tmp_path / "plain.jsonl")[0]["samples"][0]["ends"] is None


# ---- measures -------------------------------------------------------------------------------------------------------

SCORES = [0.1, 0.4, 0.4, 0.8]
RIGHT = [False, True, False, True]


def test_measures_by_hand() -> None:
    assert auroc(SCORES, RIGHT) == pytest.approx(3.5 / 4)
    assert average_precision(SCORES, RIGHT) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert brier(SCORES, RIGHT) == pytest.approx((0.01 + 0.36 + 0.16 + 0.04) / 4)
    assert reliability(SCORES, RIGHT) == [(1, 0.1, 0.0), (2, 0.4, 0.5), (1, 0.8, 1.0)]
    assert calibration_error(SCORES, RIGHT) == pytest.approx((0.1 + 2 * 0.1 + 0.2) / 4)
    assert reliability([1.0], [True]) == [(1, 1.0, 1.0)]
    assert math.isnan(auroc(SCORES, [True] * 4))
    assert math.isnan(average_precision(SCORES, [False] * 4))
    assert math.isnan(calibration_error([], []))


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_those_of_others_and_weights_are_repetitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = np.round(rng.random(200), 2), rng.random(200) < 0.4
    counts = rng.integers(0, 4, size=(5, 200))
    for mine, theirs in (
        (auroc, metrics.roc_auc_score),
        (average_precision, metrics.average_precision_score),
        (brier, lambda right, scores: metrics.brier_score_loss(right, scores)),
    ):
        assert mine(scores, right) == pytest.approx(theirs(right, scores))
        repeated = [theirs(np.repeat(right, times), np.repeat(scores, times)) for times in counts]
        assert mine(scores, right, counts) == pytest.approx(repeated)


def test_pairs_within_groups() -> None:
    scores, right = [0.9, 0.1, 0.5, 0.5, 0.2, 0.3], [True, False, True, False, True, True]
    won, compared, places = wins(scores, right, [0, 0, 1, 1, 2, 2])
    assert (won.tolist(), compared.tolist(), places.tolist()) == ([1.0, 0.5], [1.0, 1.0], [0, 2])
    assert wins(scores, right, [0, 1, 2, 3, 4, 5])[0].tolist() == []
    whole = wins(scores, right, np.zeros(6))
    assert whole[0][0] / whole[1][0] == pytest.approx(auroc(scores, right))


def test_first_errors_and_their_f1() -> None:
    scores = np.array([[0.9, 0.4, 0.1], [0.9, 0.8, np.nan], [0.2, 0.9, np.nan], [0.9, 0.9, 0.3]])
    assert first_error(scores, 0.5).tolist() == [1, -1, 0, 2]
    assert first_error(scores, np.array([0.5, 0.15])[:, None, None]).tolist() == [[1, -1, 0, 2], [2, -1, -1, -1]]
    # of three with an error one is found, of one without it is seen that there is none
    f1, on_wrong, on_right = step_f1([1, -1, 0, 2], [1, -1, 1, 1])
    assert on_wrong == pytest.approx(1 / 3)
    assert on_right == 1
    assert f1 == pytest.approx(0.5)
    assert step_f1([0, 0], [1, -1])[0] == 0.0
    assert math.isnan(step_f1([0, 0], [1, 1])[0])
    weighted = step_f1([1, -1, 0, 2], [1, -1, 1, 1], [[1, 1, 1, 1], [3, 1, 0, 1]])
    assert weighted[1] == pytest.approx([1 / 3, 3 / 4])


def test_intervals_are_over_problems() -> None:
    """Copies of the same problems' examples do not make an interval narrower."""
    rng = np.random.default_rng(0)
    right, problems = rng.random(60) < 0.5, np.arange(60) // 3
    scores = right * 0.3 + rng.random(60)
    bootstrap = Bootstrap(20)
    once = bootstrap.estimate(lambda weights: auroc(scores, right, weights), problems)
    many = bootstrap.estimate(
        lambda weights: auroc(np.tile(scores, 5), np.tile(right, 5), weights), np.tile(problems, 5)
    )
    assert many == pytest.approx(once)
    assert once[1] < once[0] < once[2]


# ---- measuring ------------------------------------------------------------------------------------------------------


def test_on_a_pool_it_was_not_trained_on(probe: TrainedPRM, tmp_path: Path) -> None:
    measured = on_pool(probe, recorded(tmp_path / "new.jsonl", problems=30, seed=7))
    assert (measured.problems, measured.samples, measured.seen, measured.unclear) == (30, 4, 0, 0)
    assert list(measured.qualities) == [
        "probe: steps",
        "probe: whole",
        "probe: text",
        "confidence: step",
        "confidence: all",
    ]
    steps = measured.qualities["probe: steps"]
    assert steps.finished[0] > 0.95
    assert steps.auroc[0] > measured.qualities["confidence: step"].auroc[0]
    assert steps.calibration_error is not None
    assert steps.calibration_error < 0.15
    assert steps.bins is not None
    assert sum(n for n, _, _ in steps.bins) == steps.examples
    assert measured.qualities["confidence: all"].bins is None
    assert math.isnan(steps.depths[7])
    chosen = measured.selections
    assert chosen["coverage"].accuracy[0] >= chosen["best by probe: steps"].accuracy[0] > chosen["vote"].accuracy[0]
    assert chosen["vote"].minus_vote[0] == 0


def test_problems_it_was_trained_on_are_left_out(probe: TrainedPRM, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on all questions"):
        on_pool(probe, pool)
    mixed = write(tmp_path / "mixed.jsonl", rows_of(recorded(tmp_path / "new.jsonl", problems=10, seed=3)))
    old = [{**row, "id": f"old {row['id']}"} for row in rows_of(pool)[:4]]
    write(mixed, [*rows_of(mixed), *old])
    evaluation = evaluate(probe, [mixed])
    assert (evaluation.pools[str(mixed)].problems, evaluation.pools[str(mixed)].seen) == (10, 4)
    assert "4 problems were left out" in evaluation.sentences()[0]
    alone = on_pool(probe, tmp_path / "new.jsonl").qualities["probe: steps"]
    assert evaluation.pools[str(mixed)].qualities["probe: steps"].auroc[0] == alone.auroc[0]


def marked(path: Path, probe: TrainedPRM, count: int = 40) -> Path:
    """Solutions that loop in a way the probe has seen in wrong samples only."""
    rows = []
    for number in range(count):
        good = [f"Add {number} and 5.", f"{number} + 5 = {number + 5}"]
        end = f"#### {number + 5}"
        steps = [*good, "Let me see.", end] if number % 2 else [*good, end]
        label = 2 if number % 2 else -1
        rows.append({"id": f"m{number}", "question": f"What is {number} + 5?", "steps": steps, "label": label})
    return write(path, rows)


def test_first_errors_are_found_where_the_probe_knows_their_signs(probe: TrainedPRM, tmp_path: Path) -> None:
    path = marked(tmp_path / "marked.jsonl", probe)
    threshold = best_threshold(probe, path)
    measured = on_marked(probe, path, threshold=threshold)
    assert (measured.solutions, measured.wrong, measured.seen) == (40, 20, 0)
    assert measured.f1[0] > 0.9
    assert measured.auroc[0] > 0.8
    # what follows a first error is not counted: 3 steps of every solution
    assert sum(n for n, _, _ in measured.bins) == 120
    nothing = on_marked(probe, path, threshold=0.0)
    assert (nothing.f1[0], nothing.on_wrong[0], nothing.on_right[0]) == (0.0, 0.0, 1.0)


def test_a_threshold_is_fitted_on_another_file(probe: TrainedPRM, tmp_path: Path) -> None:
    one, two = marked(tmp_path / "one.jsonl", probe), marked(tmp_path / "two.jsonl", probe, count=20)
    evaluation = evaluate(probe, [one], fit_on=two)
    assert evaluation.marked[str(one)].threshold == best_threshold(probe, two)
    assert f"fitted on {two}" in evaluation.sentences()[-1]
    assert evaluation.plain()["threshold_fitted_on"] == str(two)
    with pytest.raises(UsageError, match=r"cannot be fitted on .* and measured there"):
        evaluate(probe, [one], fit_on=one)
    with pytest.raises(UsageError, match="is a pool"):
        evaluate(probe, [one], fit_on=recorded(tmp_path / "pool.jsonl"))


@pytest.mark.parametrize("label", [3, -2, "1", True, None])
def test_a_wrong_mark_is_named_by_its_line(probe: TrainedPRM, label: Any, tmp_path: Path) -> None:
    rows = rows_of(marked(tmp_path / "marked.jsonl", probe, count=3))
    rows[2]["label"] = label
    with pytest.raises(UsageError, match=r"Line 3 of .* is no marked solution"):
        evaluate(probe, [write(tmp_path / "marked.jsonl", rows)])
    with pytest.raises(UsageError, match="is empty"):
        evaluate(probe, [write(tmp_path / "none.jsonl", [])])


# ---- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def outthink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: main(words, capsys, monkeypatch)


def test_commands(outthink: Any, tmp_path: Path) -> None:
    recorded(Path("pool.jsonl"))
    recorded(Path("new.jsonl"), problems=12, seed=5)
    told = outthink("prm", "train", "pool.jsonl", "-o", "probe.json", "--delimiter", "\\n", "--folds", "3")
    assert told.code == 0
    assert "use it as --verifier probe.json or --prm probe.json" in told.out
    assert TrainedPRM.open("probe.json").delimiter == "\n"
    as_json = outthink("prm", "train", "pool.jsonl", "-o", "again.json", "--delimiter", "\\n", "--folds", "3", "--json")
    assert set(json.loads(as_json.out)["held_out"]) == {"steps", "whole", "text"}
    assert Path("again.json").read_bytes() == Path("probe.json").read_bytes()

    shown = outthink("prm", "eval", "probe.json", "new.jsonl", "--markdown")
    assert shown.code == 0
    assert "| probe: steps |" in shown.out
    assert "choosing among 4 samples" in shown.out
    assert "probe: steps" in outthink("prm", "eval", "probe.json", "new.jsonl").out
    evaluation = json.loads(outthink("prm", "eval", "probe.json", "new.jsonl", "--json").out)
    assert evaluation["pools"]["new.jsonl"]["problems"] == 12

    row = rows_of(Path("new.jsonl"))[0]
    row |= {"id": row["question"], "meta": {}}
    write(Path("one.jsonl"), [row])
    solved = ("solve", row["question"], "--model", "one.jsonl", "--strategy", "best_of_n", "--n", "4", "--json")
    assert json.loads(outthink(*solved, "--verifier", "probe.json").out)["answer"] is not None
    assert outthink(*solved, "--prm", "probe.json").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prm", "train", "pool.jsonl", "-o", "probe.txt"), "Cannot write probe.txt: name a .json file"),
        (("prm", "train", "pool.jsonl", "-o", "no/probe.json"), "Cannot write no/probe.json"),
        (("prm", "train", "nowhere.jsonl"), "Cannot read nowhere.jsonl"),
        (("prm", "eval", "nowhere.json", "pool.jsonl"), "Cannot read the probe nowhere.json"),
        (("prm", "train", "pool.jsonl", "--model", "pool.jsonl"), "does not turn tokens into text"),
    ],
)
def test_one_sentence_for_each_mistake(outthink: Any, words: tuple[str, ...], said: str) -> None:
    recorded(Path("pool.jsonl"), problems=4)
    ended = outthink(*words)
    assert ended.code == 2
    assert ended.err.startswith("outthink: ")
    assert said in ended.err


def test_a_note_says_what_is_lacking(outthink: Any) -> None:
    recorded(Path("pool.jsonl"), ends=False)
    told = outthink("prm", "train", "pool.jsonl", "--delimiter", "\\n", "--folds", "2")
    assert "it is not known which logprobs belong to which step; give --model" in told.err


def test_sampling_again_does_not_mind_ends(tmp_path: Path) -> None:
    """A pool with ends is played back like any other."""
    from outthink.models import open_engine

    asked = Problem(id="p", messages=(Message(content="?"),))
    engine = ScriptedEngine(talk)
    run(record_pool([Example(asked, ("3",))], n=3, model=engine, path=tmp_path / "pool.jsonl", sampling=Sampling()))
    again = open_engine(str(tmp_path / "pool.jsonl"))
    assert run(solve_async(asked, SelfConsistency(n=3), model=again)).answer == "3"
