"""The model as a strategy sees it: samples, continuations and label probabilities, every one of them metered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar, cast

from outthink.cost import charge
from outthink.errors import BudgetExhausted, EngineError, NothingCameBack, PromptTooLong, Refused, Unsent, UsageError
from outthink.meter import LiveGroup, Meter, Reservation, charged_of_each
from outthink.models.engine import Completion, Engine, Power, Progress, Request, Tokenizing, Watch
from outthink.rng import child_seed
from outthink.together import beside, lazily, together, turn
from outthink.types import Address, Call, Candidate, Message, Problem, Sampling, Usage, path, writable

T = TypeVar("T")
ReadAnswer = Callable[[Problem, str], Awaitable[tuple[str | None, str | None]]]
"""(problem, whole text of a complete sample) -> (answer as displayed, canonical key)."""

Listen = Callable[[Address, Mapping[str, Any]], None]
"""(address of a sample, a piece of it), as `Progress.listen`."""

OnSample = Callable[[Candidate, int], None]
"""(a sample with its answer, its place among those asked for), in the order in which they end; none for a failure."""

FOR_ALL = frozenset({"user", "metadata", "store", "service_tier", "priority", "cache_salt", "safety_identifier"})
"""Fields of OpenAI's API and of servers like it that say for whom a model works and nothing of what it writes."""

_ASK, _KEEP, READ = 20, 50, 100  # microseconds to write a request, to keep an answer with logprobs, and to have it read
_BEGIN = 100  # microseconds to send a request and to settle it
_BOUNDS = 256  # prompts at once whose tokens are counted, which some servers are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """n samples of one prompt; None means as the run's `Sampling` says.

    Args:
        n: samples wanted, at least 1.
        messages: the prompt; None: the problem's own.
        after: continue the text of this candidate.
        parents: further candidates that the prompt was made from.
        stop: strings that end a sample; they stay in its text.
        step: a stop string ends a reasoning step, not the answer.
        max_tokens: most completion tokens of each.
        logprobs: ask for token logprobs.
        controls: what is asked of further powers of the engine, by their name.
        aside: what is written is no answer, such as a verdict: it is never `complete`, and no answer is read from it.
        lane: the lane within the model's that it belongs to, where branches of a strategy are drawn as one batch.
        watch: told of every sample's new values of what `controls` ask for, as `Progress.watch`, while it is written.
    """

    n: int = 1
    messages: tuple[Message, ...] | None = None
    after: Candidate | None = None
    parents: tuple[Candidate, ...] = ()
    stop: tuple[str, ...] = ()
    step: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    logprobs: bool = False
    controls: Mapping[str, Any] = field(default_factory=dict)
    aside: bool = False
    lane: Address = ()
    watch: Watch | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What all models of one run on one problem share."""

    problem: Problem
    meter: Meter
    seed: int
    sampling: Sampling
    read_answer: ReadAnswer
    logprobs: bool = False
    """A scorer of this run reads logprobs, so every sample carries them."""
    listen: Listen | None = None
    """Told of the pieces of samples as they are written."""
    main: Engine | None = None
    """The engine that writes the answers."""
    asides: dict[str, Problem] = field(default_factory=dict)
    """Sub-questions that were asked, by id; their answers are read as theirs and are none of the problem's."""

    def within(self, problem: Problem) -> str | None:
        """The id that candidates for this problem carry: None for the run's own, else that of the sub-question."""
        if problem.id == self.problem.id:
            return None
        if self.asides.setdefault(problem.id, problem) != problem:
            raise ValueError(f"two sub-questions have the id {problem.id!r}; give each one of its own")
        return problem.id


