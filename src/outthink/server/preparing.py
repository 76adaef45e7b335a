"""What a request asks for becomes what is solved: its model, strategy, budget and deadline; nothing is spent yet."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from outthink.cost.caps import AnswerLengths
from outthink.models.engine import Engine
from outthink.server.accounts import Purse
from outthink.server.asked import Asked
from outthink.server.callers import SHADOW, Callers
from outthink.server.exploring import Explorer
from outthink.server.gate import Gate
from outthink.server.idents import Idents
from outthink.server.job import Job, prepared
from outthink.server.models import Served
from outthink.server.problems import LATE, RequestFailed
from outthink.server.routing import Choice, ServerRules, choose, split
from outthink.server.settings import Settings
from outthink.types import Trace


class Preparing:
    """Makes jobs by what the operator allows, and by how long answers have been so far.

    Args:
        salt: keeps callers' prompts apart in the prefix caches of upstreams; a secret of this server.
        idents: names requests.
    """

    def __init__(
        self,
        settings: Settings,
        policy: ServerRules,
        served: Served,
        gate: Gate,
        salt: bytes,
        callers: Callers,
        idents: Idents,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._served = served
        self._gate = gate
        self._callers = callers
        self._salt = salt
        self._idents = idents
        self._explorer = Explorer(settings.learn, policy) if settings.learn else None
        self._lengths: dict[str, AnswerLengths] = {}
        """Of the answers of each model."""

    async def job(self, asked: Asked, owner: str | None) -> Job:
        """What is to be done for the owner of a key; close it where it is not begun.

        Raises BadRequest, UsageError, Busy, OverLimit or Uncountable where it cannot be done.
        """
        self._gate.check()  # before the upstream is asked for anything
        deadline = asyncio.get_running_loop().time() + self._seconds(asked)
        purse = None
        try:
            async with asyncio.timeout_at(deadline):
                purse = await self._callers.enter(owner)
                name, named = split(asked.model, await self._served.names())
                load = self._gate.load()
                choice, trial = choose(asked, named, self._policy, load), None
                if self._explorer is not None:
                    choice, trial = self._explorer.choose(asked, named, choice, load)
                engine = await self._served.engine(name)
                job = await self._prepared(asked, name, engine, choice, load, owner, purse)
        except BaseException as failure:
            if purse is not None:
                purse.close()
            if isinstance(failure, TimeoutError):
                raise RequestFailed(LATE) from None
            raise
        job.deadline = deadline
        job.trial = trial
        job.owner = owner
        if self._settings.price_follows_load:
            job.dearness = self._gate.dearness
        return job

    async def again(self, job: Job, asked: Asked) -> Job:
        """What is to be done to answer a request in another way, by the same model."""
        again = await self._prepared(asked, job.name, job.engine, choose(asked, None, self._policy), 1.0, None)
        again.owner = SHADOW
        return again

    def learn(self, job: Job, trace: Trace) -> None:
        """Remember how long the answers were."""
        if job.asked.max_tokens is None:  # what a caller's own cap cuts off says nothing of others' answers
            self._lengths.setdefault(job.name, AnswerLengths()).add(trace.candidates)

    def _seconds(self, asked: Asked) -> float:
        """How long the request may take: the least of what the caller wants and the operator allows."""
        limits = [budget.limits for budget in (asked.budget, self._policy.budget) if budget is not None]
        return min((limit["seconds"] for limit in limits if "seconds" in limit), default=self._settings.timeout)

    async def _prepared(
        self,
        asked: Asked,
        name: str,
        engine: Engine,
        choice: Choice,
        load: float,
        owner: str | None,
        purse: Purse | None = None,
    ) -> Job:
        return await prepared(
            asked,
            name,
            engine,
            choice,
            load,
            ident=self._idents.new(owner),
            max_tokens=self._settings.max_tokens,
            seconds=self._seconds(asked),
            salt=None if owner is None else blake2b(owner.encode(), key=self._salt, digest_size=16).hexdigest(),
            usual=self._lengths[name].usual() if name in self._lengths else None,
            purse=purse,
        )
