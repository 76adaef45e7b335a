"""A model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, hosted APIs.

What a server does with a field is not assumed but was probed with real requests (`models.probe`), because many ignore
fields in silence. Answers are streamed, so that what a cancelled or cut-off request had written is known; closing the
connection aborts the work. Source: OpenAI's API reference and vLLM's, SGLang's and llama.cpp's servers. Differs from
their clients: a request that may have been worked on is never repeated (see `endpoint`), and usage that is missing,
or less than what was seen, is not believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, Literal

from outthink.errors import EngineError, PromptTooLong, Refused, UsageError, Withheld
from outthink.models.endpoint import Endpoint, Patience, Sending
from outthink.models.engine import Completion, EngineSpec, Price, Progress, Request
from outthink.models.facts import Facts, token_count, usage_told
from outthink.models.openai.writing import Writing
from outthink.together import together
from outthink.types import Message, Usage, writable

_MOST_CHILDREN = 128  # of one request; more are asked for in several
_SHORT = 16  # completion tokens up to which an answer is not worth streaming
_PROMPTS = 4096  # prompts that are remembered
_PROMPT_TOKENS = 1 << 21  # of them all together; some 70 MB
_MEDIA = 2048  # tokens of an image or a sound, beyond the bytes that describe it; what a model makes of it is not told
# how an answer ended, in the words of different servers
_ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call"})
_CUT = frozenset({"length", "max_tokens"})
# fields that chat templates write into the prompt, or that change what they write
_DESCRIBED = ("tools", "functions", "response_format", "documents", "chat_template", "chat_template_kwargs")


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
        self._endpoint = endpoint
        self._facts = facts
        self._overhead = facts.overhead
        self._prompts: OrderedDict[bytes, tuple[int, ...] | int] = OrderedDict()
        self._prompt_tokens = 0
        self._spec = EngineSpec(name=facts.model, context=facts.context, powers=facts.powers, price=price, fields=None)

    @classmethod
    def open(
        cls, url: str, *, price: Price | None = None, patience: Patience | None = None, fresh: bool = False
    ) -> OpenAIEngine:
        """The model at `url`, which may end in #MODEL; what the server does is probed, or taken from the last probe.

        Raises UsageError where the address, the model or a key is wrong, and EngineError where the server is not there.
        """
        from outthink.models.probe import probed  # here, because most engines need no probe

        endpoint, facts = probed(url, patience=patience, fresh=fresh)
        return cls(endpoint, facts, price=price)

    @classmethod
    async def open_async(cls, url: str, *, price: Price | None = None) -> OpenAIEngine:
        """As `open`, in the event loop that runs."""
        from outthink.models.probe import find

        endpoint, facts = await find(url)
        return cls(endpoint, facts, price=price)

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
        messages, described = _messages(request.messages), _described(request.fields)
        prefix = len(request.prefix_ids) if by_ids else len(request.prefix_text.encode())
        media = _MEDIA * sum(_media(message) for message in messages)
        if not self._facts.tokenize:
            prompt = self._overhead + _size(messages, described) + media + prefix
            return Usage(prompt=prompt, completion=request.max_tokens)
        known = await self._prompt(messages, described)
        prompt, context = (known if isinstance(known, int) else len(known)) + media, self._facts.context
        if context is not None and prompt + (prefix if by_ids else 0) + request.max_tokens > context:
            raise PromptTooLong(
                f"The prompt of {prompt + prefix:,} tokens and up to {request.max_tokens:,} new ones exceed the "
                f"context of {self._spec.name}, {context:,} tokens: shorten the prompt or lower max_tokens."
            )
        # a text is read together with the prompt, which may cost a few tokens more than its bytes
        seam = 8 if prefix and not by_ids else 0
        return Usage(prompt=prompt + seam + prefix, completion=request.max_tokens)

    async def generate(self, request: Request, progress: Progress) -> None:
        """One request for all children where the server does that, else one for each."""
        progress.slack = 0  # what is not known of a child is said by `most`
        bound = await self.bound(request)
        groups = self._groups(request)
        progress.reads = len(groups)
        await together(*(self._group(request, group, progress, bound) for group in groups))

    def learn(self, request: Request, progress: Progress) -> None:
        """Raise the overhead of prompts where one was longer than promised."""
        each = -(-progress.prompt // len(self._groups(request)))
        size = _size(_messages(request.messages), _described(request.fields)) + len(request.prefix_text.encode())
        self._overhead = max(self._overhead, each - size)

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, as the server says."""
        asked = {"model": self._facts.model, "prompt": text, "add_special_tokens": False}
        found = await self._endpoint.post("../tokenize", asked)
        try:
            return tuple(map(index, found["tokens"]))
        except (TypeError, KeyError):
            raise self._forgotten("tokenize") from None

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, as the server says."""
        if not ids:
            return ""
        found = await self._endpoint.post("../detokenize", {"model": self._facts.model, "tokens": list(ids)})
        text = found.get("prompt") if isinstance(found, dict) else None
        if not isinstance(text, str):
            raise self._forgotten("detokenize")
        return text

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
        writing = [Writing(progress, position) for position in group]
        sending = Sending()
        usage: Usage | None = None
        failure: EngineError | None = None
        try:
            usage = await self._ask(request, writing, sending)
            failure = EngineError(f"{self._endpoint.url} sent fewer whole answers than it was asked for.")
        except EngineError as cause:
            failure = cause
        finally:  # when it is cancelled, too: what had ended by then is kept
            if not sending.open:
                unsent = sending.refusal or Refused("It was cancelled before it was sent.")
                usage, failure = Usage(), failure or unsent
            elif usage is not None and usage.completion < sum(written.tokens for written in writing if written.counted):
                usage = None  # less than what was seen, token by token, is not believed
            progress.attempts = max(progress.attempts, sending.attempts)
            self._settle(request, progress, bound, writing, usage, failure)

    async def _ask(self, request: Request, writing: list[Writing], sending: Sending) -> Usage | None:
        """Fill `writing`; the usage, None where the server does not tell it."""
        path, body = await self._body(request, [written.child for written in writing])
        if not self._facts.stream or request.max_tokens <= _SHORT:
            return self._read(await self._endpoint.post(path, body, sending), writing)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        usage: Usage | None = None
        async with contextlib.aclosing(self._endpoint.events(path, body, sending)) as events:
            async for event in events:
                usage = self._read(event, writing) or usage
        # usage that was told on the way does not hold for what the stream has not finished
        return None if any(written.tokens and written.finish is None for written in writing) else usage

    async def _body(self, request: Request, group: Sequence[int]) -> tuple[str, dict[str, Any]]:
        facts = self._facts
        by_ids = self._by_ids(request)
        cap = "max_tokens" if by_ids else facts.cap
        body: dict[str, Any] = {"model": facts.model, cap: request.max_tokens}
        if not facts.plain:
            body |= {"temperature": request.temperature, "top_p": request.top_p}
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
        messages = _messages(request.messages)
        if by_ids:
            prompt = await self._prompt(messages, {})
            if not isinstance(prompt, tuple):
                raise self._forgotten("tokenize")
            body |= {"prompt": [*prompt, *request.prefix_ids], "add_special_tokens": False}
            if request.logprobs:
                body["logprobs"] = 0
            return "completions", body | {name: value for name, value in request.fields.items() if value is not None}
        if request.prefix_text:
            messages.append({"role": "assistant", "content": request.prefix_text})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.labels:
            body |= {cap: 1, "logprobs": True, "top_logprobs": facts.labels}
        elif request.logprobs:
            body["logprobs"] = True
        if request.fields:
            body |= self._given(request, group)
            for name in [name for name, value in request.fields.items() if value is None]:
                body.pop(name, None)
        return "chat/completions", body | {"messages": messages}

    def _given(self, request: Request, group: Sequence[int]) -> dict[str, Any]:
        """The further fields of the request, as they are.

        A seed is that of the first child, and child k has the one k above it, as vLLM has it within a request. Later
        requests of a run need seeds of their own, or what is drawn anew would be drawn again.
        """
        given = {name: value for name, value in request.fields.items() if value is not None}
        if type(seed := given.get("seed")) is int:
            first = request.address in ((), ("model", 0))
            given["seed"] = seed + request.child + group[0] if first else request.seeds[group[0]]
        if request.logprobs and not given.get("logprobs"):
            given.pop("logprobs", None)  # a scorer reads them; who asked for none is not shown any
        if request.stop:
            given.pop("stop", None)  # steps end otherwise; whoever asks for both is refused before
        return given

    def _by_ids(self, request: Request) -> bool:
        return bool(request.prefix_ids) and self._facts.prefix == "ids"

    def _read(self, event: Any, writing: list[Writing]) -> Usage | None:
        """Add what an answer, or a piece of one, says; the usage if it has one."""
        try:
            for choice in event.get("choices") or ():
                place = choice.get("index", 0)
                if 0 <= place < len(writing):  # one that was not asked for is billed, but is nobody's
                    writing[place].add(choice)
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                reasoning = _reasoning(usage)
                for place, written in enumerate(writing):
                    written.reasoning = (reasoning + place) // len(writing)  # nobody says of which child they are
            return usage_told(usage)
        except (AttributeError, TypeError, ValueError, KeyError, OverflowError):
            raise EngineError(f"{self._endpoint.url} sent something else than its API promises.") from None

    def _settle(
        self,
        request: Request,
        progress: Progress,
        bound: Usage,
        writing: list[Writing],
        usage: Usage | None,
        failure: EngineError | None,
    ) -> None:
        """Share out what the server reports, finish the children that have ended, and give `failure` to the others."""
        tokens = [written.tokens for written in writing]
        if usage is None:
            for written in writing:
                known = written.finish is not None and written.counted
                most = written.tokens if known else max(written.tokens, bound.completion)
                progress.most[written.child] = Usage(prompt=bound.prompt, completion=most)
        else:
            progress.prompt += usage.prompt
            progress.cached += usage.cached
            tokens = _shared(usage.completion, tokens)
        for written, count in zip(writing, tokens, strict=True):
            progress.tokens[written.child] = count
            progress.results[written.child] = failure
            if written.finish is not None:
                try:
                    progress.results[written.child] = self._completion(request, written, count)
                except EngineError as cause:
                    progress.results[written.child] = cause

    def _completion(self, request: Request, written: Writing, tokens: int) -> Completion:
        if written.finish not in _ENDED | _CUT:  # such as content_filter and abort
            raise (Withheld if written.finish == "content_filter" else EngineError)(
                f"{self._endpoint.url} did not finish an answer ({self._endpoint.clean(written.finish)})."
            )
        if request.labels:
            return Completion(
                text=written.text(), tokens=tokens, finish="length", labels=_labels(request.labels, written.top)
            )
        text, ids, logprobs = written.text(), tuple(written.ids) or None, tuple(written.logprobs) or None
        finish: Literal["eos", "stop", "length"] = "length" if written.finish in _CUT else "eos"
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
        return Completion(
            text=writable(text), tokens=tokens, token_ids=ids, logprobs=logprobs, finish=finish, sent=sent
        )

    # ------------------------------------------------------------------------------------------------ prompts

    async def _prompt(self, messages: list[dict[str, Any]], described: Mapping[str, Any]) -> tuple[int, ...] | int:
        """Token ids of the prompt, or how many they are where the server does not say more.

        Args:
            described: fields that the chat template writes into the prompt.
        """
        asked = {"model": self._facts.model, "messages": messages, **described}
        key = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).digest()
        if key in self._prompts:
            self._prompts.move_to_end(key)
            return self._prompts[key]
        found = await self._endpoint.post("../tokenize", asked)
        try:
            ids = tuple(map(index, found.get("tokens") or ()))
            known: tuple[int, ...] | int = ids or index(found["count"])
        except (AttributeError, TypeError, KeyError):
            raise self._forgotten("tokenize") from None
        self._prompts[key] = known
        self._prompt_tokens += _ids(known)
        while len(self._prompts) > _PROMPTS or (self._prompt_tokens > _PROMPT_TOKENS and len(self._prompts) > 1):
            self._prompt_tokens -= _ids(self._prompts.popitem(last=False)[1])
        return known

    def _forgotten(self, what: str) -> Refused:
        return Refused(f"{self._endpoint.url} does not {what} any more; probe it again.")


def _reasoning(usage: Mapping[str, Any]) -> int:
    """Tokens of thoughts among those of the completion; 0 where the server does not tell."""
    details = usage.get("completion_tokens_details")
    return (token_count(details.get("reasoning_tokens")) or 0) if isinstance(details, Mapping) else 0


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As the API wants them; raises UsageError where one is more than text and was not written for this API."""
    for parts in (message.content for message in messages if message.sent is None):
        if not isinstance(parts, str) and any(part.kind != "text" for part in parts):
            raise UsageError("This model reads text only; leave images, audio and files out of the messages.")
    return [
        {"role": message.role, "content": writable(message.text)} if message.sent is None else dict(message.sent)
        for message in messages
    ]


def _described(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields that the prompt depends on."""
    return {name: fields[name] for name in _DESCRIBED if fields.get(name)}


def _size(messages: Sequence[Mapping[str, Any]], described: Mapping[str, Any]) -> int:
    """Most tokens of what is written into the prompt, without what the chat template adds around it all."""
    fields = len(json.dumps(described, ensure_ascii=False).encode("utf-8", "surrogatepass")) if described else 0
    return fields + sum(8 + _bytes(message) for message in messages)


def _bytes(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return len(content.encode("utf-8", "surrogatepass"))
    return len(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _media(message: Mapping[str, Any]) -> int:
    """How many images, sounds and files a message has."""
    parts = message.get("content")
    return 0 if not isinstance(parts, list) else sum(part.get("type") != "text" for part in parts)


def _ids(prompt: tuple[int, ...] | int) -> int:
    return 0 if isinstance(prompt, int) else len(prompt)


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