class Model:
    """An engine in one role, metered.

    Calls of one lane are addressed in the order in which they are made; concurrent branches of a strategy each take
    their own `lane`, so that their randomness does not depend on timing.
    """

    def __init__(
        self,
        engine: Engine,
        run: Attempt,
        lane: Address = ("model",),
        *,
        kind: str = "sample",
        warm: list[tuple[Draw, list[Candidate]]] | None = None,
    ) -> None:
        self._engine = engine
        self._run = run
        self._lane = lane
        self._kind = kind
        self._warm = [] if warm is None else warm

    @property
    def name(self) -> str:
        """Name of the engine."""
        return self._engine.spec.name

    @property
    def powers(self) -> frozenset[Power]:
        """What the engine can do beyond sampling."""
        return self._engine.spec.powers

    @property
    def sampling(self) -> Sampling:
        """How samples are drawn where nothing else is said."""
        return self._run.sampling

    def cost(self, usage: Usage) -> dict[str, float]:
        """What this usage costs, by the units that are known for the engine."""
        return charge(self._engine.spec, [usage])

    def lane(self, *path: str | int) -> Model:
        """The same model with an address of its own; its parts must not contain "/", which joins them in ids."""
        if any("/" in str(part) for part in path):
            raise ValueError(f"a lane must not contain '/': {path}")
        return Model(self._engine, self._run, (*self._lane, *path), kind=self._kind, warm=self._warm)

    def starting_with(self, drawn: Sequence[Candidate], draw: Draw | None = None) -> Model:
        """The same model, whose first samples of the problem by this draw are these, which are paid for: a warm start.

        Further ones are the next children of their request, so only one model, with its lanes, may start with them.
        """
        before = ((kind, [*left]) for kind, left in self._warm if left)
        warm = [*before, (_kind(draw or Draw()), [*drawn])]
        return Model(self._engine, self._run, self._lane, kind=self._kind, warm=warm)

    def text(self, candidate: Candidate) -> str:
        """The whole text of a candidate, with what it continues."""
        return "".join(node.text for node in self.path(candidate))

    def path(self, candidate: Candidate) -> list[Candidate]:
        """The segments of a candidate from the first to itself."""
        return path(candidate, self._run.meter.candidates)

    async def cut(self, candidate: Candidate, keep: int) -> Candidate:
        """The first `keep` tokens of a candidate and what it continues, to be continued in another way.

        A draw after it goes on from exactly these tokens; no text is turned into tokens again. It has no tokens of its
        own, since nobody wrote it anew. A character that the cut goes through is not in its text, but in that of what
        continues it. Raises UsageError where the engine lacks the power "tokens", EngineError where the tokens of the
        candidate are not known, and ValueError where it has fewer.
        """
        segments = self.path(candidate)
        ids, logprobs = _joined([s.token_ids for s in segments]), _joined([s.logprobs for s in segments])
        if ids is None:
            raise EngineError(f"{self.name} did not tell the tokens of {candidate.id}, so it cannot be cut.")
        if not 0 <= keep <= len(ids):
            raise ValueError(f"keep must be from 0 to {len(ids)}, not {keep}")
        text = await self.tokenizing().decode(ids[:keep])
        return self._made(
            candidate,
            "cut",
            text=writable(text.rstrip("\N{REPLACEMENT CHARACTER}")),
            token_ids=ids[:keep],
            logprobs=None if logprobs is None or len(logprobs) != len(ids) else logprobs[:keep],
            finish="length",
        )

    async def inject(self, candidate: Candidate, text: str) -> Candidate:
        """The candidate continued with a given text, to be continued further; nobody wrote it, so it has no tokens.

        Where the engine has the power "tokens", what continues it goes on from the tokens of both; else their text is
        read anew, which can give other tokens than those that were written.
        """
        ids = await self.tokenizing().encode(text) if "tokens" in self.powers else None
        return self._made(
            candidate, "inject", continues=True, text=writable(text), token_ids=ids, logprobs=(), finish="stop"
        )

    async def made(self, problem: Problem, text: str, parents: Sequence[Candidate] = (), **known: Any) -> Candidate:
        """An answer to the problem that the model does not write now, with what else is known of it by field."""
        address, within = self._run.meter.next_request((*self._lane, "made")), self._run.within(problem)
        ids, text = tuple(parent.id for parent in parents), writable(text)
        candidate = Candidate(address=address, parents=ids, text=text, problem=within, **known)
        read = await with_answer(candidate, self._run)
        self._run.meter.candidates[read.id] = read
        return read

    def _made(self, candidate: Candidate, what: str, **fields: Any) -> Candidate:
        """A segment made from a candidate without the model; it is no answer."""
        address = self._run.meter.next_request((*candidate.address, what))
        made = Candidate(address=address, parents=(candidate.id,), complete=False, **fields)
        self._run.meter.candidates[made.id] = made
        return made

    def tokenizing(self) -> Tokenizing:
        """What turns text into tokens and back; raises UsageError where the engine does not."""
        if "tokens" not in self.powers:
            raise UsageError(f"{self.name} does not turn text into tokens and back; use another model.")
        return cast("Tokenizing", self._engine)

    async def sample(
        self,
        problem: Problem,
        n: int = 1,
        *,
        messages: tuple[Message, ...] | None = None,
        parents: tuple[Candidate, ...] = (),
        temperature: float | None = None,
        max_tokens: int | None = None,
        logprobs: bool = False,
        seen: OnSample | None = None,
    ) -> list[Candidate]:
        """Up to n complete samples, in the order of their addresses; `seen` is told of each while others are written.

        Fewer come back where the budget did not allow more or where some failed. Raises BudgetExhausted if nothing
        could be started, NothingCameBack if everything failed.
        """
        draw = Draw(
            n=n,
            messages=messages,
            parents=parents,
            temperature=temperature,
            max_tokens=max_tokens,
            logprobs=logprobs,
        )
        return (await self.sample_each(problem, [draw], seen=seen))[0]

    async def sample_each(
        self, problem: Problem, draws: Sequence[Draw], *, seen: OnSample | None = None
    ) -> list[list[Candidate]]:
        """The samples of several prompts as one batch, decided by the budget in order; errors as for `sample`.

        `seen` counts places draw by draw, and is for draws that continue nothing.
        """
        return await self._drawn([(await self._asked(problem, draw), draw) for draw in draws], seen)

    async def sample_fitting(self, problem: Problem, draws: Sequence[Draw]) -> list[list[Candidate]]:
        """As `sample_each`, where a prompt that does not fit the context has no samples and does not cost the others.

        Raises PromptTooLong if none fits.
        """
        refusals = await together(*(self._refusal(problem, draw) for draw in draws))
        fitting = [draw for draw, refusal in zip(draws, refusals, strict=True) if refusal is None]
        if not fitting:
            raise next(refusal for refusal in refusals if refusal is not None)
        drawn = iter(await self.sample_each(problem, fitting))
        return [next(drawn) if refusal is None else [] for refusal in refusals]

    async def _refusal(self, problem: Problem, draw: Draw) -> PromptTooLong | None:
        try:
            await self.bound(problem, draw)
            return None
        except PromptTooLong as refusal:
            return refusal

    async def _drawn(
        self, batch: Sequence[tuple[Request, Draw]], seen: OnSample | None = None
    ) -> list[list[Candidate]]:
        before = [self._taken(draw, request.n) for request, draw in batch]
        places = list(accumulate((request.n for request, _ in batch), initial=0))
        batch = [(_going_on(request, taken), draw) for (request, draw), taken in zip(batch, before, strict=True)]
        drawn: list[list[Candidate]] = [[] for _ in batch]
        known: dict[str, Candidate] = {}

        async def tell(sample: Candidate, place: int) -> None:
            known[sample.id] = await with_answer(sample, self._run)
            cast("OnSample", seen)(known[sample.id], place)

        def ended(group: _Group, child: int, completion: Completion) -> None:
            index, number = group.index, group.request.child + child
            sample = _candidate(group, number, completion, self._aside(group.request))
            begin(tell(sample, places[index] + len(before[index]) + number - batch[index][0].child))

        async with beside() as begin:
            if seen is not None:
                for start, taken in zip(places, before, strict=False):
                    for place, sample in enumerate(taken, start):
                        seen(sample, place)
            try:
                for group in await self._batch(batch, None if seen is None else ended):
                    drawn[group.index] += group.candidates
            except (BudgetExhausted, NothingCameBack):
                if not any(before):
                    raise
        for (request, draw), children in zip(batch, drawn, strict=True):
            if draw.after is None:  # one after the other, since a task for each costs more than reading it
                for place, child in enumerate(children):
                    await turn(READ)
                    children[place] = await self._with_answer(request, draw, child, known.get(child.id))
            else:
                await turn(READ * len(children))
                children[:] = await together(*(self._with_answer(request, draw, child, None) for child in children))
        return [[*taken, *children] for taken, children in zip(before, drawn, strict=True)]

    def _taken(self, draw: Draw, n: int) -> list[Candidate]:
        """Up to n samples that were drawn before this run and can stand for new ones; each is used once.

        They can where they were drawn in the same way, and have logprobs if those are wanted.
        """
        taken: list[Candidate] = []
        for left in self._alike(draw):
            while left and len(taken) < n:
                taken.append(left.pop(0))
        return taken

    def _alike(self, draw: Draw) -> list[list[Candidate]]:
        """What is left of each request whose samples can stand for those of this draw."""
        alike = (left for kind, left in self._warm if left and kind == _kind(draw))
        return [left for left in alike if not draw.logprobs or None not in [one.logprobs for one in left]]

    def draws(self, problem: Problem, draw: Draw | None = None) -> Draws:
        """The samples of one request, to be drawn a few at a time; `draw.n` does not matter."""
        return Draws(self, problem, draw or Draw())

    async def labels(
        self,
        problem: Problem,
        prompts: Sequence[tuple[Message, ...]],
        labels: tuple[str, ...],
        lanes: Sequence[Address] | None = None,
    ) -> list[tuple[float, ...] | None]:
        """Logprob of each label as the next word, for each prompt; None where the budget or a failure left none.

        Raises like `sample`, and UsageError where the engine cannot do it.
        """
        if "labels" not in self._engine.spec.powers:
            raise UsageError(f"{self.name} cannot give the probability of a label; use another model as judge.")
        draws = [Draw(messages=messages, temperature=0.0, max_tokens=1) for messages in prompts]
        logprobs: list[tuple[float, ...] | None] = [None] * len(prompts)
        batch: list[tuple[Request, Draw]] = []
        places: list[int] = []
        refusal: UsageError | None = None
        for place, draw in enumerate(draws):
            lane = self.lane(*lanes[place]) if lanes is not None else self
            request = replace(await lane._asked(problem, draw), labels=labels)
            try:
                await self._engine.bound(request)
            except UsageError as failure:  # one prompt that is too long must not cost the others
                refusal = failure
                continue
            batch.append((request, draw))
            places.append(place)
        if refusal is not None and not batch:
            raise refusal
        for group in await self._batch(batch):
            for _, completion in group.completions():
                logprobs[places[group.index]] = completion.labels
        return logprobs

    async def bound(self, problem: Problem, draw: Draw | None = None) -> dict[str, float]:
        """The worst cost of one sample of the problem, or of the draw, by unit."""
        request = await self._asked(problem, draw or Draw(), address=())
        return charge(self._engine.spec, [await self._engine.bound(request)])

    def request(self, problem: Problem, draw: Draw | None = None) -> Request:
        """What the engine is asked for a sample of the problem, or for the draw; it is not made, and has no address."""
        return self._request(problem, draw or Draw(), address=())

    async def _asked(self, problem: Problem, draw: Draw, address: Address | None = None) -> Request:
        await turn(_ASK if draw.after is None else READ)  # what is gone on from is copied
        return self._request(problem, draw, address)

    def _request(self, problem: Problem, draw: Draw, address: Address | None = None) -> Request:
        self._run.within(problem)
        sampling = self._run.sampling
        segments = [] if draw.after is None else self.path(draw.after)
        return Request(
            messages=problem.messages if draw.messages is None else draw.messages,
            prefix_ids=_joined([segment.token_ids for segment in segments]) or (),
            prefix_text="".join(segment.text for segment in segments),
            n=draw.n,
            max_tokens=sampling.cap if draw.max_tokens is None else draw.max_tokens,
            temperature=sampling.temperature if draw.temperature is None else draw.temperature,
            top_p=sampling.top_p,
            stop=draw.stop,
            logprobs=draw.logprobs or self._run.logprobs,
            controls=self._able(draw.controls),
            address=self._run.meter.next_request((*self._lane, *draw.lane)) if address is None else address,
            problem=problem.id,
            seed=self._run.seed,
            fields=self._fields(problem, draw),
        )

    def _able(self, controls: Mapping[str, Any]) -> Mapping[str, Any]:
        if controls and (lacking := sorted(controls.keys() - self.powers)):
            raise UsageError(f"{self.name} cannot do {', '.join(lacking)}; use a model that can.")
        return controls

    def _fields(self, problem: Problem, draw: Draw) -> Mapping[str, Any]:
        """What else is asked of an answer; of anything else that the same model writes, only what all of it is for."""
        asked, main = self._run.problem, self._engine is self._run.main
        shared = {name: value for name, value in asked.fields.items() if main and name in FOR_ALL}
        own = draw.messages is None and draw.after is None and not (draw.step or draw.stop or draw.aside)
        if self._kind != "sample" or not own:
            return shared
        settled = {"temperature"} if draw.temperature is not None else set()
        if draw.max_tokens is not None:
            settled |= {"max_tokens", "max_completion_tokens"}
        fields = problem.fields if problem.id == asked.id else {**shared, **problem.fields}
        return {name: value for name, value in fields.items() if name not in settled}

    async def _batch(self, batch: Sequence[tuple[Request, Draw]], ended: Ended | None = None) -> list[_Group]:
        """Start what the budget admits, in order; the groups that were started, sorted by request and child."""
        groups: list[_Group] = []
        # what is refused is refused before any starts
        bounds = await lazily(_BOUNDS, self._engine.bound, [request for request, _ in batch])
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, ((request, draw), bound) in enumerate(zip(batch, bounds, strict=True)):
                    child, end = request.child, request.child + request.n
                    while child < end:
                        await turn(_BEGIN)
                        worst = charge(self._engine.spec, [bound])
                        reservation = await self._run.meter.admit(worst, end - child)
                        if reservation is None:
                            break
                        part = self._part(request, child, reservation.n)
                        group = _Group(index, part, draw, bound, reservation, self._listener(request), ended)
                        groups.append(group)
                        tasks.create_task(self._generate(group))
                        child += reservation.n
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0]  # noqa: B904 - its own cause matters, not the group's
        finally:
            for group in groups:
                if not group.begun:  # a task that is cancelled before its first step runs no line of its code
                    self._run.meter.release(group.reservation)
        if not groups and any(request.n for request, _ in batch):
            raise BudgetExhausted("Nothing more fits into the budget.")
        if groups and not any(group.completions() for group in groups):
            first = next((group for group in groups if group.error), groups[0])
            raise NothingCameBack(f"{self.name}: {first.error or 'no result'}") from first.failure()
        return groups

    def _listener(self, request: Request) -> Listen | None:
        """Who is told of the pieces; those of a sub-question's answer are no answer to the problem."""
        return self._run.listen if self._aside(request) is None else None

    def _part(self, request: Request, first: int, n: int) -> Request:
        children = range(first, first + n)
        seeds = tuple(child_seed(request.seed, request.problem, request.address, child) for child in children)
        return replace(request, n=n, child=first, seeds=seeds)

    async def _generate(self, group: _Group) -> None:
        group.begun = True
        started = self._run.meter.now()
        cancelled = False
        self._run.meter.running[id(group.progress)] = LiveGroup(group.progress, partial(self._fresh, group))
        try:
            await self._engine.generate(group.request, group.progress)
            for child, result in self._unkept(group):
                await turn(_KEEP)
                self._keep(group, child, result)
        except asyncio.CancelledError:
            cancelled = True
            raise
        except EngineError as failure:
            group.error = str(failure)
        except Exception as failure:  # a bug in an engine must not lose what the others return
            group.error = f"{type(failure).__name__}: {failure}"
        finally:
            del self._run.meter.running[id(group.progress)]
            for child, result in self._unkept(group):  # before anything else can fail or be cancelled: it is paid for
                self._keep(group, child, result)
            self._settle(group, started, cancelled)

    def _fresh(self, group: _Group) -> list[Candidate]:
        return [_candidate(group, *one, self._aside(group.request)) for one in self._unkept(group)]

    def _unkept(self, group: _Group) -> list[tuple[int, Completion]]:
        return [] if group.request.labels else group.completions()[len(group.candidates) :]

    def _keep(self, group: _Group, child: int, completion: Completion) -> None:
        candidate = _candidate(group, child, completion, self._aside(group.request))
        group.candidates.append(candidate)
        self._run.meter.candidates[candidate.id] = candidate

    def _settle(self, group: _Group, started: float, cancelled: bool) -> None:
        request, progress = group.request, group.progress
        # an engine that has mislaid a child is charged for it all the same
        progress.tokens = (progress.tokens + [0] * request.n)[: request.n]
        progress.results = (progress.results + [None] * request.n)[: request.n]
        failed = 0 if cancelled else request.n - len(group.completions())
        if failed and group.error is None:
            cause = next((str(result) for result in progress.results if isinstance(result, EngineError)), "no result")
            group.error = f"{failed} of {request.n} failed: {cause}"
        if cancelled:
            refused = (one for one in progress.results if isinstance(one, Refused) and not isinstance(one, Unsent))
            self._run.meter.refusal = next(refused, self._run.meter.refusal)
        seen, charged = progress.usage(), charged_of_each(progress, group.bound)
        total = Usage.total(charged)
        exceeded = self._run.meter.settle(
            group.reservation,
            Call(
                kind=self._kind,
                role=str(self._lane[0]),
                address=(*request.address, request.child),
                n=request.n,
                failed=failed,
                outcome="cancelled" if cancelled else "failed" if failed == request.n else "ok",
                error=group.error or progress.disputed,
                attempts=progress.attempts,
                seen=seen,
                charged=total,
                reads=progress.reads,
                exact=seen == total,
                cost=charge(self._engine.spec, charged),
                started=started,
                ended=self._run.meter.now(),
                prompt=self._run.meter.prompt(request.messages),
                after=None if group.draw.after is None else group.draw.after.id,
                sampling=progress.sent or request.sampling(self._engine.spec),
            ),
        )
        if exceeded:
            self._engine.learn(request, progress)

    def _aside(self, request: Request) -> str | None:
        """The sub-question that a request is for; None: the problem itself."""
        return None if request.problem == self._run.problem.id else request.problem

    async def _with_answer(self, request: Request, draw: Draw, child: Candidate, known: Candidate | None) -> Candidate:
        if draw.after is not None and draw.after.finish == "length" and child.finish != "stop":
            child = await self._rejoined(request, child)
        if known is not None and known.text == child.text:
            read = replace(child, answer=known.answer, key=known.key)
        else:
            read = await with_answer(child, self._run)
        self._run.meter.candidates[child.id] = read
        return read

    async def _rejoined(self, request: Request, child: Candidate) -> Candidate:
        """The child with the text of its tokens after those that it continues: the two may share a character."""
        if not (request.prefix_ids and child.token_ids and "tokens" in self.powers):
            return child
        try:
            whole = await self.tokenizing().decode((*request.prefix_ids, *child.token_ids))
        except EngineError:  # it is paid for, and at most a character is wrong
            return child
        before, text = whole[: len(request.prefix_text)], whole[len(request.prefix_text) :]
        return replace(child, text=writable(text)) if before == request.prefix_text else child


