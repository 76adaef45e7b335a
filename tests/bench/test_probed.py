"""Pools with answers forced on the way: how they are recorded, read and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.bench.pool import record_pool
from outthink.errors import EngineError, UsageError
from outthink.models.engine import Request
from outthink.models.recorded import RecordedEngine
from outthink.models.scripted import ScriptedEngine
from outthink.records.pools import FORCED_TOKENS, read_pool
from outthink.reports.replay import replay_pool
from outthink.tasks.example import Example
from outthink.types import Message, Problem, Sampling
from tests.tools.server import ALL, Ask, Server, engine_on
from tests.tools.shared import shared
from tests.tools.virtual import run

FORCE = "\n</think>\n#### "
LENGTHS = [15, 45, 60, 130]


def example() -> list[Example]:
    return [Example(Problem(id="p", messages=(Message(content="3 + 4?"),)), ("7",))]


def reply(request: Request, child: int, rng: np.random.Generator) -> str:
    """The k-th thought has its own length; what is forced is 5 at first, then 7."""
    if request.address[1] == "probe":
        thought = request.prefix_text.removesuffix(FORCE)
        assert thought != request.prefix_text
        return f"{5 if len(thought) <= 20 else 7}\nand more"
    number = child if request.address[1] == 0 else int(request.address[2])
    text = "x" * (LENGTHS[number] - 6) + f"#### {7 + number % 2}"
    return text[len(request.prefix_text) :]


def record(path: Path, engine: Any = None, **options: Any) -> dict[str, Any]:
    options = {"n": 4, "probe_every": 20, "forced": FORCE, "sampling": Sampling(max_tokens=100), **options}
    run(record_pool(example(), model=engine or ScriptedEngine(reply), path=path, **options))
    (line,) = path.read_text().splitlines()
    row: dict[str, Any] = json.loads(line)
    return row


def test_each_sample_is_whole_and_has_an_answer_after_each_piece(tmp_path: Path) -> None:
    row = record(tmp_path / "pool.jsonl")
    assert row["probe_every"] == 20
    assert row["meta"]["forced"] == FORCE
    samples = row["samples"]
    assert [one["tokens"] for one in samples] == [15, 45, 60, 100]
    assert [one["finish"] for one in samples] == ["eos", "eos", "eos", "length"]
    assert [one["probes"] for one in samples] == [[], ["5", "7"], ["5", "7"], ["5", "7", "7", "7", "7"]]
    assert [one["correct"] for one in samples] == [True, False, True, False]
    assert all(len(one["token_ids"]) == len(one["logprobs"]) == one["tokens"] for one in samples)
    assert "".join(map(chr, samples[1]["token_ids"])) == samples[1]["text"] == "x" * 39 + "#### 8"
    assert samples[1]["probe_tokens"] == [2, 2]
    assert row["prompt_tokens"] == len("3 + 4?")
    assert RecordedEngine.open(tmp_path / "pool.jsonl").spec.name == "recorded:scripted"


def test_what_was_recorded_is_read_with_its_probes(tmp_path: Path) -> None:
    record(tmp_path / "pool.jsonl")
    (problem,) = read_pool(tmp_path / "pool.jsonl").problems
    assert problem.probes is not None
    assert problem.right is not None
    assert (problem.probes.every, problem.probes.tokens) == (20, 2.0)
    named = {answer: bool(right) for answer, right in zip(problem.answers, problem.right, strict=True)}
    assert named == {"7": True, "8": False, "5": False}
    assert [problem.answers[key] for key in problem.probes.answers[3]] == ["5", "7", "7", "7", "7"]


def test_a_recording_is_gone_on_with_only_in_the_same_way(tmp_path: Path) -> None:
    record(tmp_path / "pool.jsonl")
    with pytest.raises(UsageError, match="probe_every"):
        record(tmp_path / "pool.jsonl", probe_every=30)


def test_a_server_that_continues_a_text_can_be_recorded(tmp_path: Path) -> None:
    def thinker(ask: Ask) -> str:
        return "7" if ask.prefix.endswith("#### ") else "so so " * 30 + "#### 7"

    async def go() -> None:
        async with Server(thinker) as server:
            engine = engine_on(server, ALL)
            await record_pool(
                example(),
                n=2,
                probe_every=10,
                model=engine,
                path=tmp_path / "pool.jsonl",
                sampling=Sampling(max_tokens=30),
            )
            await engine.close()

    run(go())
    row = json.loads((tmp_path / "pool.jsonl").read_text())
    assert all(one["probes"] == ["7"] * (one["tokens"] // 10) for one in row["samples"])
    assert any(one["probes"] for one in row["samples"])


@pytest.mark.parametrize(
    ("options", "match"),
    [({"probe_every": 0}, "probe-every"), ({"probe_every": 5, "until": 2}, "not both")],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        record(tmp_path / "pool.jsonl", **options)


def test_a_model_that_cannot_continue_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    record(tmp_path / "pool.jsonl")
    with pytest.raises(UsageError, match="cannot continue"):
        record(tmp_path / "other.jsonl", RecordedEngine.open(tmp_path / "pool.jsonl"))


def pool(path: Path, **more: Any) -> Path:
    """Two thoughts of 1,000 tokens; the forced answers become right after the first piece."""
    samples = [{"answer": "7", "tokens": 1000, "probes": ["ERR", "7.0", "7"]} for _ in range(2)]
    path.write_text(json.dumps({"id": "a", "answer": "7", "probe_every": 250, "samples": samples, **more}) + "\n")
    return path


def test_a_foreign_pool_s_probes_are_compared_as_answers_are(tmp_path: Path) -> None:
    (problem,) = read_pool(pool(tmp_path / "pool.jsonl"), answer="math").problems
    assert problem.probes is not None
    assert problem.probes.tokens == FORCED_TOKENS
    assert problem.keys is not None
    assert (problem.probes.answers[:, 1:] == problem.keys[:, None]).all()
    assert (problem.probes.answers[:, 0] == -1).all(), "ERR is no answer"


def test_replay_charges_probes_and_says_how_much_they_are(tmp_path: Path) -> None:
    replayed = replay_pool(
        pool(tmp_path / "pool.jsonl"),
        ["self_consistency", "mrt_stop?every=250&k=1&window=2&tau=1&eps=1", "mrt_stop?every=250&k=1&tau=2&cap=500"],
        ns=[2],
        answer="math",
        subsamples=3,
    )
    stop, cap = list(replayed.curves.values())[2:]
    assert stop[2].accuracy == cap[2].accuracy == 1.0
    assert stop[2].tokens == 2 * (750 + 3 * FORCED_TOKENS)
    assert stop[2].probing == 2 * 3 * FORCED_TOKENS
    assert cap[2].tokens == 2 * (500 + FORCED_TOKENS)
    assert "of the tokens, probes" in replayed.markdown()
    assert replayed.plain()["curves"]["self_consistency"][0].get("probing") is None


def test_pieces_other_than_the_pool_s_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="every=250"):
        replay_pool(pool(tmp_path / "pool.jsonl"), ["parallel_probe"], ns=[2], answer="math", subsamples=3)


def test_a_forced_answer_that_failed_is_none_and_moves_no_other(tmp_path: Path) -> None:
    def failing(request: Request, child: int, rng: np.random.Generator) -> str | EngineError:
        if request.address[1:3] == ("probe", 3) and len(request.prefix_text.removesuffix(FORCE)) == 40:
            return EngineError("gone")
        return reply(request, child, rng)

    row = record(tmp_path / "pool.jsonl", ScriptedEngine(failing))
    assert row["samples"][3]["probes"] == ["5", None, "7", "7", "7"]
    assert row["samples"][3]["probe_tokens"] == [2, None, 2, 2, 2]
    (problem,) = read_pool(tmp_path / "pool.jsonl").problems
    assert problem.probes is not None
    assert problem.probes.answers[3, 1] == -1


def test_a_pool_without_probes_has_nothing_to_stop_thoughts_by(tmp_path: Path) -> None:
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"id": "a", "answer": "7", "samples": [{"answer": "7", "tokens": 9}] * 2}) + "\n")
    with pytest.raises(UsageError, match="--probe-every"):
        replay_pool(plain, ["parallel_probe"], ns=[2], subsamples=2)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"probe_every": 0}, "probe_every"),
        ({"samples": [{"answer": "7", "tokens": 5}]}, "probes"),
        ({"samples": [{"answer": "7", "probes": ["7"], "probe_tokens": 5}]}, "probe_tokens is no list"),
        ({"samples": [{"answer": "7", "probes": ["7"], "probe_tokens": {}}]}, "probe_tokens is no list"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, more: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=f"Line 1 .*{match}"):
        read_pool(pool(tmp_path / "pool.jsonl", **more))


def test_real_thoughts_are_replayed_in_seconds_and_right_probes_are_known() -> None:
    path = shared("data", "pool_probes_qwen3", "qwen3-4b_aime24.jsonl.gz")
    names = ["self_consistency", "race_vote", "mrt_stop?k=1&tau=2&cap=4000"]
    replayed = replay_pool(path, names, ns=[8], answer="math", subsamples=20)
    vote, race, cap = (replayed.curves[name][8] for name in names)
    assert race.tokens is not None
    assert vote.tokens is not None
    assert race.tokens.mean() < 0.75 * vote.tokens.mean()
    assert race.accuracy.mean() > vote.accuracy.mean() - 0.05
    assert cap.accuracy.mean() < vote.accuracy.mean() - 0.2, "4,000 tokens are too few for these questions"
