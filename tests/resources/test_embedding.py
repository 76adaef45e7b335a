"""Embeddings: hashed n-grams, a sentence encoder behind a stand-in for its package, metering, and the search loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outthink.bench.run import bench
from outthink.driver import solve_async
from outthink.errors import BudgetExhausted, NothingCameBack, UnknownName, UsageError
from outthink.meter import Meter
from outthink.model import Model
from outthink.models.engine import Price
from outthink.models.scripted import ScriptedEngine
from outthink.resources.embedding import Embedder, Hashing, SentenceTransformer, Vectors, cosines, hashed, make_embedder
from outthink.rewards.scores import Scores
from outthink.rng import Rng
from outthink.strategies import Report
from outthink.strategies.search.loop import Level, Rounds, search
from outthink.strategies.search.rebase import Rebase
from outthink.tasks.example import Example
from outthink.types import Budget, Problem, Usage
from tests.cli.test_cli import main, write_pool
from tests.strategies.search.test_search import Counts, Prm, flaky, solved, steps
from tests.tools.toys import problem
from tests.tools.virtual import run

TEXTS = ["So 12 + 7 = 19.\n\n", "So 12 + 7 = 18.\n\n", "Divide both sides by x.", "", " \n\t", "a", "\ud800 \U0001f600"]


# ---- hashing --------------------------------------------------------------------------------------------------------


def grams(text: str, n: int) -> Counter[str]:
    text = " ".join(text.split())
    return Counter(text[start : start + k] for k in range(1, n + 1) for start in range(len(text) - k + 1))


def test_hashed_counts_have_the_cosines_of_the_counts() -> None:
    """With 2^15 buckets the error of a cosine has a standard deviation of about 2^-7.5 = 0.006: 0.03 is 5 of them."""
    texts = [text for text in TEXTS if text.strip()]
    exact = [grams(text, 3) for text in texts]
    vectors = hashed(texts, 2**15, 3)
    for one, first in zip(vectors, exact, strict=True):
        for other, second in zip(vectors, exact, strict=True):
            dot = sum(first[gram] * second[gram] for gram in first)
            norms = sum(c * c for c in first.values()) * sum(c * c for c in second.values())
            assert one @ other == pytest.approx(dot / norms**0.5, abs=0.03)


def test_a_vector_depends_on_its_text_alone_and_not_on_white_space() -> None:
    together = hashed(TEXTS, 64, 3)
    for text, row in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(hashed([text], 64, 3)[0], row)
        np.testing.assert_array_equal(hashed([f"\n {text.replace(' ', '   ')} "], 64, 3)[0], row)
    empty = [not text.strip() for text in TEXTS]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), np.where(empty, 0.0, 1.0))
    assert hashed([], 64, 3).shape == (0, 64)


def test_the_same_on_every_machine() -> None:
    vector = hashed(["ab"], 8, 3)[0] * 3**0.5
    np.testing.assert_allclose(vector, GOLDEN)
    assert hashed(["ab"], 1, 99)[0] == pytest.approx([np.sign(GOLDEN.sum())])  # there are no more than three n-grams


GOLDEN = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, -1.0])


def test_order_matters_from_two_characters_on() -> None:
    one, two = (hashed(["stop", "pots"], 4096, n) for n in (1, 2))
    assert one[0] @ one[1] == pytest.approx(1.0)
    assert two[0] @ two[1] == pytest.approx(4 / 7)  # four characters in common, and none of three pairs


def test_cosines() -> None:
    similarities = cosines([np.array([1.0, 0.0]), np.array([0.6, 0.8]), None, np.zeros(2), np.zeros(2), None])
    expected = np.eye(6)
    expected[0, 1] = expected[1, 0] = 0.6
    expected[3, 4] = expected[4, 3] = 1.0
    np.testing.assert_allclose(similarities, expected)
    np.testing.assert_array_equal(cosines([None, None]), np.eye(2))


# ---- by name --------------------------------------------------------------------------------------------------------


def test_an_embedder_by_name() -> None:
    assert make_embedder("hashing") == Hashing(dimensions=512, n=3)
    assert make_embedder("hashing?dimensions=1024&n=4") == Hashing(dimensions=1024, n=4)
    own = Hashing(n=2)
    assert make_embedder(own) is own
    assert make_embedder("outthink.resources.embedding:Hashing") == Hashing()


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ("hashng", UnknownName, "did you mean 'hashing'"),
        ("hashing?dimension=8", UnknownName, "did you mean 'dimensions'"),
        ("hashing?n=0", UsageError, "n must be at least 1, not 0"),
        ("hashing?n=many", UsageError, "hashing: n: "),
        ("nomodule:Name", UsageError, "nomodule"),
        ("math:pi", UsageError, "An embedder is a name, or an object with"),
        (3, UsageError, "An embedder is a name, or an object with"),
    ],
)
def test_what_is_no_embedder_is_one_sentence(given: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said) as raised:
        make_embedder(given)
    assert "\n" not in str(raised.value)


class StandIn:
    """The part of `sentence_transformers.SentenceTransformer` that is used; a word is a token, and at most 4 are read.

    Like the real one it cannot be used by two threads at once.
    """

    loaded: list[StandIn] = []  # noqa: RUF012 - emptied before every test
    gate = threading.Event()

    def __init__(self, name: str, *, local_files_only: bool) -> None:
        if name == "absent":
            raise OSError("not in the cache\nsecond line")
        assert local_files_only
        self.max_seq_length = 6
        self.default_prompt_name: str | None = "query"
        self.tokenizer: Any = self.Tokenizer() if name != "static" else types.SimpleNamespace()
        self.threads: list[str] = []
        self.busy = False
        self.loaded.append(self)

    class Tokenizer:
        truncation_side = "right"

        def __call__(self, texts: list[str], *, truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
            kept = slice(-max_length + 2, None) if self.truncation_side == "left" else slice(max_length - 2)
            assert truncation
            return {"input_ids": [[101, *map(len, text.split()[kept]), 102] for text in texts]}

    def encode(self, texts: list[str], *, show_progress_bar: bool) -> Any:
        assert not show_progress_bar
        assert self.default_prompt_name is None
        assert not self.busy
        self.busy = True
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(30)
        ids = self.tokenizer(texts, truncation=True, max_length=self.max_seq_length)["input_ids"]
        self.busy = False
        return np.array([[sum(row[1:-1]), row[-2]] for row in ids], dtype=np.float32)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn.loaded.clear()
    StandIn.gate.set()
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)


def test_an_encoder_is_loaded_once_and_reads_in_one_thread_beside_the_loop(package: None) -> None:
    embedder = make_embedder("sentence-transformers:math/bert")
    assert repr(embedder) == "SentenceTransformer(model='math/bert')"

    async def go() -> list[Vectors]:
        StandIn.gate.clear()
        reading = [asyncio.create_task(embedder.embed([f"{i}", "one three"])) for i in range(5)]
        await asyncio.sleep(0)
        StandIn.gate.set()  # while one reads, the loop lives
        return await asyncio.gather(*reading)

    embedded = asyncio.run(go())
    assert [vectors.tokens for vectors in embedded] == [3 + 4] * 5
    np.testing.assert_array_equal(embedded[0].values, [[1, 1], [8, 5]])
    (encoder,) = StandIn.loaded
    assert len(encoder.threads) == 5
    assert len(set(encoder.threads)) == 1
    assert encoder.threads[0].startswith("outthink-embed")


def test_of_a_long_text_the_end_is_read_and_only_that_is_charged(package: None) -> None:
    embedder = SentenceTransformer("math/bert")
    vectors = asyncio.run(embedder.embed(["a a a a a a bb ccc", "a a a a a a bb cccc"]))
    np.testing.assert_array_equal(vectors.values, [[7, 3], [8, 4]])
    assert vectors.tokens == 12


def test_an_encoder_that_cannot_be_had_is_one_sentence(package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"encoder 'absent' \(OSError: not in the cache\); fetch it first") as raised:
        make_embedder("sentence-transformers:absent")
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="encoder 'static'"):  # what it reads could not be counted
        make_embedder("sentence-transformers:static")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UsageError, match=r"needs the package sentence-transformers: pip install 'outthink\[embed\]'"):
        make_embedder("sentence-transformers:math/bert")


# ---- metered --------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """A vector of the length of the text and 1, at a token a word; remembers what it was asked."""

    seconds: float = 0.0
    fails: int = 0
    values: Any = None
    asked: list[list[str]] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        await asyncio.sleep(self.seconds)
        if len(self.asked) <= self.fails:
            raise OSError("out of memory")
        values = np.array([[len(text), 1.0] for text in texts]) if self.values is None else np.array(self.values)
        return Vectors(values, sum(len(text.split()) for text in texts))


def metered(reader: Any, budget: str = "1k-tokens") -> tuple[Embedder, Meter]:
    meter = Meter(Budget.parse(budget))
    return Embedder(reader, meter), meter


def test_a_text_is_read_once_and_charged_what_was_read() -> None:
    async def go() -> None:
        reader = Reader()
        embedder, meter = metered(reader)
        first = await embedder.embed(["one two", "three", "one two"])
        again = await embedder.embed(["three", "four five six"])
        assert reader.asked == [["one two", "three"], ["four five six"]]
        np.testing.assert_array_equal(first[0], first[2])
        np.testing.assert_array_equal(first[1], again[0])
        np.testing.assert_allclose(np.linalg.norm([*first, *again], axis=1), 1.0)
        kinds = [(call.kind, call.role, call.n, call.charged, call.seen, call.cost) for call in meter.calls]
        one, two = Usage(prompt=3), Usage(prompt=3)
        assert kinds == [
            ("embed", "embedder", 2, one, one, {"tokens": 3.0}),
            ("embed", "embedder", 1, two, two, {"tokens": 3.0}),
        ]
        assert [call.address for call in meter.calls] == [("embedder", 0, 0), ("embedder", 1, 0)]

    run(go())


def test_what_does_not_fit_is_not_read() -> None:
    async def go() -> None:
        reader = Reader()
        embedder, meter = metered(reader, "9-tokens")  # "one two" can have 7 tokens, and two marks
        assert len(await embedder.embed(["one two"])) == 1
        with pytest.raises(BudgetExhausted):
            await embedder.embed(["three four"])
        assert reader.asked == [["one two"]]
        assert meter.cost()["tokens"] == 2
        free, meter = metered(Hashing(), "1-tokens")  # reads no tokens
        assert len(await free.embed(["a long text"] * 9)) == 9
        assert [call.charged for call in meter.calls] == [Usage()]

    run(go())


def test_a_failure_costs_what_it_may_have_cost_and_is_tried_again() -> None:
    async def go() -> None:
        embedder, meter = metered(Reader(fails=1))
        with pytest.raises(NothingCameBack, match="The embedder failed: out of memory"):
            await embedder.embed(["one"])
        assert len(await embedder.embed(["one"])) == 1
        failed, worked = meter.calls
        assert (failed.outcome, failed.error) == ("failed", "OSError: out of memory")
        assert (failed.seen, failed.charged, failed.exact) == (Usage(), Usage(prompt=5), False)
        assert (worked.outcome, worked.charged, worked.exact) == ("ok", Usage(prompt=1), True)

    run(go())


def test_a_cancelled_reading_is_charged_and_not_seen() -> None:
    async def go() -> None:
        embedder, meter = metered(Reader(seconds=10))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await embedder.embed(["one"])
        (call,) = meter.calls
        assert (call.outcome, call.seen, call.charged, call.exact) == ("cancelled", Usage(), Usage(prompt=5), False)

    run(go())


@pytest.mark.parametrize("values", [[[1.0, np.nan]], [[np.inf, 1.0]], [1.0, 2.0], [[1.0], [2.0]], 3.0])
def test_what_is_no_vector_is_a_failure(values: Any) -> None:
    async def go() -> None:
        embedder, meter = metered(Reader(values=values))
        with pytest.raises(NothingCameBack, match="expected 1 rows of finite numbers"):
            await embedder.embed(["one"])
        assert meter.calls[0].outcome == "failed"

    run(go())


def test_vectors_do_not_change_their_length() -> None:
    async def go() -> None:
        reader = Reader()
        embedder, _ = metered(reader)
        await embedder.embed(["one"])
        reader.values = [[1.0, 2.0, 3.0]]
        with pytest.raises(NothingCameBack, match=r"of one length, got the shape \(1, 3\)"):
            await embedder.embed(["two"])

    run(go())


def test_a_text_without_content_has_a_vector_of_zeros() -> None:
    async def go() -> None:
        embedder, _ = metered(Hashing())
        assert not (await embedder.embed(["\n\n"])).any()

    run(go())


# ---- in the loop ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Looked:
    """REBASE that also looks at the vectors of every level."""

    embed: Any
    levels: list[Level] = field(default_factory=list)

    def allot(self, level: Level) -> Counts:
        self.levels.append(level)
        return Rebase().allot(level)

    async def run(
        self, problem: Problem, report: Report, *, model: Model, prm: Scores, embedder: Embedder, rng: Rng
    ) -> None:
        await search(
            Rounds(self.allot, 6, max_rounds=25),
            problem,
            report,
            model=model,
            prm=prm,
            rng=rng,
            max_step_tokens=64,
            delimiter="\n\n",
            embedder=embedder,
            embed=self.embed,
        )


@pytest.mark.parametrize("embed", ["step", "path"])
def test_open_nodes_get_the_vector_of_their_step_or_of_what_was_written_so_far(embed: str) -> None:
    reader, looked = Reader(), Looked(embed=embed)
    trace = solved(looked, embedder=reader, seed=1)
    assert len(looked.levels) >= 3
    asked = []
    for level in looked.levels:
        for node in level.nodes:
            path = [step.candidate.text for step in node.path]
            text = path[-1] if embed == "step" else "".join(path)
            asked.append(text)
            assert node.vector is not None
            np.testing.assert_allclose(node.vector, np.array([len(text), 1]) / np.hypot(len(text), 1))
    once = list(dict.fromkeys(asked))
    assert [text for batch in reader.asked for text in batch] == once
    assert not any("####" in text or "1+1" in text for text in once)  # neither finished paths nor the question
    plain = solved(Rebase(width=6, max_step_tokens=64), seed=1)
    assert trace.candidates == plain.candidates
    assert trace.usage.tokens == plain.usage.tokens + sum(len(text.split()) for text in once)


def test_without_an_embedder_that_works_nodes_have_no_vectors() -> None:
    broken = Looked(embed="step")
    trace = solved(broken, embedder=Reader(fails=99), seed=1)
    assert {node.vector is None for level in broken.levels for node in level.nodes} == {True}
    assert trace.stopped == "finished"
    assert trace.candidates == solved(Rebase(width=6, max_step_tokens=64), seed=1).candidates
    failed = [call for call in trace.calls if call.kind == "embed"]
    assert {call.outcome for call in failed} == {"failed"}
    assert len(failed) == len(broken.levels)


def test_failed_children_have_no_vectors_to_wait_for() -> None:
    looked = Looked(embed="path")
    assert solved(looked, flaky(steps, 0.3), embedder=Reader(), seed=2).stopped == "finished"
    assert all(node.vector is not None for level in looked.levels for node in level.nodes)


# ---- from outside ---------------------------------------------------------------------------------------------------


def test_solve_uses_the_embedder_it_is_given(package: None) -> None:
    looked = Looked(embed="step")
    trace = solved(looked, embedder="sentence-transformers:math/bert", seed=1)
    read = sum(call.charged.prompt for call in trace.calls if call.kind == "embed")
    assert read > 0
    assert len(StandIn.loaded) == 1
    default = Looked(embed="step")
    solved(default, seed=1)
    for node in default.levels[0].nodes:
        assert node.vector is not None
        np.testing.assert_allclose(node.vector, hashed([node.candidate.text], 512, 3)[0])


def test_a_budget_that_an_encoder_would_not_be_counted_in_is_refused() -> None:
    engine = ScriptedEngine(steps, price=Price(prompt=1, completion=1))
    for given, refused in ((Reader(), True), (Hashing(), False)):
        running = solve_async(
            problem(), Looked(embed="step"), model=engine, prm=Prm(), embedder=given, budget="9usd", seed=1
        )
        if refused:
            with pytest.raises(UsageError, match="A budget in usd cannot be kept: what the embedder costs"):
                run(running)
        else:
            assert run(running).stopped == "finished"
    plain = solve_async(problem(), Rebase(width=2), model=engine, prm=Prm(), embedder=Reader(), budget="9usd")
    assert run(plain).stopped == "finished"  # it asks no embedder


def test_a_run_goes_on_with_the_same_embedder_only(tmp_path: Path, package: None) -> None:
    examples = [Example(problem(name), ("2",)) for name in ("a", "b")]

    def go(embedder: Any) -> Any:
        return run(
            bench(
                examples,
                Looked(embed="step"),
                store=tmp_path / "run",
                model=ScriptedEngine(steps),
                prm=Prm(),
                embedder=embedder,
            )
        )

    assert go("sentence-transformers:math/bert").problems == 2
    assert len(StandIn.loaded) == 1  # for both problems
    assert go("sentence-transformers:math/bert").problems == 2
    for other, now in (("hashing", "'hashing'"), (None, "None"), (Hashing(n=2), r"'Hashing\(dimensions=512, n=2\)'")):
        with pytest.raises(UsageError, match=f"embedder is 'sentence-transformers:math/bert' there, {now} now"):
            go(other)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--embedder", "hashng"), "did you mean 'hashing'?"),
        (("--embedder", "hashing?n=0"), "n must be at least 1"),
        (("--embedder", "sentence-transformers:x"), "pip install 'outthink[embed]'"),
    ],
)
@pytest.mark.parametrize("command", ["solve", "bench"])
def test_the_command_line_says_what_is_wrong(
    command: str,
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    write_pool(Path("pool.jsonl"))
    Path("own.jsonl").write_text('{"question": "What is 2+2?", "answer": "4"}\n')
    what = "What is 2+2?" if command == "solve" else "own.jsonl"
    result = main([command, what, "--model", "pool.jsonl", *words], capsys, monkeypatch)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_the_command_line_passes_the_embedder_on(
    tmp_path: Path, package: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("outthink.models.open_engine", lambda name, *, price=None: ScriptedEngine(steps))
    Path("own.jsonl").write_text('{"question": "What is 2+2?", "answer": "4"}\n')
    words = ["--strategy", "dora", "--width", "3", "--prm", "confidence", "--embedder", "sentence-transformers:m"]
    assert main(["solve", "What is 2+2?", *words], capsys, monkeypatch).code == 0
    assert main(["bench", "own.jsonl", *words, "--out", "run"], capsys, monkeypatch).code == 0
    assert '"embedder": "sentence-transformers:m"' in Path("run/run.json").read_text()
    assert len(StandIn.loaded) == 2