async def with_answer(candidate: Candidate, run: Attempt) -> Candidate:
    """The candidate with its answer read, where it is complete."""
    if not candidate.complete:
        return candidate
    text = "".join(node.text for node in path(candidate, run.meter.candidates))
    problem = run.problem if candidate.problem is None else run.asides[candidate.problem]
    answer, key = await run.read_answer(problem, text)
    return replace(candidate, answer=answer, key=key)


class Draws:
    """The samples of one request, drawn a few at a time.

    The k-th sample is the same in whatever portions they are drawn, and the same as that of one `sample` at the same
    place: an adaptive strategy sees a beginning of what self-consistency sees. Portions may be drawn concurrently.
    """

    def __init__(self, model: Model, problem: Problem, draw: Draw) -> None:
        self._model, self._draw = model, draw
        self._before = model._taken(draw, max(map(len, model._alike(draw)[:1]), default=0))  # those of one request
        address = self._before[-1].address[:-1] if self._before else None
        self._request = _going_on(model._request(problem, replace(draw, n=0), address), self._before)

    @property
    def ready(self) -> int:
        """Samples that are there before they are drawn."""
        return len(self._before)

    async def draw(self, n: int = 1, watch: Watch | None = None) -> list[Candidate]:
        """Up to n further samples, in order; errors as for `Model.sample`. `watch` is as that of `Draw`."""
        taken, self._before = self._before[:n], self._before[n:]
        draw, request = replace(self._draw, n=n - len(taken), watch=watch), self._request
        self._request = replace(request, child=request.child + draw.n)
        try:
            drawn = (await self._model._drawn([(replace(request, n=draw.n), draw)]))[0] if draw.n else []
        except (BudgetExhausted, NothingCameBack):
            if not taken:
                raise
            drawn = []
        return [*taken, *drawn]


