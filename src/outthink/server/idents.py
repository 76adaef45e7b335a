"""Ids of requests, which tell whose they are to this server alone, so that nothing has to be looked up.

Half of an id is random, the other half is a keyed hash of that and of the owner's name (BLAKE2b as a MAC).
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import blake2b

_BEGIN = "chatcmpl-"
_HALF = 12  # bytes; as many random ones are never drawn twice, and nobody guesses as many of a MAC
_FORM = re.compile(_BEGIN + f"([0-9a-f]{{{2 * _HALF}}})([0-9a-f]{{{2 * _HALF}}})", re.ASCII)


class Idents:
    """Makes ids and recognises its own.

    Args:
        secret: 16 to 64 bytes; those with the same secret recognise each other's ids.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def new(self, owner: str | None) -> str:
        """An id for a request of a key; None: there are no keys."""
        drawn = secrets.token_hex(_HALF)
        return f"{_BEGIN}{drawn}{self._mark(drawn, owner)}"

    def owns(self, owner: str | None, ident: str) -> bool:
        """Whether it is the id of a request of this owner."""
        parts = _FORM.fullmatch(ident)
        return parts is not None and hmac.compare_digest(parts[2], self._mark(parts[1], owner))

    def _mark(self, drawn: str, owner: str | None) -> str:
        whose = b"" if owner is None else b"+" + owner.encode()
        return blake2b(drawn.encode() + whose, key=self._secret, digest_size=_HALF).hexdigest()
