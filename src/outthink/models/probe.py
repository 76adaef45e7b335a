"""Finds out with real requests what an endpoint does with each field, and remembers it for a week.

Every question costs a few tokens; the answer is what came back, never what the server says about itself. A field that
a server ignores or refuses counts as missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from outthink import jsonl
from outthink.errors import EngineError, OutthinkError, Refused, UnknownName, UsageError
from outthink.models.endpoint import Endpoint, Patience
from outthink.models.engine import Progress
from outthink.models.facts import Facts, told, usage_told
from outthink.models.listing import context, listed, nearest
from outthink.models.openai import parts
from outthink.models.openai.writing import Writing, thoughts_of
from outthink.types import Usage

_KEPT = 7 * 86400.0  # seconds
_SCHEMA = 6
_FEW = 12  # tokens of an answer
_MORE = 1024  # the same, for models that refuse to answer in so few
_WAYS: tuple[tuple[Literal["max_tokens", "max_completion_tokens"], bool], ...] = (
    ("max_tokens", False),
    ("max_completion_tokens", False),
    ("max_tokens", True),
    ("max_completion_tokens", True),
)  # what the cap is called, and whether temperature must be left out
_LETTERS = 8  # of a token on the mean of an answer, at most
_MARKS = 8  # tokens that mark the beginning and the end of an answer, and are never shown
_WARM = 1.5  # a temperature that shows whether chance plays a part
_COLDER = ((0.0, False), (0.01, True), (0.01, False), (0.1, True), (0.5, True), (0.5, False))
# temperatures, each with and without top_p, for a server that refuses the two as they are
_COOLER = (1.2, 1.0, 0.7)  # for one that refuses _WARM
_SAY = [{"role": "user", "content": "Count from one to twenty in words, separated by commas."}]
_LONG = [{"role": "user", "content": "Repeat the word blue. " * 60}]

Body = dict[str, Any]


def probed(url: str, *, patience: Patience | None = None, fresh: bool = False) -> tuple[Endpoint, Facts, Usage]:
    """The endpoint of `url`, which may end in #MODEL, what it does, and what it has cost to find that out.

    It is what the last probe of this week has said, or a new one.

    Blocks until the server has listed its models, and for as long as a probe takes. Raises UsageError and EngineError
    as `probe`.
    """
    result = find(url, patience=patience, fresh=fresh)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(result)
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, result).result()


async def probe_and_remember(url: str, *, patience: Patience | None = None) -> Probe:
    """Probe the model at `url`, and keep what it does for `probed`; errors as for `probe`."""
    endpoint, model = _parts(url, patience)
    try:
        result = await probe(endpoint, model)
    finally:
        await endpoint.close()
    _remember(_file(endpoint.url, result.facts.model), result.facts)
    return result


async def find(url: str, *, patience: Patience | None = None, fresh: bool = False) -> tuple[Endpoint, Facts, Usage]:
    """As `probed`, in the event loop that runs."""
    asked, model = _parts(url, patience)
    endpoint = Endpoint(url.partition("#")[0], patience=patience)
    try:
        name, context = await _model(asked, model)  # a server may have another model than last time
    finally:
        await asked.close()
    facts = None if fresh else _remembered(_file(endpoint.url, name))
    if facts is not None:
        return endpoint, dataclasses.replace(facts, context=context), Usage()
    result = await probe_and_remember(url, patience=patience)
    logger = logging.getLogger(__name__)
    used = result.usage
    logger.info(
        "Asked %s what it can do: %d requests, %d prompt and %d completion tokens.",
        *(endpoint.url, result.requests, used.prompt, used.completion),
    )
    for note in result.notes:
        logger.warning("%s at %s: %s", result.facts.model, endpoint.url, note)
    return endpoint, result.facts, used


async def model_at(url: str) -> str:
    """The name of the model at an address, or of the only one there.

    Raises UsageError where it is not there or there are several, with the names, and EngineError where the server is
    not there.
    """
    endpoint, wanted = _parts(url, None)
    try:
        name, _ = await _model(endpoint, wanted)
    finally:
        await endpoint.close()
    return name


def _parts(url: str, patience: Patience | None) -> tuple[Endpoint, str]:
    """The endpoint to ask, with less patience than one that works: somebody waits to hear of a wrong address."""
    address, _, model = url.partition("#")
    return Endpoint(address, patience=patience or Patience(attempts=3)), unquote(model)


@dataclass(slots=True)
class Probe:
    """What a probe has found, and what it cost.

    Args:
        notes: what is worth telling people, such as fields that are ignored.
    """

    facts: Facts
    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    notes: list[str] = field(default_factory=list)


async def probe(endpoint: Endpoint, model: str = "") -> Probe:
    """Ask the server; `model` may be left out where it serves one.

    Raises UsageError where it serves no such model, and EngineError where it is not there or cannot chat.
    """
    name, context = await _model(endpoint, model)
    asking = _Asking(endpoint, Probe(Facts(model=name, context=context)))
    await asking.basics()
    for question in (
        asking.logprobs,
        asking.token_ids,
        asking.seeds,
        asking.several,
        asking.tokenize,
        asking.tokens,
        asking.stops,
        asking.prefix,
        asking.stream,
        asking.cache,
        asking.salt,
        asking.priority,
        asking.bias,
        asking.thinking,
        asking.abort,
    ):
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # an answer of another shape
            await question()
    return asking.result


async def _model(endpoint: Endpoint, wanted: str) -> tuple[str, int | None]:
    """The model's name, and its context where the server tells; a list that does not come is no hindrance to a name."""
    try:
        entries = await listed(endpoint)
    except EngineError as failure:
        # whether the server is there at all, and takes the key, the first question to the model shows
        if wanted and not (isinstance(failure, Refused) and not failure.status):
            return wanted, None
        raise
    except UsageError:
        if wanted:
            return wanted, None
        raise
    if not wanted and len(entries) != 1:
        shown = ", ".join(sorted(entries)[:8]) or "none"
        raise UsageError(f"{endpoint.url} serves {len(entries)} models: add #MODEL to the address ({shown}).")
    name = nearest(wanted, entries) if wanted else next(iter(entries))
    if name is None:
        raise UnknownName(f"model at {endpoint.url}", wanted, entries)
    return wanted or name, context(entries.get(name, {}))


