"""Finds the key of an endpoint: in the environment or in a file, never on the command line.

A key belongs to one host and is sent to no other one:

- OPENAI_API_KEY belongs to the host of OPENAI_BASE_URL, or to api.openai.com where that is not set;
- the file of keys (`keys.toml` in the configuration folder, or the one that OUTTHINK_KEYS names) holds lines like
  `"localhost:8000" = "the key"`; only its owner may be able to read it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tomllib
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlsplit

from outthink.errors import UsageError

_OPENAI = "https://api.openai.com/v1"


class Key:
    """A secret that does not show itself where it is printed, logged or pickled."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if not re.fullmatch(r"[\x21-\x7e]+", secret):
            del secret  # tracebacks may show variables
            raise UsageError("A key must be printable characters without blanks; look at where it is set.")
        self._secret = secret

    def __repr__(self) -> str:
        return "Key(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not written to a file")

    def header(self) -> dict[str, str]:
        """The header that carries it."""
        return {"Authorization": f"Bearer {self._secret}"}

    def scrub(self, text: str) -> str:
        """The text without the key, for servers that repeat it in their errors."""
        return text.replace(self._secret, "***").replace(quote(self._secret, safe=""), "***")


def find_key(url: str) -> Key | None:
    """The key that belongs to the host of `url`; None where there is none.

    Raises UsageError where OPENAI_BASE_URL is no address, or the file of keys cannot be read or can be read by others.
    """
    wanted = _host(url)
    if os.environ.get("OPENAI_API_KEY"):
        owner = _host(os.environ.get("OPENAI_BASE_URL") or _OPENAI)
        if owner is None:
            raise UsageError(f"OPENAI_BASE_URL must be an address like {_OPENAI}.")
        if wanted == owner:
            return Key(os.environ["OPENAI_API_KEY"].strip())
    for host, key in _file().items():
        if _host(f"https://{host}") == wanted:  # without a port it is that of https
            return key
    return None


def _host(url: str) -> tuple[str, int] | None:
    """Host and port, the port of the scheme where none is written; None where it is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None


def _file() -> dict[str, Key]:
    named = os.environ.get("OUTTHINK_KEYS")
    if named:
        path = Path(named)
    else:
        from platformdirs import user_config_path  # here, because it is needed only where there is an endpoint

        path = user_config_path("outthink") / "keys.toml"
        if not os.path.exists(path):
            return {}
    try:
        if sys.platform != "win32" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UsageError(f"Others can read the keys in {path}; run: chmod 600 {path}")
        keys = _read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(f"Cannot read the file of keys {path}: {cause}.") from None
    if keys is None:
        raise UsageError(f'Cannot read the file of keys {path}; write lines like "localhost:8000" = "KEY".')
    return keys


def _read(text: str) -> dict[str, Key] | None:
    """The key of each host; None where it is anything else, since an error raised here could show a key."""
    try:
        keys = {host: Key(key.strip()) for host, key in tomllib.loads(text).items()}
    except (ValueError, AttributeError, UsageError):
        return None
    return keys if all(_host(f"http://{host}") and not set(host) & set("/@?#") for host in keys) else None
