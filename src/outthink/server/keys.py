"""Tells whose key a caller presents, by a file that holds the names of keys and their hashes but no key.

A line of the file is `NAME SHA256` or `NAME SHA256 LIMITS`, the hash in hexadecimal digits and the limits as in
`allowances`; lines that begin with # and blank ones say nothing. Only its owner may be able to write it; that others
can read it does no harm, since no key can be found from the hash of 256 random bits. It is read when the server starts,
and again on SIGHUP.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from itertools import count
from pathlib import Path

from outthink.errors import OutthinkError, UsageError
from outthink.jsonl import sync_folder
from outthink.server.allowances import Allowance, read_allowances, written

_NAME = r"[A-Za-z0-9._-]{1,64}"


class Keys:
    """The keys that a server accepts; nothing of them shows where it is printed or logged.

    Args:
        digests: the SHA-256 of each key, 32 bytes, by the key's name.
        limits: of those keys that have some.
        path: the file, which can be read again.
    """

    __slots__ = ("_digests", "_limits", "_path")

    def __init__(
        self,
        digests: Mapping[str, bytes],
        limits: Mapping[str, tuple[Allowance, ...]] | None = None,
        path: Path | None = None,
    ) -> None:
        self._digests = dict(digests)
        self._limits = {name: own for name, own in (limits or {}).items() if own}
        self._path = path

    def __repr__(self) -> str:
        return "Keys(***)"

    @classmethod
    def open(cls, path: Path) -> Keys:
        """The keys of a file.

        Raises UsageError where it cannot be read, is damaged, holds no key, or can be written by others.
        """
        keys = cls._read(path)
        if not keys.names:
            raise UsageError(f"There is no key in {path}; make one with `outthink key {path}`.")
        return keys

    @classmethod
    def _read(cls, path: Path) -> Keys:
        try:
            with path.open("rb") as file:
                _private(file.fileno(), path)
                lines = _parsed(file.read(), path)
        except OSError as cause:
            raise UsageError(
                f"Cannot read the keys in {path}: {cause.strerror}; `outthink key {path}` makes a file with one."
            ) from None
        digests = {name: line.digest for name, line in lines.items()}
        return cls(digests, {name: line.limits for name, line in lines.items()}, path)

    @property
    def limits(self) -> Mapping[str, tuple[Allowance, ...]]:
        """The limits of those keys that have some."""
        return self._limits

    @property
    def names(self) -> tuple[str, ...]:
        """Of all keys, in the order of the file."""
        return tuple(self._digests)

    def again(self) -> Keys:
        """What the file holds now, which may be no key, when the last one was revoked; else raises as `open`."""
        return self if self._path is None else Keys._read(self._path)

    def take(self, other: Keys) -> None:
        """Accept the keys of `other` in place of these."""
        self._digests, self._limits = other._digests, other._limits

    def bearer(self, headers: Sequence[str]) -> str | None:
        """The name of the key in the Authorization headers of a request; None where it is none of these."""
        scheme, _, presented = (headers[0] if len(headers) == 1 else "").partition(" ")
        return self.owner(presented.strip()) if scheme.lower() == "bearer" else None

    def owner(self, presented: str) -> str | None:
        """The name of the key that a caller presents; None where it is none of these.

        It takes the same time whichever key it is and however much of a key is right.
        """
        digest = _digest(presented)
        owner = None
        for name, stored in self._digests.items():
            if hmac.compare_digest(digest, stored):
                owner = name  # the others are compared all the same
        return owner


def callers(host: str, file: Path | None, risk: str, *, goes_on: bool = False) -> Keys | None:
    """The keys of callers; raises UsageError where other machines could ask without one, and so `risk`.

    Args:
        goes_on: it is a server that has begun with keys, all of which may be revoked by now.
    """
    if file is not None:
        return Keys._read(file) if goes_on else Keys.open(file)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise UsageError(
            f"On {host} others could {risk}: give --api-key-file (made by `outthink key FILE`), or listen on 127.0.0.1."
        )
    return None


def check_reader(name: str, keys: Keys | None) -> None:
    """Raise UsageError where no caller can have the key that was named as the one for /metrics."""
    if keys is None:
        raise UsageError(f"--metrics-key {name} names a key, and there are none: give --api-key-file, or leave it out.")
    if name not in keys.names:
        raise UsageError(f"--metrics-key {name} names no key of the file; `outthink key list` shows those that it has.")


def make_key(path: Path, name: str | None = None) -> tuple[str, str]:
    """Make a key and add its hash to a file, which is made where there is none; (name, key).

    Without a name it is key-1, key-2 ..., the first that is free. What the file held before is still there, whatever
    goes wrong. Raises UsageError where the name is taken or is no name, and where the file is damaged, can be written
    by others or cannot be opened; OutthinkError where writing fails.
    """
    if name is not None and not re.fullmatch(_NAME, name):
        raise UsageError(f"The name of a key is 1 to 64 letters, digits, dots, hyphens and underscores, not {name!r}.")
    new = not os.path.exists(path)
    with _locked(path, os.O_CREAT) as file:
        handle = file.fileno()
        held = file.read()
        names = _parsed(held, path)
        if name in names:
            raise UsageError(f"There is already a key {name} in {path}: choose another name.")
        name = name or next(free for number in count(1) if (free := f"key-{number}") not in names)
        key = "ot-" + secrets.token_urlsafe(32)
        line = f"{name} {_digest(key).hex()}\n".encode()
        try:
            if new:
                sync_folder(path.parent)
            _append(handle, line if held.endswith(b"\n") or not held else b"\n" + line)
        except OSError as cause:
            raise OutthinkError(f"Cannot write to {path}: {cause.strerror}; no key was made.") from None
    return name, key


def spending_file(path: Path) -> Path:
    """Where it is kept what the keys of a file have spent, if nothing else is said."""
    return path.with_name(f"{path.name}.spent")


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file; errors as for `limit_key`."""
    _change(path, name, lambda line: None)


