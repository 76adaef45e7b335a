"""Keys of callers: who is let in, what a file of keys may be, and that making one neither loses nor shows any."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import OutthinkError, UsageError
from outthink.server.keys import Keys, callers, make_key, revoke_key
from tests.cli.test_cli import main

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions and locks are others there")


def line(name: str, key: str) -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def outthink(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: main(words, capsys, monkeypatch)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


# ---------------------------------------------------------------- who is let in


def test_a_key_is_known_by_its_hash(path: Path) -> None:
    write(path, f"# the team\n\n{line('ann', 'secret-a')}\n  {line('bob', 'secret-b').upper().replace('BOB', 'bob')}")
    known = Keys.open(path)
    assert (known.owner("secret-a"), known.owner("secret-b")) == ("ann", "bob")


@pytest.mark.parametrize(
    "wrong", ["", "ann", "secret", "secret-a ", "SECRET-A", "secret-aa", "\udcff", chr(0xD800), "é"]
)
def test_nothing_else_is_a_key(path: Path, wrong: str) -> None:
    """A hash is none either, so that who reads the file is not let in; nor are bytes that are no text."""
    known = Keys.open(write(path, line("ann", "secret-a")))
    assert known.owner(wrong) is None
    assert known.owner(hashlib.sha256(b"secret-a").hexdigest()) is None


@pytest.mark.parametrize("presented", ["secret-0", "secret-4", "no key"])
def test_every_stored_hash_is_compared(path: Path, monkeypatch: pytest.MonkeyPatch, presented: str) -> None:
    """So that the time tells nothing of which key it was."""
    known = Keys.open(write(path, "".join(line(f"k{number}", f"secret-{number}") for number in range(5))))
    compared = []
    compare = hmac.compare_digest

    def counting(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    known.owner(presented)
    assert compared == [(32, 32)] * 5


def test_nothing_of_it_shows(path: Path) -> None:
    known = Keys.open(write(path, line("ann", "secret-a")))
    assert repr(known) == str(known) == f"{known}" == "Keys(***)"
    assert not hasattr(known, "__dict__")


# ---------------------------------------------------------------- what a file may be


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody yet\n"])
def test_a_file_without_a_key_says_how_to_make_one(path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^There is no key in {re.escape(str(path))}; make one with `outthink key "):
        Keys.open(write(path, text))


def test_what_has_begun_with_keys_goes_on_without_any(path: Path) -> None:
    """A worker that takes the place of another one lets nobody in where all keys are revoked by then."""
    _, key = make_key(path, "ann")
    revoke_key(path, "ann")
    with pytest.raises(UsageError, match="There is no key in"):
        callers("127.0.0.1", path, "ask")
    keys = callers("127.0.0.1", path, "ask", goes_on=True)
    assert keys is not None
    assert (keys.names, keys.owner(key)) == ((), None)


def test_a_file_that_is_not_there_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(UsageError, match=r"No such file or directory; `outthink key .*` makes a file with one\.$"):
        Keys.open(path)


DAMAGED = {
    "a key itself": b"ot-Zm9vYmFy\n",
    "a key with a name": b"bob ot-Zm9vYmFy\n",
    "a hash alone": hashlib.sha256(b"x").hexdigest().encode(),
    "half a line": line("bob", "x")[:-10].encode(),
    "a name with a blank": line("b b", "x").encode(),
    "a name that is too long": line("b" * 65, "x").encode(),
    "no text": b"b\xff " + hashlib.sha256(b"x").hexdigest().encode(),
    "zeros": b"\0" * 40,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_told_by_its_number_and_not_shown(path: Path, damage: bytes) -> None:
    write(path, b"# keys\n" + line("ann", "a").encode() + damage)
    with pytest.raises(UsageError) as told:
        Keys.open(path)
    assert str(told.value) == (
        f"Line 3 of {path} is not the name of a key and its hash: remove it, and make a key with `outthink key {path}`."
    )
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"^Line 3 of "):
        make_key(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("second", [line("ann", "b"), line("bob", "a")], ids=["name", "hash"])
def test_a_name_and_a_hash_are_there_once(path: Path, second: str) -> None:
    with pytest.raises(UsageError, match=r"^Line 2 of .* has a name or a hash that is there already"):
        Keys.open(write(path, line("ann", "a") + second))


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    write(path, line("ann", "a")).chmod(mode)
    for refused in (Keys.open, make_key):
        with pytest.raises(UsageError, match=rf"^Others can write the keys in .*; run: chmod go-w {path}$"):
            refused(path)
    assert path.read_text() == line("ann", "a")


@posix
def test_a_file_that_others_can_read_is_fine(path: Path) -> None:
    """As one that is handed to a container; no key can be found from its hash."""
    write(path, line("ann", "a")).chmod(0o644)
    assert Keys.open(path).owner("a") == "ann"


# ---------------------------------------------------------------- making one


def test_the_command_prints_a_key_that_is_let_in(outthink: Any, path: Path) -> None:
    made = [outthink("key", str(path)), outthink("key", str(path), "--name", "ann"), outthink("key", str(path))]
    assert [result.code for result in made] == [0, 0, 0]
    assert all(re.fullmatch(r"ot-[A-Za-z0-9_-]{43}\n", result.out) for result in made)
    assert f"This is the key ann; {path} keeps its hash only" in made[1].err
    known = Keys.open(path)
    assert [known.owner(result.out.strip()) for result in made] == ["key-1", "ann", "key-2"]
    assert not any(result.out.strip()[3:] in path.read_text() + result.err for result in made)


@posix
def test_a_new_file_is_its_owners(path: Path) -> None:
    before = os.umask(0)
    try:
        make_key(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_in_the_file_stays(path: Path) -> None:
    """A last line without an end, too, as some editors leave it."""
    text = f"# the team\r\n{line('ann', 'a').strip()}"
    write(path, text)
    name, key = make_key(path, "bob")
    assert path.read_bytes() == f"{text}\n{line('bob', key)}".encode()
    assert name == Keys.open(path).owner(key) == "bob"
    assert Keys.open(path).owner("a") == "ann"


def test_the_first_free_name_is_taken(path: Path) -> None:
    write(path, line("key-1", "a") + line("key-3", "b"))
    assert [make_key(path)[0], make_key(path)[0]] == ["key-2", "key-4"]


@pytest.mark.parametrize("name", ["", "a b", "a\n", "é", "a" * 65, "#a/"])
def test_what_is_no_name_is_refused_before_there_is_a_file(path: Path, name: str) -> None:
    with pytest.raises(
        UsageError, match=r"^The name of a key is 1 to 64 letters, digits, dots, hyphens and underscore"
    ):
        make_key(path, name)
    assert not path.exists()


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "a" * 64])
def test_names(path: Path, name: str) -> None:
    assert make_key(path, name)[0] == name
    with pytest.raises(UsageError, match=f"^There is already a key {name} in "):
        make_key(path, name)


def test_where_no_file_can_be(outthink: Any, tmp_path: Path) -> None:
    result = outthink("key", str(tmp_path / "no" / "keys"))
    assert (result.code, result.out) == (2, "")
    assert "No such file or directory; name a file that you can write." in result.err
    assert "Is a directory" in outthink("key", str(tmp_path)).err


@posix
def test_a_key_is_not_thrown_away(outthink: Any) -> None:
    result = outthink("key", os.devnull)
    assert (result.code, result.out) == (2, "")
    assert result.err == "outthink: /dev/null keeps nothing that is written to it: name a file.\n"


@pytest.mark.parametrize("broken", ["write", "fsync"])
def test_a_failed_write_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    write(path, line("ann", "a"))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        with pytest.raises(OutthinkError, match=r"^Cannot write to .*: No space left on device; no key was made\.$"):
            make_key(path)
    assert path.read_text() == line("ann", "a")


@posix
def test_the_system_refuses_in_the_middle_of_a_line(path: Path) -> None:
    write(path, line("ann", "a"))
    program = f"""
import resource, sys
from outthink import cli
resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size + 30},) * 2)
sys.argv = ["outthink", "key", sys.argv[1]]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no key was made" in done.stderr
    assert path.read_text() == line("ann", "a")


@posix
def test_several_at_once_take_different_names(path: Path) -> None:
    """Each waits for the others; without the lock two of them take the same name more often than not."""
    program = "import sys; from pathlib import Path; from outthink.server.keys import make_key\n"
    program += "sys.stdin.buffer.raw.read(1)\nfor _ in range(20): make_key(Path(sys.argv[1]))"
    reading, starting = os.pipe()
    running = [subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=reading) for _ in range(4)]
    os.close(reading)
    os.write(starting, b"xxxx")
    os.close(starting)
    assert [process.wait() for process in running] == [0] * 4
    names = [text.split()[0] for text in path.read_text().splitlines()]
    assert names == [f"key-{number}" for number in range(1, 81)]
    Keys.open(path)
