"""Laws on recorded data: every law says, draws and exports something; numbers are those of the law; refusals say why.

The data are made here, with fixed seeds, so nothing can fail by chance.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.cost import kinetics
from outthink.errors import Unidentified, UnknownName, UsageError
from outthink.laws.coverage import coverage_law, pass_at_k, union_coverage
from outthink.models.engine import Shape
from outthink.reports.analysis import Analysis, Cell, misfit
from outthink.reports.coverage import pool_coverage
from outthink.reports.figures import chart
from outthink.reports.laws.table import LAWS, analyse, needs, summary
from outthink.rewards.soundness import FLAWS
from tests.cli.test_cli import main

SHAPES = {
    "small": {"parameters": 10**6, "layers": 2, "hidden": 64, "kv_heads": 2, "head": 32},
    "large": {"parameters": 2 * 10**7, "layers": 4, "hidden": 128, "kv_heads": 2, "head": 32},
}
PROMPT = 10


def rows(model: str, problems: int = 24, samples: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """A pool of a small model that can never solve a third of the problems, or of a large one that is better."""
    rng = np.random.default_rng([seed, len(model)])
    problem_rows = []
    for problem in range(problems):
        hard = problem % 3 == 0
        rate = (0.0 if hard else 0.6) if model == "small" else (0.3 if hard else 0.9)
        right = rng.random(samples) < rate
        long = rng.integers(10, 100, samples) + 20 * hard
        problem_rows.append(
            {
                "id": f"What is {problem}+{problem}?",
                "question": f"What is {problem}+{problem}?",
                "answer": str(2 * problem),
                "prompt_tokens": PROMPT,
                "samples": [
                    {
                        "text": "x" * int(tokens),
                        "tokens": int(tokens),
                        "answer": str(2 * problem if correct else -1 - int(rng.integers(3))),
                        "correct": bool(correct),
                        "finish": "eos",
                    }
                    for correct, tokens in zip(right, long, strict=True)
                ],
                # yes with probability .8 of right and .3 of wrong samples
                "verifications": [
                    [float(rng.random() < (0.8 if correct else 0.3)) for _ in range(4)] for correct in right
                ],
                "meta": {"model": model, "shape": dict(SHAPES[model])},
            }
        )
    return problem_rows


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return path


def run_of(path: Path, credits: Sequence[float], tokens: Sequence[int], task: str) -> Path:
    """A run of one round a problem, with its answer right where the credit is 1."""
    path.mkdir()
    names = [row["id"] for row in rows("small")[: len(credits)]]
    (path / "run.json").write_text(json.dumps({"schema": 1, "task": task, "seed": 0, "problems": names, "shard": None}))
    lines = []
    for place, (name, credit, spent) in enumerate(zip(names, credits, tokens, strict=True)):
        answer = str(2 * place) if credit else "-1"
        trace = {
            "problem": name,
            "strategy": {"name": "greedy"},
            "seed": 0,
            "sampling": {},
            "budget": {},
            "resources": {},
            "candidates": [],
            "rounds": [{"answer": answer, "key": answer, "cost": {"tokens": spent}}],
            "calls": [
                {
                    "kind": "sample",
                    "role": "model",
                    "address": ["model", 0, 0],
                    "charged": {"completion": spent},
                    "cost": {"tokens": spent},
                }
            ],
            "stopped": "finished",
            "schema": 1,
        }
        lines.append(json.dumps({"problem": name, "credit": credit, "trace": trace, "schema": 1}))
    (path / "results.jsonl").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "small.jsonl", rows("small"))
    write(folder / "large.jsonl", rows("large"))
    judges = {f"soundness?flaw={flaw}": [0.9, 0.1] * 4 for flaw in FLAWS}
    write(folder / "sound.jsonl", [row | {"scores": judges} for row in rows("large")])
    own = write(
        folder / "own.jsonl", [{key: row[key] for key in ("id", "question", "answer")} for row in rows("small")]
    )
    run_of(folder / "low", [0, 1, 0, 1, 0], [1000, 1000, 1000, 1000, 1000], str(own))
    run_of(folder / "high", [1, 1, 0, 0, 1], [2000, 4000, 2000, 2000, 1000], str(own))
    return folder


ASKED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "coverage": (("small.jsonl",), {"at": [64.0, 200.0]}),
    "passuntil": (("small.jsonl",), {}),
    "saturation": (("small.jsonl",), {"at": [16.0]}),
    "imperfect": (("small.jsonl",), {"at": [20.0]}),
    "genrm": (("small.jsonl",), {"verdict_cost": 0.5, "at": [8.0]}),
    "verification": (("small.jsonl", "large.jsonl"), {"at": [0.5]}),
    "soundness": (("sound.jsonl",), {}),
    "arise": (("low", "high"), {}),
    "regret": (("low", "high"), {"at": [1500.0, 3000.0]}),
    "length": (("small.jsonl", "large.jsonl"), {"at": [50.0]}),
    "crossover": (("small.jsonl", "large.jsonl"), {"at": [1e10]}),
    "kinetics": (("small.jsonl", "large.jsonl"), {"at": [1e9]}),
}


@pytest.fixture(scope="module")
def analysed(data: Path) -> Callable[[str], Analysis]:
    @lru_cache
    def analysis(name: str) -> Analysis:
        files, options = ASKED[name]
        return analyse(name, [data / file for file in files], **options)

    return analysis


def cell(analysis: Analysis, row: str, column: str) -> Cell:
    (value,) = [line[analysis.columns.index(column)] for line in analysis.rows if line[0] == row]
    assert isinstance(value, Cell)
    return value


def test_every_law_is_asked_here() -> None:
    assert set(ASKED) == set(LAWS)


@pytest.mark.parametrize("name", LAWS)
def test_a_law_says_what_it_is_and_needs(name: str) -> None:
    for line in (summary(name), needs(name)):
        assert line[0].isupper()
        assert line.endswith(".")
    options = inspect.signature(LAWS[name]).parameters
    assert set(ASKED[name][1]) <= set(options)


@pytest.mark.parametrize("name", LAWS)
def test_every_law_is_told_drawn_and_exported(name: str, analysed: Callable[[str], Analysis]) -> None:
    analysis = analysed(name)
    assert analysis.title
    assert analysis.rows
    assert len(analysis.markdown().splitlines()) == 2 + len(analysis.rows)
    assert analysis.table().row_count == len(analysis.rows)
    plain = json.loads(json.dumps(analysis.plain(), allow_nan=False))
    assert [list(row) for row in plain["rows"]] == [list(analysis.columns)] * len(analysis.rows)
    for sentence in analysis.sentences:
        assert sentence[-1] == "."
        assert "nan" not in sentence
    for value in (value for row in analysis.rows for value in row if isinstance(value, Cell)):
        if value.low is not None and value.high is not None and math.isfinite(value.value):
            assert value.low <= value.value <= value.high or name in ("imperfect", "length", "kinetics"), value
    drawn = json.dumps(chart(analysis.figure).to_dict())
    for axis in (analysis.figure.x, analysis.figure.y):
        assert axis.title in drawn
    assert any(series.mark != "vertical" for series in analysis.figure.series)


def test_the_same_seed_says_the_same(data: Path, analysed: Callable[[str], Analysis]) -> None:
    files, options = ASKED["genrm"]
    assert analyse("genrm", [data / file for file in files], **options).plain() == analysed("genrm").plain()


# ------------------------------------------------------------------------------- the numbers are those of the laws


def counts(model: str) -> tuple[list[int], list[int]]:
    pool = rows(model)
    return [len(row["samples"]) for row in pool], [sum(sample["correct"] for sample in row["samples"]) for row in pool]


def test_coverage_is_that_of_the_law(analysed: Callable[[str], Analysis]) -> None:
    n, c = counts("small")
    law = coverage_law(n, c)
    analysis = analysed("coverage")
    assert cell(analysis, "a", "small.jsonl").value == law.law.a
    assert cell(analysis, "b", "small.jsonl").value == law.law.b
    assert cell(analysis, "pass@1", "small.jsonl").value == pytest.approx(pass_at_k(n, c, 1).mean())
    assert cell(analysis, "law at 64, if it is right", "small.jsonl").value == pytest.approx(float(law.at(64)))
    half = (1 + pass_at_k(n, c, 8).mean()) / 2
    needed, interval = (
        cell(analysis, "samples for half of the rest, if it is right", "small.jsonl"),
        law.samples_interval(half),
    )
    assert [needed.value, needed.low, needed.high] == [law.samples(half), float(interval.low), float(interval.high)]
    (points,) = [
        series for series in analysis.figure.series if series.name == "small.jsonl" and series.mark == "points"
    ]
    assert points.x == [1, 2, 4, 8]
    assert points.y == pytest.approx([pass_at_k(n, c, k).mean() for k in (1, 2, 4, 8)])
    assert any("200 is more than ten times the 8 samples" in line for line in analysis.sentences)
    assert not any("64 is more than" in line for line in analysis.sentences)
    assert any("the law of k up to 4 alone says" in line for line in analysis.sentences)


def test_samples_of_several_models_and_copies_are_remarked(data: Path) -> None:
    def of_models(row: dict[str, Any]) -> None:
        for place, sample in enumerate(row["samples"]):
            sample["model"] = str(place)

    several = changed(data, of_models)
    analysis = analyse("coverage", [several])
    assert cell(analysis, "pass@1", several.name).value == pytest.approx(pass_at_k(*counts("small"), 1).mean())
    assert any("those of several models" in line for line in analysis.sentences)
    assert not any("copies" in line for line in analysis.sentences)
    copied = changed(data, lambda row: all_of(row, text="the very same long text, as a model writes it at no heat"))
    analysis = analyse("coverage", [copied])
    problems = len(rows("small"))
    assert any(f"in {problems} of {problems} problems all samples have one" in line for line in analysis.sentences)
    assert "they are copies" in pool_coverage(copied).sentence("x")


def test_what_knowing_the_rates_and_two_models_are_worth(data: Path) -> None:
    analysis = analyse("coverage", [data / "small.jsonl", data / "large.jsonl"])
    assert any("shared out by the rates that 4 others show" in line for line in analysis.sentences)
    (together,) = [line for line in analysis.sentences if "samples from each of the 2" in line]
    pairs = [counts("small"), counts("large")]
    n, c = (np.stack([pair[place] for pair in pairs], axis=-1) for place in (0, 1))
    assert f"solve {100 * union_coverage(n, c, [4, 4]).mean():.1f}% " in together


def test_coverage_by_sound_reasons(data: Path) -> None:
    """Every other right answer has sound reasons."""

    def unsound(row: dict[str, Any]) -> None:
        row.pop("verifications")
        row["scores"] = {"soundness": [float(k % 2) for k, _ in enumerate(row["samples"])]}

    analysis = analyse("coverage", [changed(data, unsound)])
    (told,) = [line for line in analysis.sentences if "not sound" in line]
    n, _ = counts("small")
    sound = [sum(one["correct"] for one in row["samples"][1::2]) for row in rows("small")]
    assert f"pass@1 is {100 * pass_at_k(n, sound, 1).mean():.1f}%" in told


def test_regret_of_answers_that_were_forced(tmp_path: Path) -> None:
    """Two thoughts: one is right from its second probe on, the other never; both end at 30 tokens."""
    probed = {"id": "p", "answer": "4", "probe_every": 10}
    probed["samples"] = [
        {"answer": "4", "tokens": 30, "probes": ["1", "4"], "probe_tokens": [0, 0]},
        {"answer": "5", "tokens": 30, "probes": ["ERR", "5"], "probe_tokens": [0, 0]},
    ]
    path = write(tmp_path / "probes.jsonl", [probed, {**probed, "id": "q"}])
    analysis = analyse("regret", [path], at=[10.0, 20.0, 30.0], answer="math")
    assert [row[2].value for row in analysis.rows] == [0.0, 0.5, 0.5]  # type: ignore[union-attr]
    path.write_text(json.dumps({"id": "p", "probe_every": 10, "samples": []}) + "\n")
    with pytest.raises(UsageError, match=r"Line 1 of .* has no samples"):
        analyse("regret", [path])


def test_passuntil_brackets_the_average(analysed: Callable[[str], Analysis]) -> None:
    analysis = analysed("passuntil")
    worst, average, best = (
        cell(analysis, row, "small.jsonl").value for row in ("worst of all", "average", "best of all")
    )
    n, c = counts("small")
    assert best == pytest.approx(pass_at_k(n, c, 8).mean())
    assert worst <= average <= best
    assert any("8 problems were never solved" in line for line in analysis.sentences)


def test_saturation_finds_the_share_that_can_be_solved(analysed: Callable[[str], Analysis]) -> None:
    """Two thirds of the problems have rate .6: eight samples miss one of these 16 with probability 16 * .4^8 = 1%."""
    analysis = analysed("saturation")
    ceiling = cell(analysis, "ceiling, if the law is right", "some sample is right, many rates")
    assert ceiling.value == pytest.approx(2 / 3, abs=0.01)
    assert cell(analysis, "rate", "some sample is right, many rates").value == pytest.approx(0.6, abs=0.15)


def test_arise_by_hand(analysed: Callable[[str], Analysis]) -> None:
    """A gain at twice the tokens .5, twice no change, a loss at twice the tokens -2, a gain at the same 1: mean -.1."""
    analysis = analysed("arise")
    assert analysis.sentences[0].startswith("ARISE -0.1 ")
    assert "over 5 questions, from -2 to 1" in analysis.sentences[0]
    assert "2 are better at the last level than at the first, 1 worse" in analysis.sentences[1]
    assert cell(analysis, "high", "tokens").value == 2200
    assert (cell(analysis, "low", "accuracy").value, cell(analysis, "high", "accuracy").value) == (0.4, 0.6)


def test_arise_of_a_pool_has_a_vote_at_each_level(data: Path) -> None:
    analysis = analyse("arise", [data / "small.jsonl"])
    assert [row[0] for row in analysis.rows] == [f"vote of {n}" for n in (1, 2, 4, 8)]
    tokens = [sum(sample["tokens"] for sample in row["samples"]) for row in rows("small")]
    assert cell(analysis, "vote of 8", "tokens").value == pytest.approx(PROMPT + np.mean(tokens))
    assert cell(analysis, "vote of 1", "tokens").value == pytest.approx(PROMPT + np.mean(tokens) / 8)
    n, c = counts("small")
    assert cell(analysis, "vote of 1", "accuracy").value == pytest.approx(pass_at_k(n, c, 1).mean())


def test_regret_by_hand(analysed: Callable[[str], Analysis]) -> None:
    """Of five, `low` is right on two from 1,000 tokens on; `high` on one each from 1,000, from 2,000 and from 4,000."""
    analysis = analysed("regret")
    told = [[value.value if isinstance(value, Cell) else value for value in row] for row in analysis.rows]
    assert told == [
        ["low", 1500, pytest.approx(0.4), pytest.approx(1 - 0.4 * 500 / 1500), 1.0],
        ["low", 3000, pytest.approx(0.4), pytest.approx(1 - 0.4 * 2000 / 3000), 1.0],
        ["high", 1500, pytest.approx(0.2), pytest.approx(1 - 0.2 * 500 / 1500), pytest.approx(0.2)],
        ["high", 3000, pytest.approx(0.4), pytest.approx(1 - 0.2 * (2000 + 1000) / 3000), pytest.approx(0.8)],
    ]
    assert "low: anytime accuracy 40.0%" in analysis.sentences[0]
    assert analysis.sentences[-1].startswith("high minus low: -10.0 ")


def test_regret_of_a_pool_is_that_of_its_vote(data: Path) -> None:
    analysis = analyse("regret", [data / "small.jsonl"])
    accuracy, regret = (analysis.rows[-1][analysis.columns.index(name)] for name in ("accuracy", "regret"))
    assert isinstance(accuracy, Cell)
    assert isinstance(regret, Cell)
    assert 0.5 < accuracy.value < 2 / 3 + 0.01
    assert 1 - regret.value < accuracy.value, "the area under a rising curve is below its end"


def test_kinetics_counts_as_the_cost_model_does(analysed: Callable[[str], Analysis]) -> None:
    analysis = analysed("kinetics")
    one = [row for row in analysis.rows if row[2] == "small, n = 1"]
    shape = Shape(**SHAPES["small"])
    loads = [kinetics.recorded(shape, PROMPT, [sample["tokens"]]) for row in rows("small") for sample in row["samples"]]
    flops = float(np.mean([load.flops for load in loads]))
    effort = float(np.mean([load.eflops(kinetics.INTENSITIES[0]) for load in loads]))
    by_way = {row[0]: row for row in reversed(one)}  # the first of each way; what a larger budget buys comes later
    assert by_way["FLOPs"][1] == f"{flops:.3g}"
    assert by_way["eFLOPs at 562.5"][1] == f"{effort:.3g}"
    assert any("from" in line and "then large from" in line for line in analysis.sentences)
    told = [str(row[2]) for row in analysis.rows if row[0] == "FLOPs"]
    assert told == sorted(told, key=lambda option: option.startswith("large")), (
        "the large model is best when affordable"
    )


def test_shapes_may_be_given(data: Path, tmp_path: Path) -> None:
    """A pool that says nothing of its model takes name and shape from the model's folder."""
    config = tmp_path / "tiny" / "config.json"
    config.parent.mkdir()
    fields = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config.write_text(json.dumps({**fields, "model_type": "llama", "vocab_size": 100}), encoding="utf-8")
    pool = changed(data, lambda row: row.pop("meta"))
    analysis = analyse("kinetics", [pool], shape=[config])
    assert {str(row[2]).partition(",")[0] for row in analysis.rows} == {"tiny"}