class _Asking:
    """One question a method; each changes the facts it has found out."""

    def __init__(self, endpoint: Endpoint, result: Probe) -> None:
        self._endpoint = endpoint
        self.result = result
        self._greedy = ""  # what the model writes without chance, thoughts first
        self._said = ""  # what of it is no thought that is told apart
        self._ids: tuple[list[int], list[int]] = ([], [])
        self._prompt = 0
        self._long = 0
        self._refusal: Refused | None = None
        self._talks = False
        self._few = _FEW
        self._one = 2

    def _learn(self, **facts: Any) -> None:
        self.result.facts = dataclasses.replace(self.result.facts, **facts)

    def _body(self, tokens: int, temperature: float = 0.0, /, **fields: Any) -> Body:
        facts = self.result.facts
        body: Body = {"model": facts.model, "messages": _SAY, facts.cap: tokens}
        if not facts.plain:
            body["temperature"] = max(facts.coldest, min(temperature, facts.hottest or temperature))
            if facts.nucleus:
                body["top_p"] = 1.0
        return body | fields

    async def _ask(self, body: Body, path: str = "chat/completions") -> Any:
        """The answer; None where this body is refused."""
        self.result.requests += 1
        if not self.result.facts.whole and path.endswith("completions"):
            body = body | {"stream": True, "stream_options": {"include_usage": True}}
        try:
            async with contextlib.aclosing(self._endpoint.events(path, body)) as events:
                reply = _joined([event async for event in events])
        except Refused as failure:
            # a field may be forbidden for this model, and some servers break at one that they do not know
            if failure.status in (400, 404, 405, 415, 422, 501) or (failure.status in (403, 500) and self._talks):
                self._refusal = failure
                return None
            raise
        except EngineError:  # an error inside a 200, or no JSON
            if not self._talks:
                raise
            return None
        self._count(reply)
        return reply

    def _count(self, reply: Any) -> None:
        self.result.usage = self.result.usage + (_usage(reply) or Usage())

    async def _ways(self, *, whole: bool) -> list[tuple[Facts, Any]]:
        """The ways of asking that are answered, with the answers; whole ones, or streams."""
        answers: list[tuple[Facts, Any]] = []
        for few, cap, plain in [(few, *way) for few in (_FEW, _MORE) for way in _WAYS]:
            if answers and few == _MORE:
                break
            self._few, self._one = few, few if few == _MORE else 2
            self._learn(cap=cap, plain=plain, whole=whole)
            reply = await self._ask(self._body(few))
            if reply is None:
                if (
                    whole
                    and self._refusal is not None
                    and re.search(r"stream|\bsse\b", str(self._refusal), re.IGNORECASE)
                ):
                    break
                continue
            usage = _usage(reply)
            written = len(_text(choices[0])) / _LETTERS if (choices := _choices(reply)) else 0  # tokens, at least
            self._learn(capped=(written if usage is None else usage.completion) <= few)
            answers.append((self.result.facts, reply))
            if self.result.facts.capped:
                break
        return answers

    async def basics(self) -> None:
        """How the cap is called, whether temperature may be set, and whether the cap and the usage can be believed."""
        answers = await self._ways(whole=True)
        if not answers and self._refusal is not None and self._refusal.status != 404:
            answers = await self._ways(whole=False)
        if not answers and self._refusal is not None:
            raise self._refusal
        self.result.facts, reply = answers[-1] if answers[-1][0].capped else answers[0]
        if not self.result.facts.whole:
            self.result.notes.append("It answers by streams only, so all requests are streamed.")
        choices = _choices(reply)
        if not choices:
            raise EngineError(f"{self._endpoint.url} answered a chat request without an answer.")
        self._greedy, self._said = _text(choices[0]), _said(choices[0])
        self._talks = True
        if not self.result.facts.capped:
            self.result.notes.append("It ignores the most tokens of an answer: budgets will be overrun.")
        if self.result.facts.plain:
            await self._temperatures()
        usage = _usage(reply)
        if usage is None:
            self.result.notes.append("It reports no usage, so every call is charged at its worst case.")
            return
        self._prompt = usage.prompt
        size = sum(8 + len(message["content"].encode()) for message in _SAY)
        self._learn(overhead=max(64, 2 * (usage.prompt - size)))

    async def _temperatures(self) -> None:
        """Which temperature is the lowest that is taken after all, where 0 with top_p is refused."""
        for temperature, nucleus in _COLDER:
            self._learn(plain=False, coldest=temperature, nucleus=nucleus)
            choices = _choices(await self._ask(self._body(self._few)))
            if choices:
                self._greedy, self._said = _text(choices[0]), _said(choices[0])
                if temperature:
                    self.result.notes.append(f"It refuses temperature 0, so {temperature:g} is sent in its place.")
                if not nucleus:
                    self.result.notes.append("It refuses top_p beside a temperature, so top_p is not sent.")
                return
        self._learn(plain=True, coldest=0.0, nucleus=True)
        self.result.notes.append("It takes no temperature, so all samples are drawn at its own.")

    async def _warmth(self) -> None:
        """The highest temperature that is taken, where a high one may have been refused."""
        if self.result.facts.plain or await self._ask(self._body(self._few, _WARM)) is not None:
            return
        for temperature in _COOLER:
            self._learn(hottest=temperature)
            if await self._ask(self._body(self._few, temperature)) is not None:
                self.result.notes.append(f"It refuses high temperatures, so at most {temperature:g} is sent.")
                return
        self._learn(hottest=None)

    async def logprobs(self) -> None:
        """Logprobs of what was written, and of the likeliest tokens beside it."""
        for most in (20, 10, 5, 0):
            told = _told(
                await self._ask(self._body(self._one, logprobs=True, **({"top_logprobs": most} if most else {})))
            )
            if told:
                near = told[0].get("top_logprobs") or []
                self._learn(logprobs=True, labels=most if len(near) > 1 else 0)
                return

    async def token_ids(self) -> None:
        """Ids of prompt and answer."""
        reply = await self._ask(self._body(self._few, return_token_ids=True))
        choices = _choices(reply)
        if choices and choices[0].get("token_ids") and isinstance(reply, dict):
            prompt = reply.get("prompt_token_ids") or choices[0].get("prompt_token_ids") or []
            self._ids = (list(prompt), list(choices[0]["token_ids"]))
            self._learn(token_ids=True)

    async def seeds(self) -> None:
        """The same seed gives the same text, another one another text."""
        texts = []
        for place, seed in enumerate((11, 11, 12, 13)):
            reply = await self._ask(self._body(self._few, _WARM, seed=seed))
            if reply is None and place == 0:  # for the seed, or for the temperature
                await self._warmth()
                if self.result.facts.hottest is not None:
                    reply = await self._ask(self._body(self._few, _WARM, seed=seed))
            choices = _choices(reply)
            texts.append(_text(choices[0]) if choices else None)
        self._learn(seed=None not in texts and texts[0] == texts[1] and len(set(texts)) > 1)

    async def several(self) -> None:
        """Several answers to one request, which are not one answer several times."""
        seeded = {"seed": 11} if self.result.facts.seed else {}
        choices = _choices(await self._ask(self._body(self._few, _WARM, n=3, **seeded)))
        whole = sorted((choice.get("index") for choice in choices), key=str) == [0, 1, 2]
        if whole and seeded and len({_text(choice) for choice in choices}) == 1:
            self.result.notes.append("The answers to one request are all the same, so each is asked for alone.")
            whole = False
        self._learn(n=whole)

    async def tokenize(self) -> None:
        """The server counts a prompt as it reports it later."""
        with contextlib.suppress(EngineError):
            reply = await self._ask({"model": self.result.facts.model, "messages": _SAY}, "../tokenize")
            count = reply.get("count") if isinstance(reply, dict) else None
            self._learn(tokenize=isinstance(count, int) and count == self._prompt)

    async def tokens(self) -> None:
        """The tokens that it has written are turned into what it has said, and that into these tokens."""
        said, written = self._greedy.strip(), self._ids[1]
        if not (said and written and self.result.facts.tokenize):
            return
        with contextlib.suppress(EngineError):
            back = await self._ask({"model": self.result.facts.model, "tokens": written}, "../detokenize")
            text = (back or {}).get("prompt") or ""  # marks are in it that what it said is without
            if said in text:
                asked: Body = {"model": self.result.facts.model, "prompt": text, "add_special_tokens": False}
                ids = (await self._ask(asked, "../tokenize") or {}).get("tokens") or []
                self._learn(tokens=ids[: len(written) // 2] == written[: len(written) // 2])  # the rest may be cut off

    async def stops(self) -> None:
        """What happens at a stop string, taken from what the model says anyway."""
        said = self._greedy
        stops = (said[start : start + 3] for start in range(len(said) // 3, len(said) - 4) if said[start].strip())
        stop = next((stop for stop in stops if said.count(stop) == 1 and stop == stop.strip()), None)
        if stop is None:
            self.result.notes.append("It says too little to find out what it does with stop strings.")
            return
        for extra in ({"include_stop_str_in_output": True}, {}):
            choices = _choices(await self._ask(self._body(self._few, stop=[stop], **extra)))
            if not choices:
                continue
            text, before = _text(choices[0]), said[: said.index(stop)]
            if text not in (before, before.rstrip(), before + stop):
                break
            told = choices[0].get("stop_reason", choices[0].get("matched_stop")) == stop
            self._learn(stop=("kept" if extra and text.endswith(stop) else "told") if told else "cut")
            return
        self.result.notes.append("It ignores stop strings: what follows them is cut off here, but billed.")

    async def prefix(self) -> None:
        """An answer is continued: from ids, or from text."""
        prompt, answer = self._ids
        if prompt and len(answer) >= 6 and self.result.facts.tokenize:
            half = len(answer) // 2
            facts = self.result.facts
            body = {"model": facts.model, "prompt": prompt + answer[:half], "max_tokens": len(answer) - half}
            reply = await self._ask(
                body | {"temperature": 0.0, "return_token_ids": True, "add_special_tokens": False}, "completions"
            )
            choices = _choices(reply)
            usage = _usage(reply)
            if choices and usage is not None and usage.prompt == len(prompt) + half and choices[0].get("token_ids"):
                self._learn(prefix="ids")
                return
        words = self._greedy.split(" ")
        if len(words) < 4 or not self._prompt:
            return
        start = " ".join(words[: len(words) // 2])
        messages = [*_SAY, {"role": "assistant", "content": start}]
        fields = {"continue_final_message": True, "add_generation_prompt": False, "messages": messages}
        reply = await self._ask(self._body(self._few, **fields))
        choices = _choices(reply)
        rest = self._greedy[len(start) :].strip()
        # a server that ignores it begins anew, or answers to the answer
        if choices and rest and _text(choices[0]).strip()[:4] == rest[:4] != self._greedy.strip()[:4]:
            self._learn(prefix="text")

    async def stream(self) -> None:
        """Events, with the usage in the last one."""
        body = self._body(self._few, stream=True, stream_options={"include_usage": True})
        pieces, usage, written = 0, None, Writing(Progress(n=1), 0)
        reasoning = 0
        self.result.requests += 1
        try:
            async with contextlib.aclosing(self._endpoint.events("chat/completions", body)) as events:
                async for event in events:
                    for choice in _choices(event):
                        pieces += bool(choice.get("delta"))
                        written.add(choice)
                    usage = _usage(event) or usage
                    self._count(event)
                    reasoning = max(reasoning, getattr(told(event), "reasoning", 0))
        except EngineError:
            return
        self._learn(stream=pieces > 1 and (usage is not None or not self._prompt))
        shown = written.bytes() + _MARKS
        if usage is not None and (usage.completion > shown or (reasoning and not written.thoughts)):
            self._learn(hidden=True)
            self.result.notes.append("It writes more than it shows, so what is cancelled is charged at its worst case.")

    async def cache(self) -> None:
        """A prompt that was read before is reported as cached."""
        for _ in range(2):
            usage = _usage(await self._ask(self._body(self._one, messages=_LONG))) or Usage()
            self._long = usage.prompt
            self._learn(cached=usage.cached > 0)

    async def salt(self) -> None:
        """A prompt that was read before is cached for those with the same salt, and for nobody else."""
        if not self.result.facts.cached:
            return
        mine, other = secrets.token_urlsafe(), secrets.token_urlsafe()  # an earlier probe may have left its own there
        cached = []
        for salt in (mine, mine, other):
            usage = _usage(await self._ask(self._body(self._one, messages=_LONG, cache_salt=salt)))
            cached.append(usage and usage.cached > 0)
        self._learn(salt=cached == [False, True, False])

    async def priority(self) -> None:
        """A number is taken as a priority and a word is refused; a server that ignores the field takes both."""
        choices = _choices(await self._ask(self._body(self._one, priority=1)))
        # SGLang, whose answers have this field, serves the highest number first unless it is told otherwise
        if not choices or "matched_stop" in choices[0]:
            return
        self._refusal = None
        await self._ask(self._body(self._one, priority="high"))
        self._learn(priority=self._refusal is not None and self._refusal.status < 500)

    async def bias(self) -> None:
        """The first token of what it says is another one when its logit is lowered."""
        if self.result.facts.tokens:
            first = self._ids[1][0]
            asked = self._body(self._few, logit_bias={str(first): -100.0}, return_token_ids=True)
            choices = _choices(await self._ask(asked))
            ids = (choices[0].get("token_ids") or [first]) if choices else [first]
            self._learn(logit_bias=ids[0] != first)

    async def thinking(self) -> None:
        """Few tokens are all thoughts, unless there may be but one of them."""
        if _answers(self._said):
            return
        choices = _choices(await self._ask(self._body(self._few, thinking_token_budget=1)))
        self._learn(thinking=bool(choices) and _answers(_said(choices[0])))

    async def abort(self) -> None:
        """Seconds until a closed connection has ended its work, where the server's metrics show it."""
        with contextlib.suppress(EngineError):
            if await self._running() != 0:
                return  # no such metric, or somebody else is using it
            if not (self.result.facts.stream and self.result.facts.token_ids):
                return
            fields = {"stream": True, "messages": _LONG, "ignore_eos": True}
            self.result.requests += 1
            async with contextlib.aclosing(
                self._endpoint.events("chat/completions", self._body(256, **fields))
            ) as events:
                async for event in events:
                    if _choices(event):
                        break
            # what it wrote until it was stopped is not told
            self.result.usage = self.result.usage + Usage(prompt=self._long, completion=1)
            clock = asyncio.get_running_loop().time
            begun = clock()
            while clock() - begun < 5.0:
                if await self._running() == 0:
                    self._learn(abort=round(clock() - begun, 2))
                    return
                await asyncio.sleep(0.05)
            self._learn(goes_on=True)
            self.result.notes.append("Closing a connection does not end the work: cancelled samples go on.")

    async def _running(self) -> float | None:
        lines = (await self._endpoint.text("../metrics")).splitlines()
        running = [line.rpartition(" ")[2] for line in lines if line.startswith("vllm:num_requests_running")]
        return sum(map(float, running)) if running else None


def _joined(events: list[Any]) -> Any:
    """The events of a stream as one answer; an answer that is none stays as it is."""
    if len(events) == 1 and not any(choice.get("delta") for choice in _choices(events[0])):
        return events[0]
    written: dict[Any, Writing] = {}
    more: dict[str, Any] = {}
    for event in events:
        for choice in _choices(event):
            written.setdefault(choice.get("index", 0), Writing(Progress(n=1), 0)).add(choice)
        if isinstance(event, dict):
            more |= {name: value for name, value in event.items() if value and name != "choices"}
    choices = [
        {
            "index": index,
            "message": {"content": "".join(one.pieces), one.thoughts_in: "".join(one.thoughts)},
            "finish_reason": one.finish,
            "stop_reason": one.stopped,
            "logprobs": one.told or None,
            "token_ids": one.ids or None,
        }
        for index, one in written.items()
    ]
    return {**more, "choices": choices}


def _choices(reply: Any) -> list[dict[str, Any]]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _said(choice: dict[str, Any]) -> str:
    """What a choice says, without thoughts that are told apart."""
    message = choice.get("message")
    said = message.get("content") if isinstance(message, dict) else choice.get("text")
    try:
        return parts.read(said).text
    except TypeError:
        return ""


def _text(choice: dict[str, Any]) -> str:
    """All that a choice has written: of a model that thinks, the first tokens are thoughts."""
    message = choice.get("message")
    return (thoughts_of(message)[1] if isinstance(message, dict) else "") + _said(choice)


def _answers(text: str) -> bool:
    """Whether a text is more than the beginning of thoughts."""
    said = text.rpartition("</think>")[2].strip()
    return bool(said) and not said.startswith("<think>")


def _told(reply: Any) -> list[dict[str, Any]]:
    for choice in _choices(reply):
        told = choice.get("logprobs")
        content = told.get("content") if isinstance(told, dict) else None
        return [token for token in content if isinstance(token, dict)] if isinstance(content, list) else []
    return []


def _usage(reply: Any) -> Usage | None:
    return usage_told(reply)


# ------------------------------------------------------------------------------------------------------- memory


def _file(url: str, model: str) -> Path:
    from platformdirs import user_cache_path  # here, because it is needed only where there is an endpoint

    folder = Path(os.environ.get("OUTTHINK_CACHE") or user_cache_path("outthink")) / "endpoints"
    return folder / (hashlib.sha256(f"{url}#{model}".encode()).hexdigest()[:16] + ".json")


def _remembered(file: Path) -> Facts | None:
    from pydantic import TypeAdapter  # here, because importing pydantic is slow

    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["schema"] != _SCHEMA or not 0 <= time.time() - kept["at"] < _KEPT:
            return None
        return TypeAdapter(Facts).validate_python(kept["facts"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, old or damaged: asked again
        return None


def _remember(file: Path, facts: Facts) -> None:
    kept = {"schema": _SCHEMA, "at": time.time(), "facts": dataclasses.asdict(facts)}
    with contextlib.suppress(OSError, OutthinkError):  # without the file the next opening asks again
        file.parent.mkdir(parents=True, exist_ok=True)
        jsonl.write_whole(file, json.dumps(kept, indent=1) + "\n")
