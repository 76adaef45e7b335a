"""POST /v1/feedback: what a caller thinks of an answer, kept beside its trace before the caller is told so."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outthink.records.traffic import Feedback
from outthink.server.asked import parsed, wrong_field
from outthink.server.bodies import Bodies
from outthink.server.errors import BadRequest
from outthink.server.guard import OWNER
from outthink.server.idents import Idents
from outthink.server.metrics import Metrics
from outthink.server.record import Recorder

_LARGEST = 100_000  # bytes of a body


class FeedbackRequest(BaseModel):
    """A word on an answer: a score in [0, 1], "good" or "bad", and what would have been right."""

    model_config = ConfigDict(extra="forbid", strict=True)

    trace: Annotated[str, Field(max_length=128)]
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | Literal["good", "bad"]
    answer: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None

    @property
    def value(self) -> float:
        """The score as a number."""
        return {"good": 1.0, "bad": 0.0}[self.score] if isinstance(self.score, str) else float(self.score)


class FeedbackDoor:
    """Takes feedback.

    Args:
        recorder: keeps it; None: nothing is recorded, and so is no feedback.
    """

    def __init__(self, bodies: Bodies, idents: Idents, recorder: Recorder | None, metrics: Metrics) -> None:
        self._bodies = bodies
        self._idents = idents
        self._recorder = recorder
        self._metrics = metrics

    async def take(self, request: web.Request) -> web.Response:
        """Keep one word; raises BadRequest where it is none, or on nothing that this caller has asked."""
        if self._recorder is None:
            raise BadRequest("This server records nothing, so there is nothing to say of it.", code="not_recorded")
        body = await self._bodies.read(request)
        if len(body) > _LARGEST:
            raise BadRequest(f"Feedback has at most {_LARGEST:,} bytes.", status=413, code="too_large")
        try:
            told = FeedbackRequest.model_validate(parsed(body))
        except ValidationError as failure:
            raise wrong_field(failure) from None
        owner = request.get(OWNER)
        if not self._idents.owns(owner, told.trace):
            raise BadRequest(
                "You have no trace with this id; it is the one in x-outthink-trace or in the object outthink.",
                param="trace",
                code="trace_not_found",
                status=404,
            )
        said = Feedback(score=told.value, answer=told.answer, owner=owner, at=time.time())
        await asyncio.wrap_future(self._recorder.said(told.trace, said))
        self._metrics.feedback.observe(told.value)
        return web.json_response({"object": "outthink.feedback", "trace": told.trace, "score": told.value})