def test_crossover_names_the_better_model(analysed: Callable[[str], Analysis]) -> None:
    analysis = analysed("crossover")
    assert cell(analysis, "no sample is right", "floor L of small").value == pytest.approx(1 / 3, abs=0.05)
    assert any("large is better" in line for line in analysis.sentences)


def test_verification_of_a_verifier_that_is_known(analysed: Callable[[str], Analysis]) -> None:
    """TPR .8 and TNR .7 by construction; 16 problems with 32 verdicts each have a standard error below .04."""
    analysis = analysed("verification")
    assert cell(analysis, "all", "TPR").value == pytest.approx(0.8, abs=0.12)
    assert cell(analysis, "all", "TNR").value == pytest.approx(0.7, abs=0.12)


def test_a_law_that_does_not_fit_says_so() -> None:
    measured = [Cell(0.5, "share", 0.4, 0.6), Cell(0.7, "share", 0.6, 0.8)]
    assert misfit("x", [1, 2], measured, [0.45, 0.75]) == []
    (told,) = misfit("x", [1, 2], measured, [0.2, 0.7])
    assert "At 1 it is outside" in told
    assert "30.0 points" in told


# ------------------------------------------------------------------------------------------------------ refusals


def changed(data: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    pool = rows("small")
    for row in pool:
        change(row)
    return write(data / "changed.jsonl", pool)


def two_samples(row: dict[str, Any]) -> None:
    del row["samples"][2:], row["verifications"][2:]


def all_of(row: dict[str, Any], **fields: Any) -> None:
    for sample in row["samples"]:
        sample.update(fields)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("coverage", lambda row: all_of(row, correct=False), "too hard or too easy"),
        ("coverage", two_samples, "three samples"),
        ("saturation", two_samples, "changed.jsonl: .* three samples or more"),
        ("saturation", lambda row: all_of(row, correct=False), "changed.jsonl: No question has both"),
        ("imperfect", lambda row: all_of(row, correct=True), "All samples are right"),
        ("imperfect", lambda row: row.update(verifications=[[0.0]] * 8), "No sample passes"),
        ("verification", lambda row: all_of(row, correct=True), "0 questions have both"),
        ("length", lambda row: all_of(row, correct=True), "all samples are right, or all wrong"),
        ("length", lambda row: all_of(row, tokens=7), "equally long"),
        ("length", lambda row: all_of(row, finish="length"), "changed.jsonl: All samples were cut off"),
        ("crossover", two_samples, "no sample is right: .* three different numbers"),
    ],
)
def test_what_data_cannot_identify(name: str, change: Callable[[dict[str, Any]], None], said: str, data: Path) -> None:
    pool = changed(data, change)
    files = [pool, data / "large.jsonl"] if name == "crossover" else [pool]
    with pytest.raises(Unidentified, match=said) as refused:
        analyse(name, files)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("coverage", lambda row: row.update(steps=[]), "build on each other"),
        (
            "saturation",
            lambda row: [sample.update(model=str(k)) for k, sample in enumerate(row["samples"])],
            "several models",
        ),
        ("imperfect", lambda row: row.pop("verifications"), "Say with --verifier.*has no verdicts"),
        ("imperfect", lambda row: row.update(scores={"other": [1.0] * 8}), "verdicts by other, verifications"),
        ("imperfect", lambda row: row.update(verifications=[[3.0]] * 8), "verdicts are from 0 to 1"),
        ("genrm", lambda row: all_of(row, answer=None), "no answers"),
        ("arise", lambda row: all_of(row, tokens=None), "no token counts"),
        ("regret", lambda row: all_of(row, tokens=None), "no token counts"),
        ("length", lambda row: all_of(row, tokens=None), "no token counts"),
        ("kinetics", lambda row: row.pop("prompt_tokens"), "how many tokens prompts"),
        ("kinetics", lambda row: row["meta"].pop("shape"), "--shape"),
        ("kinetics", lambda row: row["meta"]["shape"].pop("kv_heads"), "--shape"),
    ],
)
def test_what_files_do_not_hold(name: str, change: Callable[[dict[str, Any]], None], said: str, data: Path) -> None:
    with pytest.raises(UsageError, match=said):
        analyse(name, [changed(data, change)])


