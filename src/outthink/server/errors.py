"""The one error that a request itself is to blame for."""

from __future__ import annotations

from outthink.errors import UsageError


class BadRequest(UsageError):
    """A request that cannot be carried out.

    Args:
        param: the field that is wrong.
        code: for programs, in the words of OpenAI's API where it has one.
        status: of HTTP.
    """

    def __init__(self, sentence: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(sentence)
        self.param = param
        self.code = code
        self.status = status
