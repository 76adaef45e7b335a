"""What callers say of answers: their own traces only, and nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import UsageError
from outthink.records.traffic import FEEDBACK, Feedback, read_feedback
from outthink.server.idents import Idents
from outthink.server.keys import Keys, make_key
from outthink.server.record import Recorder
from tests.tools.server import Server, says
from tests.tools.serving import Answer, asked, chat, counted, serving
from tests.tools.virtual import run

SETTINGS = {"kind": "traffic", "model": "m"}
ADDRESS = "/v1/feedback"


def bearer(key: str) -> list[tuple[str, str | bytes]]:
    return [("Authorization", f"Bearer {key}")]


def said(folder: Path, bodies: Sequence[Any], key: int | None = 0, about: int | None = 0) -> list[Answer]:
    """The answers to feedback of one key (of two) on a trace of one of them; "TRACE" stands for its id."""
    file = folder.parent / "keys"
    folder.parent.mkdir(exist_ok=True)
    keys = [make_key(file, name)[1] for name in ("ann", "bob")]

    async def go() -> list[Answer]:
        async with (
            Server(says("It is 4.")) as up,
            serving(up, strategy="none", recorder=Recorder(folder, SETTINGS), keys=Keys.open(file)) as (url, service),
        ):
            answer = await asked(url, chat(), headers=bearer(keys[about or 0]))
            assert answer.status == 200
            trace = answer.json["outthink"]["trace"]
            answers = []
            for body in bodies:
                sent = {**body, "trace": trace} if isinstance(body, dict) and body.get("trace") == "TRACE" else body
                headers = [] if key is None else bearer(keys[key])
                answers.append(await asked(url, sent, path=ADDRESS, headers=headers))
            counts = counted(service)
            assert counts["outthink_feedback_count"] == sum(one.status == 200 for one in answers)
            await service.close()
            return answers

    return run(go())


def test_a_word_is_kept_and_the_last_one_counts(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    bodies = [
        {"trace": "TRACE", "score": "bad"},
        {"trace": "TRACE", "score": 0.25, "answer": "½ \u2028 and\nmore"},
        {"trace": "TRACE", "score": 1},
        {"trace": "TRACE", "score": "good", "answer": "4"},
    ]
    answers = said(folder, bodies)
    assert [(one.status, one.json["score"]) for one in answers] == [(200, 0.0), (200, 0.25), (200, 1.0), (200, 1.0)]
    kept = read_feedback(folder)
    (only,) = kept.values()
    assert (only.score, only.answer, only.owner) == (1.0, "4", "ann")
    assert (folder / FEEDBACK).read_bytes().count(b"\n") == 4
    assert (folder / FEEDBACK).stat().st_mode & 0o77 == 0
    assert list(kept) == [answers[0].json["trace"]]


WRONG: list[tuple[Any, int]] = [
    ({"trace": "TRACE"}, 400),
    ({"trace": "TRACE", "score": -0.1}, 400),
    ({"trace": "TRACE", "score": 1.1}, 400),
    ({"trace": "TRACE", "score": True}, 400),
    ({"trace": "TRACE", "score": "fine"}, 400),
    (b'{"trace": "x", "score": NaN}', 400),
    ({"trace": "TRACE", "score": 1, "answer": ""}, 400),
    ({"trace": "TRACE", "score": 1, "answer": "x" * 10_001}, 400),
    ({"trace": "TRACE", "score": 1, "strategy": "beam"}, 400),
    ({"trace": "TRACE", "score": 1, "answer": "x" * 200_000}, 413),
    ({"trace": "chatcmpl-" + "0" * 48, "score": 1}, 404),
    ({"trace": "", "score": 1}, 404),
    ({"trace": "\ud800", "score": 1}, 400),
    ({"trace": 7, "score": 1}, 400),
    ([1], 400),
    (b"{", 400),
]


def test_what_is_wrong_is_refused_in_a_sentence_and_nothing_is_kept(tmp_path: Path) -> None:
    answers = said(tmp_path / "live", [body for body, _ in WRONG])
    assert [one.status for one in answers] == [status for _, status in WRONG]
    assert all(one.error["message"] for one in answers)
    assert read_feedback(tmp_path / "live") == {}


def test_nobody_speaks_of_what_another_key_has_asked(tmp_path: Path) -> None:
    (other,) = said(tmp_path / "a" / "live", [{"trace": "TRACE", "score": 0}], key=1)
    assert (other.status, other.error["code"]) == (404, "trace_not_found")
    (nobody,) = said(tmp_path / "b" / "live", [{"trace": "TRACE", "score": 0}], key=None)
    assert nobody.status == 401


def test_a_server_that_records_nothing_says_so() -> None:
    async def go() -> Answer:
        async with Server(says("It is 4.")) as up, serving(up, strategy="none") as (url, _):
            trace = (await asked(url, chat())).json["outthink"]["trace"]
            return await asked(url, {"trace": trace, "score": 1}, path=ADDRESS)

    answer = run(go())
    assert (answer.status, answer.error["code"]) == (400, "not_recorded")


def test_ids_are_known_by_their_secret_and_owner_alone() -> None:
    """A forged half has a chance of 2^-96."""
    one, other = Idents(b"a" * 32), Idents(b"b" * 32)
    for owner in (None, "", "ann", "½"):
        ident = one.new(owner)
        assert Idents(b"a" * 32).owns(owner, ident), "after a restart"
        assert not any(one.owns(name, ident) for name in {None, "", "ann", "½", "+ann"} - {owner})
        assert not other.owns(owner, ident)
        assert not any(one.owns(owner, wrong) for wrong in (ident.upper(), ident + "\n", ident[:-1], f" {ident}"))
    assert len({one.new("ann") for _ in range(1000)}) == 1000


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_what_was_acknowledged_survives_a_kill_and_so_do_ids(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from outthink.records.traffic import Feedback
from outthink.server.record import Recorder
recorder = Recorder(Path(sys.argv[1]), {})
print(recorder.secret.hex(), flush=True)
for number in range(10_000):
    recorder.said(f"p{number}", Feedback(score=1.0, answer=None, owner=None, at=time.time())).result()
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    secret = process.stdout.readline().strip()
    seen = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    seen += [int(line) for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    assert {f"p{number}" for number in seen} <= read_feedback(tmp_path).keys()
    with Recorder(tmp_path, {}) as recorder:
        assert recorder.secret.hex() == secret
        recorder.said("more", Feedback(score=0.5, answer="x", owner="ann", at=1.0)).result()
    assert read_feedback(tmp_path)["more"] == Feedback(score=0.5, answer="x", owner="ann", at=1.0)


def test_feedback_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path, {}) as recorder:
        pass
    kept = recorder.said("a", Feedback(score=1.0, answer=None, owner=None, at=1.0))
    with pytest.raises(Exception, match="send it again"):
        kept.result(timeout=1)


@pytest.mark.parametrize("change", [{"score": 2}, {"score": True}, {"at": None}, {"answer": 4}, {"problem": 1}])
def test_a_damaged_line_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    line = {"problem": "a", "score": 1, "answer": None, "owner": None, "at": 1.0, **change}
    (tmp_path / FEEDBACK).write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="Line 1 of"):
        read_feedback(tmp_path)