@pytest.mark.parametrize(
    ("name", "files", "options", "said"),
    [
        ("coverage", [], {}, "The law coverage needs files: Pools of"),
        ("coverage", ["low"], {}, "is a run directory"),
        ("coverage", ["small.jsonl"], {"verdict_cost": 1.0}, "has no option --verdict-cost"),
        ("genrm", ["small.jsonl"], {}, "needs --verdict-cost"),
        ("genrm", ["small.jsonl"], {"verdict_cost": -1.0}, "--verdict-cost: the ratio"),
        ("genrm", ["small.jsonl", "large.jsonl"], {}, "takes one pool"),
        ("crossover", ["small.jsonl"], {}, "compares two pools"),
        ("crossover", ["small.jsonl", "large.jsonl"], {"at": [1.0]}, "do not pay for one sample of large"),
        ("kinetics", ["small.jsonl"], {"at": [1.0]}, "do not pay for a single sample"),
        ("kinetics", ["small.jsonl", "large.jsonl"], {"shape": [Path("a")]}, "2 times, not 1"),
        ("arise", ["low", "small.jsonl"], {}, "is no run"),
        ("arise", ["low"], {}, "two at least"),
        ("verification", ["small.jsonl"], {"at": [2.0]}, "pass rates below 1"),
        ("length", ["small.jsonl"] * 3, {}, "not 3"),
    ],
)
def test_what_is_asked_wrongly(name: str, files: list[str], options: dict[str, Any], said: str, data: Path) -> None:
    with pytest.raises(UsageError, match=said):
        analyse(name, [data / file for file in files], **options)