def limit_key(path: Path, name: str, limits: tuple[Allowance, ...]) -> None:
    """Give a key of a file these limits and no others.

    Raises UsageError where there is no such key, and as `make_key`; OutthinkError where writing fails. The file is then
    as it was.
    """
    _change(path, name, lambda line: replace(line, limits=limits))


@dataclass(frozen=True, slots=True)
class _Line:
    """What a line of the file says of a key."""

    digest: bytes
    limits: tuple[Allowance, ...]
    number: int

    def text(self, name: str) -> bytes:
        return f"{name} {self.digest.hex()} {written(self.limits)}".strip().encode()


def _change(path: Path, name: str, change: Callable[[_Line], _Line | None]) -> None:
    """Change the line of a key, or take it out; the others stay byte for byte."""
    with _locked(path, 0) as file:
        held = file.read()
        line = _parsed(held, path).get(name)
        if line is None:
            raise UsageError(
                f"There is no key {name} in {path}; `outthink key list {path}` shows those that there are."
            )
        lines = held.split(b"\n")
        changed = change(line)
        lines[line.number - 1 : line.number] = [] if changed is None else [changed.text(name)]
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            try:
                handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
                with open(handle, "wb") as new:
                    new.write(b"\n".join(lines))
                    new.flush()
                    os.fsync(handle)
                    os.chmod(beside, stat.S_IMODE(os.fstat(file.fileno()).st_mode))
                os.replace(beside, path)
                sync_folder(path.parent)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as cause:
            raise OutthinkError(f"Cannot write to {path}: {cause.strerror}; it is as it was.") from None


@contextlib.contextmanager
def _locked(path: Path, create: int) -> Iterator[FileIO]:
    """The file, open for reading and adding, that nobody else changes meanwhile."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | create | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as cause:
            raise UsageError(f"Cannot write {path}: {cause.strerror}; name a file that you can write.") from None
        with FileIO(handle, "r+") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UsageError(f"{path} keeps nothing that is written to it: name a file.")
            _lock(handle)
            if not os.path.exists(path) or not os.path.samestat(os.fstat(handle), os.stat(path)):
                continue  # somebody has put another one in its place
            _private(handle, path)
            yield file
            return


def _digest(key: str) -> bytes:
    # what a caller sends may hold bytes that are no text, which reach us as lone surrogates
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


def _private(handle: int, path: Path) -> None:
    """Raise UsageError where others could add a key of their own."""
    if sys.platform != "win32" and os.fstat(handle).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"Others can write the keys in {path}; run: chmod go-w {path}")


def _parsed(data: bytes, path: Path) -> dict[str, _Line]:
    lines: dict[str, _Line] = {}
    known: set[bytes] = set()
    for number, line in enumerate(data.split(b"\n"), start=1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        parts = re.fullmatch(rf"({_NAME})\s+([0-9a-fA-F]{{64}})(?:\s+([!-~]+))?".encode(), line)
        if parts is None:  # the line is not shown, since somebody may have put a key there
            raise UsageError(
                f"Line {number} of {path} is not the name of a key and its hash: remove it, and make a key with "
                f"`outthink key {path}`."
            )
        name, digest = parts[1].decode(), bytes.fromhex(parts[2].decode())
        if name in lines or digest in known:
            raise UsageError(f"Line {number} of {path} has a name or a hash that is there already: remove one of them.")
        try:
            limits = read_allowances((parts[3] or b"").decode())
        except ValueError:  # nor are the limits, for the same reason
            raise UsageError(
                f"Line {number} of {path} has limits that cannot be read: write them like "
                "60-requests/minute,100k-tokens/day,20usd/month,8-concurrent, or remove them."
            ) from None
        lines[name] = _Line(digest, limits, number)
        known.add(digest)
    return lines


def _lock(handle: int) -> None:
    """Wait until nobody else is adding a key, so that two do not take the same name; closing the file unlocks it."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


def _append(handle: int, line: bytes) -> None:
    """Add the whole line, or leave the file as it was."""
    size = os.fstat(handle).st_size
    try:
        if os.write(handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, size)
        raise