class Models:
    """Models by role."""

    def __init__(self, engines: Mapping[str, Engine], run: Attempt) -> None:
        self._engines = engines
        self._run = run

    def has(self, role: str) -> bool:
        """Whether a model of its own was given for this role."""
        return role in self._engines

    def role(self, role: str) -> Model:
        """The model of this role, else the main model under this role's address."""
        engine = self._engines.get(role, self._engines["model"])
        return Model(engine, self._run, (role,), kind="judge" if role == "judge" else "sample")


Ended = Callable[["_Group", int, Completion], None]


@dataclass(slots=True)
class _Group:
    """Children of one request that were started together."""

    index: int
    request: Request
    draw: Draw
    bound: Usage
    reservation: Reservation
    listen: Listen | None = None
    ended: Ended | None = None
    candidates: list[Candidate] = field(default_factory=list)
    progress: Progress = field(init=False)
    error: str | None = None
    begun: bool = False

    def __post_init__(self) -> None:
        self.progress = Progress(
            n=self.request.n,
            listen=None if self.listen is None else self._heard,
            ended=None if self.ended is None else partial(self.ended, self),
            watch=self.draw.watch,
        )

    def _heard(self, child: int, piece: Mapping[str, Any]) -> None:
        if self.listen is not None and not self.draw.aside:
            self.listen((*self.request.address, self.request.child + child), piece)

    def completions(self) -> list[tuple[int, Completion]]:
        """The children that are done, with their numbers."""
        results = enumerate(self.progress.results, start=self.request.child)
        return [(child, result) for child, result in results if isinstance(result, Completion)]

    def failure(self) -> EngineError | None:
        """Why its first failed child failed."""
        return next((result for result in self.progress.results if isinstance(result, EngineError)), None)