def test_an_unknown_law_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'coverage'"):
        analyse("coverge", [Path("pool.jsonl")])


def test_runs_of_a_task_that_is_gone_cannot_be_graded_again(data: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [{"id": "x", "question": "x", "answer": "1"}])
    run = run_of(tmp_path / "run", [1, 1], [10, 10], str(other))
    with pytest.raises(UsageError, match="cannot be graded again"):
        analyse("regret", [run])


# --------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def outthink(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(data)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: main(words, capsys, monkeypatch)


def test_without_a_name_the_laws_are_listed(outthink: Any) -> None:
    shown = outthink("law")
    assert shown.code == 0
    for name in LAWS:
        assert f"\n{name} " in shown.out
    assert [row["name"] for row in json.loads(outthink("law", "--json").out)] == list(LAWS)


def test_the_command_prints_and_draws(outthink: Any, tmp_path: Path) -> None:
    figure = tmp_path / "a.svg"
    shown = outthink("law", "passuntil", "small.jsonl", "--figure", str(figure))
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("PassUntil, and average, best and worst of k\n")
    assert "never solved" in shown.out
    assert "best of k" in figure.read_text(encoding="utf-8")


def test_json_and_markdown(outthink: Any) -> None:
    plain = json.loads(outthink("law", "passuntil", "small.jsonl", "--json").out)
    average = next(row for row in plain["rows"] if row["quantity"] == "average")["small.jsonl"]
    n, c = counts("small")
    assert average["value"] == pytest.approx(pass_at_k(n, c, 1).mean())
    assert average["low"] < average["value"] < average["high"]
    shown = outthink("law", "passuntil", "small.jsonl", "--markdown").out
    assert shown.startswith("| quantity | small.jsonl |\n| --- | --- |\n")
    assert "\n- small.jsonl: 8 problems were never solved" in shown


