"""A model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, hosted APIs.

What a server does with a field is not assumed but was probed with real requests (`models.probe`), because many ignore
fields in silence. Answers are streamed, so that what a cancelled or cut-off request had written is known; closing the
connection aborts the work. Source: OpenAI's API reference and vLLM's, SGLang's and llama.cpp's servers. Differs from
their clients: a request that may have been worked on is never repeated (see `endpoint`), and usage that is missing,
or less than what was seen, is not believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from operator import index
from typing import Any, Literal

from outthink.errors import EngineError, PromptTooLong, Refused, Unsent, Withheld
from outthink.models.endpoint import Endpoint, Patience, Sending
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request, sampling_of
from outthink.models.facts import Facts
from outthink.models.openai.answers import Answers, watched
from outthink.models.openai.prompts import Prompt, Prompts
from outthink.models.openai.writing import Writing
from outthink.together import together
from outthink.types import Usage, writable

_logger = logging.getLogger(__name__)

_MOST_CHILDREN = 128  # of one request; more are asked for in several
_SHORT = 16  # completion tokens up to which an answer is not worth streaming
_PROMPTS = 4096  # prompts that are remembered
_PROMPT_TOKENS = 1 << 21  # of them all together; some 70 MB
_MEDIA = 2048  # tokens of an image or a sound, beyond the bytes that describe it; what a model makes of it is not told
_SLACK = 32  # tokens that may be written between the last that was seen and the end of the work
_LIKELY, _FEW = 10, 64  # bytes of a token on the mean of an answer, and beyond, that are likely within a cap
_PER_ANSWER = 8  # tokens that mark the beginning and the end of an answer, and are never shown
_UNLIKELY, _TEMPLATE = 4, 4096  # how often its bound, and how many tokens beyond, a prompt cannot be
_THINKING = 2048  # tokens that an answer needs, at least, with thoughts that are not shown
_AT_HAND = 0.01  # seconds for reading what has come of a stream that is closed
_CLOSING = 64  # tokens that a server without a cap may write until its stream is closed
_CONTROLS = {"logit_bias": "logit_bias", "thinking_budget": "thinking_token_budget"}  # their names in the API
_BELIEVED = 1 << 20  # tokens of one answer; more than that is charged, but no later call is expected to use so many
# fields that chat templates write into the prompt, or that change what they write


class OpenAIEngine:
    """A model at an endpoint.

    Prompts are bounded by the server's own count where it has one; else by their UTF-8 bytes, since no token is less
    than one byte, and an overhead per prompt and message that is raised when it was too low. Of n children in one
    request the server reports one sum of tokens; what a child wrote is known where the server sends ids or logprobs
    of every token, else the sum is shared out by the pieces each has sent.

    Args:
        endpoint: the server.
        facts: what it does.
        price: US dollars per million tokens; None where unknown.
    """

    def __init__(self, endpoint: Endpoint, facts: Facts, *, price: Price | None = None) -> None:
        self.probing = Usage()
        """Tokens that it took to find out what the server does; none where that was known."""
        self._endpoint = endpoint
        self._facts = facts
        self._overhead = facts.overhead
        self._asked = Prompts()
        self._prompts: OrderedDict[bytes, tuple[int, ...] | int] = OrderedDict()
        self._prompt_tokens = 0
        # what was learned since the probe: tokens beyond the cap, answers in place of one, thoughts that are not shown
        self._beyond = 0 if facts.capped or not facts.stream else _CLOSING
        self._times = 1
        self._hidden = facts.hidden
        self._said: set[str] = set()
        self._spec = EngineSpec(
            name=facts.model,
            context=facts.context,
            powers=facts.powers,
            price=price,
            fields=None,
            usual=_THINKING if facts.hidden else None,
        )

    @classmethod
    def open(
        cls, url: str, *, price: Price | None = None, patience: Patience | None = None, fresh: bool = False
    ) -> OpenAIEngine:
        """The model at `url`, which may end in #MODEL; what the server does is probed, or taken from the last probe.

        Raises UsageError where the address, the model or a key is wrong, and EngineError where the server is not there.
        """
        from outthink.models.probe import probed  # here, because most engines need no probe

        return cls._probed(*probed(url, patience=patience, fresh=fresh), price)

    @classmethod
    async def open_async(cls, url: str, *, price: Price | None = None) -> OpenAIEngine:
        """As `open`, in the event loop that runs."""
        from outthink.models.probe import find

        return cls._probed(*await find(url), price)

    @classmethod
    def _probed(cls, endpoint: Endpoint, facts: Facts, used: Usage, price: Price | None) -> OpenAIEngine:
        engine = cls(endpoint, facts, price=price)
        engine.probing = used
        return engine

    @property
    def spec(self) -> EngineSpec:
        """What it is and can do."""
        return self._spec

    @property
    def facts(self) -> Facts:
        """What its server does."""
        return self._facts

    async def bound(self, request: Request) -> Usage:
        """The prompt, by the server's count or by bytes, and `max_tokens`.

        Raises PromptTooLong where the server's own count shows that it cannot fit.
        """
        by_ids = self._by_ids(request)
        asked = self._asked(request.messages, request.fields)
        prefix = len(request.prefix_ids) if by_ids else len(request.prefix_text.encode())
        media = _MEDIA * asked.media
        if not self._facts.tokenize:
            prompt = self._overhead + asked.size + media + prefix
            return Usage(prompt=prompt, completion=self._most(request.max_tokens))
        known = await self._prompt(asked)
        prompt, context = (known if isinstance(known, int) else len(known)) + media, self._facts.context
        if context is not None and prompt + (prefix if by_ids else 0) + request.max_tokens > context:
            raise PromptTooLong(
                f"The prompt of {prompt + prefix:,} tokens and up to {request.max_tokens:,} new ones exceed the "
                f"context of {self._spec.name}, {context:,} tokens: shorten the prompt or lower max_tokens."
            )
        # a text is read together with the prompt, which may cost a few tokens more than its bytes
        seam = 8 if prefix and not by_ids else 0
        return Usage(prompt=prompt + seam + prefix, completion=self._most(request.max_tokens))

    def _most(self, cap: int) -> int:
        """The most that a server which was seen to exceed its caps writes under this one."""
        return cap * self._times + self._beyond

    async def generate(self, request: Request, progress: Progress) -> None:
        """One request for all children where the server does that, else one for each."""
        progress.slack = 0  # what is not known of a child is said by `most`
        bound = await self.bound(request)
        groups = self._groups(request)
        progress.reads = len(groups)
        await together(*(self._group(request, group, progress, bound) for group in groups))

    def learn(self, request: Request, progress: Progress) -> None:
        """Raise the overhead of prompts where one was longer than promised, and what an answer may be beyond its cap.

        What is disputed is no measure: one false report must not make every later call too dear.
        """
        each = -(-progress.prompt // len(self._groups(request)))
        size = self._asked(request.messages, request.fields).size + len(request.prefix_text.encode())
        if each - size <= _BELIEVED:
            self._overhead = max(self._overhead, each - size)
        charged = [most.completion for most in progress.most.values()]
        written = -(-(sum(progress.tokens) if progress.disputed else sum(charged)) // max(len(charged), 1))
        if written <= _BELIEVED:
            self._beyond = max(self._beyond, written - request.max_tokens * self._times)

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, as the server says."""
        asked = {"model": self._facts.model, "prompt": text, "add_special_tokens": False}
        reply = await self._endpoint.post("../tokenize", asked)
        try:
            return tuple(map(index, reply["tokens"]))
        except (TypeError, KeyError):
            raise self._forgotten("tokenize") from None

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, as the server says."""
        if not ids:
            return ""
        reply = await self._endpoint.post("../detokenize", {"model": self._facts.model, "tokens": list(ids)})
        text = reply.get("prompt") if isinstance(reply, dict) else None
        if not isinstance(text, str):
            raise self._forgotten("detokenize")
        return text

    async def reached(self) -> bool:
        """Whether the server is there, by one small request."""
        return await self._endpoint.reached()

    async def close(self) -> None:
        """Close its connections."""
        await self._endpoint.close()

    # ------------------------------------------------------------------------------------------------ one request

    def _groups(self, request: Request) -> list[range]:
        """The children of each request to the server; some servers refuse several that would all be the same."""
        size = _MOST_CHILDREN if self._facts.n and request.temperature > 0 else 1
        return [range(first, min(first + size, request.n)) for first in range(0, request.n, size)]

    async def _group(self, request: Request, group: range, progress: Progress, bound: Usage) -> None:
        """Ask for the children of `group`; a failure is theirs alone."""
        answers = watched(progress, group, self._near(request), keeps=bool(request.fields.get("logprobs")))
        sending = Sending()
        failure: EngineError | None = None
        left = False
        try:
            await self._ask(request, answers, sending)
            failure = self._too_few(answers, sending)
        except asyncio.CancelledError:
            left = True
            raise
        except EngineError as cause:
            failure = cause
        finally:  # when it is cancelled, too: what had ended by then is kept
            progress.attempts = max(progress.attempts, sending.attempts)
            if sending.open:
                self._settle(request, progress, bound, answers, failure, left=left)
            else:
                unsent = failure or sending.refusal or Unsent("It was cancelled before it was sent.")
                for written in answers.writing:
                    progress.tokens[written.child] = 0
                    progress.results[written.child] = unsent

    def _too_few(self, answers: Answers, sending: Sending) -> EngineError:
        """Why those that have not ended came to nothing."""
        if answers.closed:
            return EngineError(f"{self._endpoint.url} wrote on beyond the most tokens that were asked for.")
        said = f": {sending.words}" if sending.words else "."
        return EngineError(f"{self._endpoint.url} sent fewer whole answers than it was asked for{said}")

    def _streams(self, request: Request) -> bool:
        """Whether the answer is streamed."""
        return not self._facts.whole or (self._facts.stream and request.max_tokens > _SHORT)

    async def _ask(self, request: Request, answers: Answers, sending: Sending) -> None:
        """Fill `answers`."""
        path, body, messages = await self._body(request, [written.child for written in answers.writing])
        for written in answers.writing:
            written.progress.sent = sampling_of(body)
        streams = self._streams(request)
        if streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        said = json.dumps(body).encode()
        said = said if messages is None else b'%b, "messages": %b}' % (said[:-1], messages)
        async with contextlib.aclosing(self._endpoint.batches(path, said, sending)) as batches:
            async for batch in batches:
                for place, event in enumerate(batch, 1):
                    try:
                        answers.read(event)
                    except (AttributeError, TypeError, ValueError, KeyError, OverflowError):
                        raise EngineError(f"{self._endpoint.url} sent something else than its API promises.") from None
                    for written in answers.over():
                        self._tell(request, answers, written)
                    if streams and answers.past(request.max_tokens):
                        answers.close(request.max_tokens)
                        await _at_hand(batch[place:], batches, answers)
                        return  # which closes the connection, and so ends the work
        if (sending.ended or answers.settled) and not sending.words:  # words that may be why it broke off
            answers.finish(request.max_tokens)
        answers.whole = True

    def _tell(self, request: Request, answers: Answers, written: Writing) -> None:
        """Tell of a child that has ended while others are written; not of one that came to nothing."""
        with contextlib.suppress(EngineError):
            whole = answers.told[written.child] = self._completion(request, written, written.tokens)
            assert written.progress.ended is not None
            written.progress.ended(written.child, whole)

    async def _body(self, request: Request, group: Sequence[int]) -> tuple[str, dict[str, Any], bytes | None]:
        """Where to send what, and the messages as JSON, which are long and were written before."""
        facts = self._facts
        by_ids = self._by_ids(request)
        cap = "max_tokens" if by_ids else facts.cap
        body: dict[str, Any] = {"model": facts.model, cap: request.max_tokens}
        if not facts.plain:
            body["temperature"] = self._temperature(request.temperature)
            if facts.nucleus:
                body["top_p"] = request.top_p
        else:
            self._say("temperatures", "%s takes no temperature, so it draws all samples at its own.", facts.model)
        if len(group) > 1:
            body["n"] = len(group)
        if facts.seed and request.seeds:
            body["seed"] = request.seeds[group[0]]
        if request.stop and facts.stop is not None:
            body["stop"] = list(request.stop)
            if facts.stop == "kept":
                body["include_stop_str_in_output"] = True
        if facts.token_ids:
            body["return_token_ids"] = True
        body |= {_CONTROLS[name]: value for name, value in request.controls.items() if name in _CONTROLS}
        messages, near = self._asked(request.messages, request.fields).sent, self._near(request)
        if by_ids:
            prompt = await self._prompt(self._asked(request.messages, {}))
            if not isinstance(prompt, tuple):
                raise self._forgotten("tokenize")
            body |= {"prompt": [*prompt, *request.prefix_ids], "add_special_tokens": False}
            if near or request.logprobs:
                body["logprobs"] = near
            given = {name: value for name, value in request.fields.items() if value is not None}
            return "completions", body | given, None
        if request.prefix_text:
            begun = json.dumps({"role": "assistant", "content": request.prefix_text}).encode()
            messages = b"%b, %b]" % (messages[:-1], begun)
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.labels:
            body |= {cap: 1, "logprobs": True, "top_logprobs": facts.labels}
        elif near:
            body |= {"logprobs": True, "top_logprobs": near}
        elif request.logprobs:
            body["logprobs"] = True
        if request.fields:
            body |= self._given(request, group)
            for name in [name for name, value in request.fields.items() if value is None]:
                body.pop(name, None)
        return "chat/completions", body, messages

    def _given(self, request: Request, group: Sequence[int]) -> dict[str, Any]:
        """The further fields of the request, as they are.

        A seed is that of the first child, and child k has the one k above it, as vLLM has it within a request. Later
        requests of a run need seeds of their own, or what is drawn anew would be drawn again.
        """
        given = {name: value for name, value in request.fields.items() if value is not None}
        if type(seed := given.get("seed")) is int:
            first = request.address in ((), ("model", 0))
            given["seed"] = seed + request.child + group[0] if first else request.seeds[group[0]]
        if (request.logprobs or request.controls) and not given.get("logprobs"):
            given.pop("logprobs", None)  # a scorer reads them; who asked for none is not shown any
        if request.stop:
            given.pop("stop", None)  # steps end otherwise; whoever asks for both is refused before
        return given

    def _near(self, request: Request) -> int:
        """How many of the likeliest tokens are asked for in the place of each; 0: none."""
        return min(int(request.controls.get("top_logprobs") or 0), self._facts.labels)

    def _by_ids(self, request: Request) -> bool:
        return bool(request.prefix_ids) and self._facts.prefix == "ids"

    def _temperature(self, wanted: float) -> float:
        """The nearest to the one that is wanted that the server takes."""
        facts = self._facts
        sent = max(wanted, facts.coldest)
        sent = sent if facts.hottest is None else min(sent, facts.hottest)
        if sent != wanted:
            edge = "below" if sent > wanted else "above"
            self._say(
                edge, f"%s takes no temperature {edge} %g, which is sent in place of %g.", facts.model, sent, wanted
            )
        return sent

    def _say(self, what: str, *words: Any) -> None:
        """Tell people something about the server, once."""
        if what not in self._said:
            self._said.add(what)
            _logger.warning(*words)

    def _settle(
        self,
        request: Request,
        progress: Progress,
        bound: Usage,
        answers: Answers,
        failure: EngineError | None,
        *,
        left: bool,
    ) -> None:
        """Share out what the server reports, finish the children that have ended, and give `failure` to the others.

        Args:
            left: the request was cancelled here.
        """
        writing = answers.writing
        ended = all(written.end is not None for written in writing)
        # usage that was told on the way does not hold for what the stream has not finished
        on_the_way = any(written.tokens and written.end is None for written in writing)
        usage = answers.usage if not answers.closed and (ended or (answers.whole and not on_the_way)) else None
        completion = None if usage is None else usage.completion
        if completion is not None and completion < answers.least():
            completion = None  # less than what was seen is not believed
        prompt, cached = (None, 0) if usage is None else (usage.prompt, usage.cached)
        tokens = [written.tokens for written in writing]
        self._watch(request, bound, answers, completion, prompt, progress)
        if completion is None:
            most = [self._at_most(written, request, bound, answers, left=left) for written in writing]
            extra = [self._at_most(one, request, bound, answers, left=left) for one in answers.surplus.values()]
            most[0] += sum(extra)
        else:
            most = _shared(completion, tokens)
            tokens = tokens if progress.disputed else most
        progress.prompt += prompt or 0
        progress.cached += cached
        for place, (written, count) in enumerate(zip(writing, most, strict=True)):
            read, held = (bound.prompt, 0) if prompt is None else (_part(prompt, place, len(writing)), cached)
            progress.most[written.child] = Usage(
                prompt=read, cached=min(read, _part(held, place, len(writing))), completion=count
            )
            progress.tokens[written.child] = tokens[place]
            progress.results[written.child] = failure
            if written.end is not None:
                try:
                    whole = self._completion(request, written, tokens[place])
                except EngineError as cause:
                    progress.results[written.child] = answers.told.get(written.child, cause)
                    continue
                told = answers.told.get(written.child)
                if told is None:
                    progress.finish(written.child, whole)
                else:  # a server may write on after an end, but what was told of it stands
                    progress.results[written.child] = (
                        whole if _same(told, whole) else replace(told, tokens=whole.tokens)
                    )
        if completion is None:  # the answers that nobody asked for were seen as well
            progress.tokens[writing[0].child] += sum(one.tokens for one in answers.surplus.values())

    def _at_most(self, written: Writing, request: Request, bound: Usage, answers: Answers, *, left: bool) -> int:
        """The most tokens that one answer may have, where the server has not told."""
        if written.counted and written.end is not None and not answers.closed:
            return written.tokens
        if answers.closed:
            return written.most() + _SLACK
        cap = max(bound.completion, written.tokens)
        if left and self._streams(request) and not (self._facts.goes_on or self._hidden):
            # closing the connection ends the work, so what was not seen is little
            return min(cap, written.most() + _SLACK)
        if self._facts.capped and written.bytes() <= _LIKELY * cap + _FEW:
            return cap
        return max(cap, written.most() + _PER_ANSWER)  # the cap has been ignored, or may have been

    def _watch(
        self,
        request: Request,
        bound: Usage,
        answers: Answers,
        completion: int | None,
        prompt: int | None,
        progress: Progress,
    ) -> None:
        """Learn what the server does beyond what it was asked for, and dispute what it cannot have done."""
        n = len(answers.writing)
        self._times = max(self._times, -(-len(answers.every) // n))
        shown = sum(written.bytes() for written in answers.every)
        if completion is not None and self._streams(request) and completion > shown + _PER_ANSWER * n:
            self._hidden = True
        seen = sum(written.tokens for written in answers.every)
        disputes = []
        thoughts = 0 if answers.usage is None else min(answers.usage.reasoning, _BELIEVED)
        if completion is not None and completion - thoughts > max(bound.completion * n, shown + _SLACK * n):
            disputes.append(f"{completion:,} tokens written, of which {seen:,} were seen")
        if prompt is not None and prompt > _UNLIKELY * bound.prompt + _TEMPLATE:
            disputes.append(f"{prompt:,} tokens read, where at most {bound.prompt:,} were expected")
        if disputes:
            progress.disputed = f"{self._facts.model} reports {' and '.join(disputes)}; it is charged all the same."

    def _completion(self, request: Request, written: Writing, tokens: int) -> Completion:
        if written.end not in ("ended", "cut"):
            why = self._endpoint.clean(written.complaint or written.finish)
            raise (Withheld if written.end == "withheld" else EngineError)(
                f"{self._endpoint.url} did not finish an answer ({why})."
            )
        if request.labels:
            return Completion(
                text=written.text(), tokens=tokens, finish="length", labels=_labels(request.labels, written.top)
            )
        text, ids, logprobs = written.text(), tuple(written.ids) or None, tuple(written.logprobs) or None
        finish: Literal["eos", "stop", "length"] = "length" if written.end == "cut" else "eos"
        kept = self._facts.stop == "kept"
        stopped = next((s for s in request.stop if s == written.stopped or (kept and text.endswith(s))), None)
        if finish == "eos" and stopped is not None:
            finish = "stop"
            text += "" if text.endswith(stopped) else stopped
        elif finish == "eos" and not (written.last and text.endswith(written.last)):
            # the last token is the mark that ended the text, if each was told
            ids = ids[:-1] if ids and len(ids) == tokens else ids
            logprobs = logprobs[:-1] if logprobs and len(logprobs) == tokens else logprobs
        cut = _cut(text, request.stop) if self._facts.stop is None else None
        if cut is not None:  # the server went on after the stop string: the ids of the rest are not wanted
            text, finish, ids, logprobs = text[:cut], "stop", None, None
        sent = written.sent(tokens, bool(request.fields.get("logprobs")))
        asked = "top_logprobs" in request.controls
        near = {"k": written.nearest, "confidences": list(written.confidences)}
        return Completion(
            text=writable(text),
            tokens=tokens,
            token_ids=ids,
            logprobs=logprobs,
            finish=finish,
            observed={"top_logprobs": near} if asked else {},
            sent=sent,
        )

    # ------------------------------------------------------------------------------------------------ prompts

    async def _prompt(self, asked: Prompt) -> tuple[int, ...] | int:
        """Token ids of the prompt, or how many they are where the server does not say more."""
        if asked.digest in self._prompts:
            self._prompts.move_to_end(asked.digest)
            return self._prompts[asked.digest]
        body = {"model": self._facts.model, "messages": asked.messages, **asked.described}
        reply = await self._endpoint.post("../tokenize", body)
        try:
            ids = tuple(map(index, reply.get("tokens") or ()))
            known: tuple[int, ...] | int = ids or index(reply["count"])
        except (AttributeError, TypeError, KeyError):
            raise self._forgotten("tokenize") from None
        self._prompts[asked.digest] = known
        self._prompt_tokens += _ids(known)
        while len(self._prompts) > _PROMPTS or (self._prompt_tokens > _PROMPT_TOKENS and len(self._prompts) > 1):
            self._prompt_tokens -= _ids(self._prompts.popitem(last=False)[1])
        return known

    def _forgotten(self, what: str) -> Refused:
        return Refused(f"{self._endpoint.url} does not {what} any more; probe it again.")


async def _at_hand(rest: Sequence[Any], batches: AsyncIterator[list[Any]], answers: Answers) -> None:
    """Count what has come already: where this process had to wait for its turn, that may be much."""
    with contextlib.suppress(TimeoutError, EngineError, AttributeError, TypeError, ValueError, KeyError, OverflowError):
        for event in rest:
            answers.read(event)
        async with asyncio.timeout(_AT_HAND):
            async for batch in batches:
                for event in batch:
                    answers.read(event)


def _same(one: Completion, other: Completion) -> bool:
    """Whether both say the same to whoever reads them."""
    return one.text == other.text and (one.sent or {}).get("message") == (other.sent or {}).get("message")


def _ids(prompt: tuple[int, ...] | int) -> int:
    return 0 if isinstance(prompt, int) else len(prompt)


def _part(total: int, place: int, n: int) -> int:
    """The whole share of `total` that is that of one of n; the first ones take one more each."""
    return total // n + (place < total % n)


def _shared(total: int, seen: Sequence[int]) -> list[int]:
    """`total` shared out in proportion to what was seen of each, and never less than that."""
    rest = max(0, total - sum(seen))
    weights = seen if any(seen) else [1] * len(seen)
    whole = sum(weights)
    more = [rest * weight // whole for weight in weights]
    order = sorted(range(len(seen)), key=lambda child: (-(rest * weights[child] % whole), child))
    for child in order[: rest - sum(more)]:
        more[child] += 1
    return [part + extra for part, extra in zip(seen, more, strict=True)]


def _labels(labels: Sequence[str], top: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """Logprob of each label: of all the likeliest tokens that spell it, in any case and with blanks around it.

    One that is not among them is at most as likely as the least of them, which is taken (GenPRM's rule). Raises
    EngineError where none is among them: nothing is known then.
    """
    known = [(token.strip().lower(), value) for token, value in top if not math.isnan(value)]
    masses = [
        math.fsum(math.exp(min(value, 0.0)) for token, value in known if token == label.lower()) for label in labels
    ]
    if not any(masses):
        raise EngineError(f"None of {', '.join(labels)} is among the likeliest next words.")
    least = min(value for _, value in known)
    return tuple(math.log(mass) if mass > 0 else least for mass in masses)


def _cut(text: str, stops: Sequence[str]) -> int | None:
    """Where the text ends by the first stop string in it; None where there is none."""
    return min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
