"""Runs a GGUF model on this machine's processor with OpenVINO's continuous batching.

Every child is a request of its own to one shared pipeline, so that all problems in flight fill the same batch, each
child can be read, stopped and counted by itself, and each has its own seed.

    event loops ──children──> stepping thread ──one message a step──> process with the pipeline
                <─completions─  (admits, counts, stops)  <─new tokens──

The pipeline has a process of its own because a step holds Python's global lock from start to end (a second and more
while it reads long prompts), which would freeze every event loop of this process. The process does what it is told:
it takes a step only when it gets a message, so at any time at most one step of it is unseen here.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outthink.errors import EngineError, PromptTooLong, UsageError
from outthink.models.engine import EngineSpec, Price, Progress, Request
from outthink.models.gguf import Header
from outthink.models.openvino.loading import openvino_genai
from outthink.models.openvino.process import EngineProcess
from outthink.models.openvino.stepping import BLOCK, IN_USE, Branch, Group, Stepper, block_chain
from outthink.models.openvino.text import WrittenText
from outthink.types import Usage


class OpenVINOEngine:
    """A GGUF model of Llama, SmolLM or Qwen 2.5 shape on this machine's processor.

    The constructor loads the model, which takes seconds. `Completion.logprobs` are aligned with `token_ids`: the end
    mark, counted in `tokens`, is in neither. A child that hits a stop string ends with the token that completed it,
    so its text may go a few characters beyond the string, and text and ids say the same. The logprob of a label is
    that of its first token; who listens is told nothing of labels.

    Of the fields of OpenAI's API it honours `stop`, whose strings end a text and are not in it: finish is then "eos",
    `token_ids` and `logprobs` end with the last token that is wholly before the string, and `tokens` counts all that
    were written. `seed` may be there, but the seeds of the run decide. (Penalties are refused: where a token's logit is
    negative, OpenVINO applies them with the wrong sign, and so repeats what it should avoid.)

    Args:
        path: the GGUF file.
        name: the model's name in traces; the file's name where not given.
        price: what its tokens cost, for instance the machine's hire; None where it is not to be counted.
        cache_gb: most memory of the key-value cache in GB (1e9 bytes), above 0. It bounds how many children run at
            once, and the context where that is smaller than the model's own.
        ignore_eos: never end before `max_tokens`; for throughput measurement only.

    Raises:
        UsageError: the packages for local models are missing, or the file is not a GGUF model.
        EngineError: the model cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        name: str | None = None,
        *,
        price: Price | None = None,
        cache_gb: float = 2.0,
        ignore_eos: bool = False,
    ) -> None:
        try:
            genai = openvino_genai()  # here, because the core works without it
        except ImportError:
            raise UsageError("Local models need more packages: pip install 'outthink[local]'.") from None
        path = Path(path)
        header = Header.read(path)
        token_bytes = 4 * header.layers * header.kv_heads * header.head  # keys and values of at most 16 bits
        blocks = int(cache_gb * 1e9 // (token_bytes * BLOCK))
        room = int(blocks * IN_USE)
        if room < 8:
            raise UsageError(f"A cache of {cache_gb:g} GB is too small for this model; give cache_gb more.")
        self._spec = EngineSpec(
            name=name or path.stem,
            context=min(header.context, room * BLOCK),
            powers=frozenset(("logprobs", "prefix", "labels", "seed", "tokens")),
            shape=header.shape(path),
            price=price,
            fields=frozenset(("stop", "seed")),
        )
        process = EngineProcess({"path": str(path.resolve()), "blocks": blocks})
        try:
            self._text = WrittenText(genai, header)  # while the other process loads the weights
            process.ready()
        except BaseException:
            process.kill()
            raise
        self._stepper = Stepper(process, self._text, room=room, window=blocks - room)
        self._options: dict[str, Any] = {"ignore_eos": True} if ignore_eos else {"stop_token_ids": self._text.end_marks}
        # also runs at the interpreter's exit, before threads and modules fall apart
        self._stop = weakref.finalize(self, self._stepper.stop)

    @property
    def spec(self) -> EngineSpec:
        """Name, context and shape as the file says."""
        return self._spec

    async def bound(self, request: Request) -> Usage:
        """Exact prompt tokens and `max_tokens`; with labels one prompt and one token per label.

        Raises UsageError where that exceeds the context, the messages hold media or `stop` is no text.
        """
        _cuts(request)
        prompt, branches = len(self._prompt(request)), len(request.labels)
        if branches:
            return Usage(prompt=prompt * branches, completion=branches)
        return Usage(prompt=prompt, completion=request.max_tokens)

    async def generate(self, request: Request, progress: Progress) -> None:
        """Run the children; prompt tokens are counted as children enter the batch.

        Who listens is told of whole characters, and of nothing that may yet turn out to be a stop string that is cut
        off. The pieces of a child join to its text, and come on this event loop's thread before this returns.

        Raises UsageError like `bound`, EngineError if all children failed.
        """
        # when a call is cancelled, the step under way may still give each request in the batch one token
        progress.slack = max(1, len(request.labels))
        ids = self._prompt(request)
        loop = asyncio.get_running_loop()
        group = Group(request, progress, _cuts(request), loop, loop.create_future())
        options = self._options | _sampling(request)
        chain = block_chain(ids)
        self._stepper.submit(
            [
                Branch(group, child, label, ids, chain, options | own)
                for child in range(request.n)
                for label, own in enumerate(_own(request, child))
            ]
        )
        try:
            await group.done
        except asyncio.CancelledError:
            self._stepper.cancel(group)
            raise
        failures = [result for result in progress.results if isinstance(result, EngineError)]
        if len(failures) == request.n:
            raise failures[0]

    def learn(self, request: Request, progress: Progress) -> None:
        """Nothing to learn: `bound` is exact."""

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return self._text.encode(text)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; what they hold of a character in part is left out."""
        return self._text.decode([list(ids)])[0] if ids else ""

    async def close(self) -> None:
        """Stop at once; children in flight fail with EngineError."""
        await asyncio.to_thread(self._stop)

    def _prompt(self, request: Request) -> tuple[int, ...]:
        ids = self._text.prompt(request.messages)
        ids += request.prefix_ids or (self._text.encode(request.prefix_text) if request.prefix_text else ())
        most = 1 if request.labels else request.max_tokens
        assert self._spec.context is not None
        if len(ids) + most > self._spec.context:
            raise PromptTooLong(
                f"The prompt's {len(ids)} tokens and {most} more exceed the context of {self._spec.name}, "
                f"{self._spec.context} tokens; shorten the prompt or lower max_tokens."
            )
        return ids


def _sampling(request: Request) -> dict[str, Any]:
    """What all children of a request have in common, as fields of the pipeline's generation config."""
    if request.labels:
        return {"max_new_tokens": 1, "logprobs": 1, "do_sample": False}
    options: dict[str, Any] = {"max_new_tokens": request.max_tokens, "do_sample": request.temperature > 0}
    if request.temperature > 0:
        options |= {"temperature": request.temperature, "top_p": request.top_p}
    if request.logprobs:
        options["logprobs"] = 1
    return options


def _own(request: Request, child: int) -> list[dict[str, Any]]:
    """What each branch of a child has of its own: a forced label, or a seed."""
    if request.labels:
        # the pipeline gives no logprob of a chosen token, but that of a forced one, and forcing leaves it as it was
        return [{"label": label} for label in request.labels]
    return [{"rng_seed": request.seeds[child] if request.seeds else request.child + child}]


def _cuts(request: Request) -> tuple[str, ...]:
    """The strings of the field `stop`, which end a text and are cut off it."""
    given = request.fields.get("stop") or ()
    cuts = [given] if isinstance(given, str) else given
    if not isinstance(cuts, list | tuple) or not all(isinstance(text, str) for text in cuts):
        raise UsageError("The field 'stop' must be a text or a list of texts.")
    return tuple(text for text in cuts if text)