def test_what_cannot_be_known_is_one_sentence_and_exit_2(outthink: Any, data: Path) -> None:
    pool = changed(data, lambda row: all_of(row, correct=False))
    shown = outthink("law", "coverage", str(pool), "--figure", "a.svg")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "outthink: changed.jsonl: A power law needs coverage strictly between 0 and 1 at two k at least; these "
        "problems are too hard or too easy.\n"
    )
    assert not (data / "a.svg").exists()


@pytest.mark.parametrize("at", ["x", "0", "-1", "1,", "nan", "inf"])
def test_budgets_are_numbers_above_0(at: str, outthink: Any) -> None:
    shown = outthink("law", "coverage", "small.jsonl", f"--at={at}")
    assert shown.code == 2
    assert "write numbers above 0" in shown.err


def test_a_figure_that_cannot_be_drawn_is_refused_before_anything_is_computed(outthink: Any) -> None:
    shown = outthink("law", "coverage", "not-there.jsonl", "--figure", "a.eps")
    assert shown.code == 2
    assert "ends in .svg, .png, .pdf or .html" in shown.err


def test_a_file_that_is_not_there_is_named(outthink: Any) -> None:
    shown = outthink("law", "coverage", "not-there.jsonl")
    assert shown.code == 2
    assert "not-there.jsonl" in shown.err