def _going_on(request: Request, taken: Sequence[Candidate]) -> Request:
    """What is left of a request of which these are there already: in the same lane, the further children of theirs."""
    left = replace(request, n=max(request.n - len(taken), 0))
    if not taken or taken[-1].address[:-2] != request.address[:-1]:
        return left
    return replace(left, address=taken[-1].address[:-1], child=int(taken[-1].address[-1]) + 1)


def _kind(draw: Draw) -> Draw:
    """What samples that can stand for each other have in common."""
    return replace(draw, n=1, logprobs=False, lane=(), watch=None)


def _joined(parts: Sequence[tuple[T, ...] | None]) -> tuple[T, ...] | None:
    """The parts one after the other; None where one is not known."""
    known = [part for part in parts if part is not None]
    return tuple(value for part in known for value in part) if len(known) == len(parts) else None


def _candidate(group: _Group, child: int, completion: Completion, problem: str | None) -> Candidate:
    draw, kept = group.draw, completion.storable()
    influences = draw.parents if draw.after is None else (draw.after, *draw.parents)
    return Candidate(
        address=(*group.request.address, child),
        parents=tuple(parent.id for parent in influences),
        continues=draw.after is not None,
        text=kept.text,
        tokens=completion.tokens,
        token_ids=completion.token_ids,
        logprobs=kept.logprobs,
        finish=completion.finish,
        observed=kept.observed,
        problem=problem,
        artifact=completion.artifact,
        complete=not draw.aside and (completion.finish == "eos" or (completion.finish == "stop" and not draw.step)),
        sent=completion.sent,
    )
