"""Who may ask, what each caller may spend, and how that is changed while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from outthink.errors import UsageError
from outthink.server.accounts import Accounts, Purse, Uncountable
from outthink.server.keys import Keys

SHADOW, PROBE = "(shadow)", "(probe)"
"""Whose the tokens of shadows and of probes are; no key can have such a name."""


class Callers:
    """The keys of callers, and the accounts of those that have limits.

    Args:
        keys: None: everybody who reaches the server may ask, and nobody has limits.
        opens: makes the accounts when the first key has limits; None: no key may have any.

    Raises UsageError where a key has limits that nobody could count.
    """

    def __init__(self, keys: Keys | None, opens: Callable[[], Accounts] | None = None) -> None:
        self.keys = keys
        self._opens = opens
        self._accounts: Accounts | None = None
        if keys is not None and keys.limits:
            if opens is None:
                raise UsageError(f"The key {next(iter(keys.limits))} has limits, and nothing counts what is spent.")
            self._accounts = opens()
            self._accounts.open()

    def bearer(self, headers: Sequence[str]) -> str | None:
        """The name of the key in the Authorization headers of a request; None where it is none of these."""
        return None if self.keys is None else self.keys.bearer(headers)

    async def enter(self, owner: str | None) -> Purse | None:
        """Let a request in: what it may spend of its key's limits; None where there are none.

        Raises OverLimit where a limit is used up, and Uncountable.
        """
        limits = () if self.keys is None or owner is None else self.keys.limits.get(owner, ())
        if owner is None or not limits:
            return None
        if self._accounts is None:
            raise Uncountable
        return await self._accounts.enter(owner, limits)

    def headers(self, owner: str) -> dict[str, str]:
        """How the limits of a key stand, as OpenAI's API tells it."""
        limits = () if self.keys is None else self.keys.limits.get(owner, ())
        return {} if self._accounts is None or not limits else self._accounts.headers(owner, limits)

    def reload(self) -> None:
        """Read the keys again: what has changed counts for the next request; those that run go on.

        Whether what is spent can be counted is seen later, so that it holds back nobody's revocation.

        Raises UsageError where they cannot be read; then all is as it was.
        """
        if self.keys is not None:
            self.keys.take(self.keys.again())
            if self.keys.limits and self._accounts is None and self._opens is not None:
                self._accounts = self._opens()

    async def close(self) -> None:
        """Write what was spent."""
        if self._accounts is not None:
            await self._accounts.close()
