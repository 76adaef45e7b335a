"""What a caller is told where a request fails: an error of OpenAI's API that shows nothing of the inside."""

from __future__ import annotations

import logging
import math
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from outthink.errors import (
    BudgetTooSmall,
    EngineError,
    OutthinkError,
    PromptTooLong,
    Refused,
    Uncounted,
    UsageError,
    Withheld,
)
from outthink.server.accounts import OverLimit, Uncountable
from outthink.server.errors import BadRequest
from outthink.server.gate import Busy

_logger = logging.getLogger("outthink.server")
_WORDS = 1000  # characters of a failure that a caller is told
_LONGEST_WAIT = 86400.0  # seconds that callers are told to wait
# where something is: an address, a host with a port, a pair of the two, an IP address, a name of an inner network,
# what is called a host
_ADDRESS = re.compile(
    r"""[a-z][a-z0-9+.-]{0,20}://[^\s"'<>)]+
    | \(\s*['"][^'"\s]{1,255}['"]\s*,\s*\d{1,5}[^)]{0,40}\)
    | \[?(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)\]?(?::\d{1,5})?
    | \[?(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])\]?(?::\d{1,5})?
    | (?<![\w.-])(?:localhost|[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}):\d{1,5}(?!\w)
    | (?<![\w.-])localhost(?![\w-])
    | (?<=\bhost\s)['"]?[\w.-]{1,255}(?<=\w)['"]?(?::\d{1,5})?
    | (?<![\w.-])\w[\w.-]{0,255}\.(?:local|internal|lan|corp|intranet|svc)(?![\w-])
    | (?<![\w.-])\w{1,63}-[\w-]{1,63}:\d{2,5}(?!\w)""",
    re.IGNORECASE | re.VERBOSE,
)
_USER = re.compile(r"[^\s/@:]{1,200}:[^\s/@]{1,200}@")  # a user and a password before a host


@dataclass(frozen=True, kw_only=True, slots=True)
class APIError:
    """An error as OpenAI's API has it.

    Args:
        status: of HTTP.
        kind: "invalid_request_error", "authentication_error", "rate_limit_error", "insufficient_quota" or
            "server_error".
        retry: seconds after which to try again; None: not to be told.
    """

    status: int
    sentence: str
    kind: str
    code: str | None = None
    param: str | None = None
    retry: float | None = None

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.sentence, "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Retry-After, where it is known; at most a day, whatever an upstream asks for."""
        if self.retry is None or math.isnan(self.retry):
            return {}
        return {"Retry-After": str(max(1, math.ceil(min(self.retry, _LONGEST_WAIT))))}


class RequestFailed(Exception):
    """Ends a request with an error."""

    def __init__(self, problem: APIError) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


LATE = APIError(
    status=504,
    sentence="The deadline has passed before anything was written; allow more seconds.",
    kind="server_error",
    code="deadline",
)
STOPPING = APIError(
    status=503, sentence="The server is being stopped; ask another one.", kind="server_error", code="busy", retry=1.0
)


def told(failure: BaseException) -> APIError:
    """As `problem`; a failure of our own is logged, without what anybody has written."""
    if isinstance(failure, RequestFailed):
        return failure.problem
    what = problem(failure)
    if what.code == "internal":
        frames = traceback.extract_tb(failure.__traceback__)
        where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-6:]))
        _logger.error("%s at %s", type(failure).__name__, where)
    return what


def response(problem: APIError, headers: Mapping[str, str] | None = None) -> web.Response:
    """As a response of HTTP, with further headers."""
    sent = {**problem.headers(), **(headers or {})}
    if problem.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return web.json_response(problem.body(), status=problem.status, headers=sent)


def problem(failure: BaseException) -> APIError:
    """What a failure is to the caller.

    A refusal of the upstream keeps its status where the caller can do something about it; one of the server's own key
    is the operator's matter, and so a bad gateway.
    """
    if isinstance(failure, Busy):
        said = str(failure)
        return APIError(status=429, sentence=said, kind="rate_limit_error", code="busy", retry=failure.retry)
    if isinstance(failure, OverLimit):
        return _over(failure)
    if isinstance(failure, Uncountable):
        return APIError(status=503, sentence=str(failure), kind="server_error", code="spending_unknown", retry=5.0)
    if isinstance(failure, BadRequest):
        kind = "invalid_request_error"
        return APIError(status=failure.status, sentence=str(failure), kind=kind, code=failure.code, param=failure.param)
    wrong = "invalid_request_error"
    if isinstance(failure, PromptTooLong):
        code = "context_length_exceeded"
        return APIError(status=400, sentence=_discreet(failure), kind=wrong, code=code, param="messages")
    if isinstance(failure, BudgetTooSmall):
        code = "budget_too_small"
        return APIError(status=400, sentence=_discreet(failure), kind=wrong, code=code, param="outthink.budget")
    if isinstance(failure, UsageError):
        param = "outthink.budget" if isinstance(failure, Uncounted) else "outthink.strategy"
        return APIError(status=400, sentence=_discreet(failure), kind=wrong, param=param)
    cause = _cause(failure)
    if isinstance(cause, Refused):
        return _refused(cause)
    if isinstance(cause, Withheld):
        return APIError(status=400, sentence=_discreet(cause), kind=wrong, code="content_filter")
    if isinstance(failure, OutthinkError):
        said = f"The upstream failed: {_discreet(cause)}"
        return APIError(status=502, sentence=said, kind="server_error", code="upstream_failed")
    return APIError(status=500, sentence="The server failed; its log says where.", kind="server_error", code="internal")


def _over(failure: OverLimit) -> APIError:
    """A limit of the key; OpenAI's API calls that of a minute a rate limit, and of a longer time a quota."""
    if failure.never:
        return APIError(status=400, sentence=str(failure), kind="invalid_request_error", code="budget_too_small")
    if failure.allowance.span in ("day", "month"):
        kind = code = "insufficient_quota"
    else:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    return APIError(status=429, sentence=str(failure), kind=kind, code=code, retry=failure.retry)


def _cause(failure: BaseException) -> BaseException:
    """What a failure goes back to."""
    while failure.__cause__ is not None and isinstance(failure.__cause__, EngineError):
        failure = failure.__cause__
    return failure


def _discreet(failure: BaseException) -> str:
    """Its sentence without addresses of the upstream and of what it mentions: none of the caller's business."""
    return _ADDRESS.sub("the upstream", _USER.sub("", str(failure)[:_WORDS]))


def _refused(cause: Refused) -> APIError:
    status, said, retry = cause.status, f"The upstream refused: {_discreet(cause)}", cause.retry_after or 1.0
    if status in (401, 403, 407):
        said = "The upstream refused the server's own key; its operator has to mend that."
    if status == 429:
        return APIError(status=429, sentence=said, kind="rate_limit_error", code="upstream_rate_limit", retry=retry)
    if status in (401, 403, 407) or 300 <= status < 400 or not status:
        return APIError(status=502, sentence=said, kind="server_error", code="upstream_refused")
    if 400 <= status < 500:
        return APIError(status=status, sentence=said, kind="invalid_request_error", code="upstream_refused")
    return APIError(status=503, sentence=said, kind="server_error", code="upstream_unavailable", retry=retry)
