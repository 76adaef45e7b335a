"""The embedded engine with a real model: counts, seeds, cancellation, continuation, labels, failure."""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from outthink.errors import EngineError, UsageError
from outthink.models import catalog
from outthink.models.engine import Completion, Progress, Request
from outthink.models.gguf import Header
from outthink.models.openvino.engine import OpenVINOEngine
from outthink.models.openvino.process import EngineProcess
from outthink.models.openvino.stepping import _WINDOW, Branch, Group, _begun, _PrefixCache, block_chain
from outthink.models.openvino.text import WrittenText
from outthink.types import Message, Part
from tests.tools.local import genai_or_skip
from tests.tools.reference import next_logprobs

genai_or_skip()

MODEL = "smollm2-135m-instruct"
PARIS = "Write three short paragraphs about the history of the city of Paris, with dates."
MONTHS = "Name the months of the year in order, one on each line."  # of what it says it is sure, whatever rounds
EMOJI = "Repeat this line ten times: Grüße 😀 aus Köln 👩‍👩‍👧, 你好!"
END_MARK = 2

real = pytest.mark.real


@pytest.fixture(scope="module")
def engine() -> Iterator[OpenVINOEngine]:
    engine = OpenVINOEngine(catalog.pull(MODEL, announce=print), MODEL)
    yield engine
    asyncio.run(engine.close())


def chat(text: str) -> tuple[Message, ...]:
    return (Message(content=text),)


def ask(text: str, n: int = 1, max_tokens: int = 40, **options: object) -> Request:
    options = {"seeds": tuple(range(100, 100 + n)), "logprobs": True, **options}
    return Request(messages=chat(text), n=n, max_tokens=max_tokens, **options)  # type: ignore[arg-type]  # by name


def run(engine: OpenVINOEngine, *requests: Request) -> list[Progress]:
    async def together() -> list[Progress]:
        progresses = [Progress(n=request.n) for request in requests]
        await asyncio.gather(*map(engine.generate, requests, progresses))
        return progresses

    return asyncio.run(together())


def completions(progress: Progress) -> list[Completion]:
    results = [result for result in progress.results if isinstance(result, Completion)]
    assert len(results) == progress.n
    return results


def one(engine: OpenVINOEngine, request: Request) -> Completion:
    (progress,) = run(engine, request)
    return completions(progress)[0]


@real
def test_spec_is_that_of_the_file(engine: OpenVINOEngine) -> None:
    spec = engine.spec
    assert (spec.name, spec.context) == (MODEL, 8192)
    assert spec.powers == {"logprobs", "prefix", "labels", "seed", "tokens"}
    assert spec.fields == frozenset(("stop", "seed"))
    assert spec.shape is not None
    assert (spec.shape.parameters, spec.shape.layers, spec.shape.hidden) == (134_515_008, 30, 576)


WORDS = (
    "The quick brown fox jumps over the lazy dog. Paris is the capital of France, and Berlin is the capital of Germany."
)


@real
@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.entries())
def test_a_model_of_the_catalogue_computes_what_its_weights_say(name: str) -> None:
    """The logprob of each word of a text, beside those of the dequantised weights in numpy.

    The engine rounds its activations, which is worth some .06 a token; weights that it loads wrongly are worth .7.
    """
    import numpy as np

    path = catalog.pull(MODEL, announce=print) if name == MODEL else catalog.path(name)
    if path is None:
        pytest.skip("it is not in the cache")
    process = EngineProcess({"path": str(path), "blocks": 64})
    try:
        process.ready()
        ids = WrittenText(genai_or_skip(), Header.read(path)).encode(WORDS)
        options = {"echo": True, "logprobs": 1, "max_new_tokens": 1, "do_sample": False}
        written: list[int] = []
        told: list[float] = []
        adds = [(0, ids, options)]
        while len(written) <= len(ids):
            news = process.step(adds, [])[0]
            assert news.error is None
            written, told, adds = written + news.ids, told + news.logprobs, []
    finally:
        process.kill()
    assert tuple(written[: len(ids)]) == ids
    expected = next_logprobs(path, ids)
    logprobs = [float(expected[place, ids[place + 1]]) for place in range(len(ids) - 1)]
    apart = np.array(told[1 : len(ids)]) - logprobs
    assert abs(float(apart.mean())) < 0.08
    assert float(np.abs(apart).mean()) < 0.25


@real
def test_tokens_are_those_of_a_pipeline_of_its_own(engine: OpenVINOEngine) -> None:
    genai = genai_or_skip()

    pipeline = genai.ContinuousBatchingPipeline(str(catalog.path(MODEL)), genai.SchedulerConfig(), "CPU")
    tokenizer = pipeline.get_tokenizer()
    # greedy, so that both write the same; the first ends by itself, the second is cut
    for text, most, finish in (("Say hi.", 100, "eos"), (PARIS, 30, "length")):
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        config = genai.GenerationConfig()
        config.apply_chat_template = False
        config.max_new_tokens = most
        ids = tokenizer.encode(prompt, add_special_tokens=False).input_ids
        handle = pipeline.add_request(0, ids, config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        raw = handle.read_all()[0].generated_ids
        counts = handle.get_perf_metrics()
        del handle

        request = ask(text, max_tokens=most, temperature=0.0)
        (progress,) = run(engine, request)
        (completion,) = completions(progress)
        assert completion.finish == finish
        assert completion.tokens == progress.tokens[0] == counts.get_num_generated_tokens() == len(raw)
        assert progress.prompt == asyncio.run(engine.bound(request)).prompt == counts.get_num_input_tokens()
        assert completion.token_ids == tuple(raw[:-1] if finish == "eos" else raw)


@real
def test_every_child_is_counted_and_has_its_logprobs(engine: OpenVINOEngine) -> None:
    request = ask("Name a colour.", n=6, max_tokens=30)
    (progress,) = run(engine, request)
    for completion in completions(progress):
        assert completion.token_ids is not None
        assert completion.logprobs is not None
        assert completion.tokens == len(completion.token_ids) + (completion.finish == "eos") <= 30
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(value <= 0 for value in completion.logprobs)
        assert END_MARK not in completion.token_ids
        assert "<|im_end|>" not in completion.text
    assert progress.usage().prompt == 6 * asyncio.run(engine.bound(request)).prompt
    assert progress.usage().completion == sum(completion.tokens for completion in completions(progress))
    assert progress.slack == 1


@real
def test_a_request_alone_repeats_with_its_seeds(engine: OpenVINOEngine) -> None:
    request = ask("Invent a name for a boat.", n=4, max_tokens=20)
    run(engine, request)  # from here on the prompt comes from the cache, whose rounding then is the same
    (first,), (second,) = run(engine, request), run(engine, request)
    texts = [completion.text for completion in completions(first)]
    assert texts == [completion.text for completion in completions(second)]
    assert len(set(texts)) > 1


@real
def test_equal_prompts_are_read_once(engine: OpenVINOEngine) -> None:
    text = "Sort these words: " + " ".join(f"word{number}" for number in range(60))
    request = ask(text, n=5, max_tokens=2)
    (progress,) = run(engine, request)
    prompt = asyncio.run(engine.bound(request)).prompt
    assert progress.prompt == 5 * prompt
    assert progress.cached == 4 * ((prompt - 1) // 32) * 32
    (again,) = run(engine, request)
    assert again.cached == 5 * ((prompt - 1) // 32) * 32


@real
def test_what_was_written_is_a_cached_prefix(engine: OpenVINOEngine) -> None:
    start = one(engine, ask("Tell a story about a ship.", max_tokens=80, stop=("and",)))
    assert start.token_ids is not None
    request = ask("Tell a story about a ship.", max_tokens=2, prefix_ids=start.token_ids)
    (progress,) = run(engine, request)
    assert progress.prompt == asyncio.run(engine.bound(request)).prompt
    assert progress.cached == (progress.prompt - 1) // 32 * 32


async def wrote(progress: Progress, tokens: int) -> None:
    """Wait until so many are seen, however long that takes."""
    while sum(progress.tokens) < tokens:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)


@real
def test_a_cancelled_call_is_bounded_and_leaves_nothing_behind(engine: OpenVINOEngine) -> None:
    request = ask("Count to one thousand.", n=8, max_tokens=400)
    stepper = engine._stepper
    written: dict[int, int] = {}
    take = stepper._process.step

    def spy(adds: object, cancels: object) -> object:
        reply = take(adds, cancels)  # type: ignore[arg-type]  # passed through
        for number, news in reply.items():
            written[number] = written.get(number, 0) + len(news.ids)
        return reply

    async def cancel(after: int) -> Progress:
        progress = Progress(n=8)
        task = asyncio.create_task(engine.generate(request, progress))
        await asyncio.sleep(0)
        await wrote(progress, after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return progress

    stepper._process.step = spy  # type: ignore[method-assign, assignment]  # counts what the pipeline writes
    try:
        for after in (0, 1, 100):  # tokens, whatever time they take
            written.clear()
            progress = asyncio.run(cancel(after))
            seen = sum(progress.tokens)
            assert progress.prompt % asyncio.run(engine.bound(request)).prompt == 0
            run(engine, ask("Say hi.", max_tokens=3))
            last = max(written)
            true = sum(count for number, count in written.items() if number != last)
            assert progress.slack == 1
            running = sum(result is None for result in progress.results)
            assert seen <= true <= seen + running
            assert not stepper._running
            assert not stepper._waiting
            assert not stepper._reading
            assert not stepper._cancels
    finally:
        stepper._process.step = take  # type: ignore[method-assign]  # as it was


@real
def test_cancelling_one_call_leaves_the_others(engine: OpenVINOEngine) -> None:
    async def both() -> Progress:
        kept, dropped = Progress(n=2), Progress(n=4)
        keep = asyncio.create_task(engine.generate(ask("Count to ten.", n=2, max_tokens=40), kept))
        drop = asyncio.create_task(engine.generate(ask("Count to ten.", n=4, max_tokens=400), dropped))
        await wrote(dropped, 1)
        drop.cancel()
        await keep
        with pytest.raises(asyncio.CancelledError):
            await drop
        return kept

    completions(asyncio.run(both()))


@real
def test_continuing_ids_reproduces_the_rest(engine: OpenVINOEngine) -> None:
    question = "Count from 1 to 50."
    whole = one(engine, ask(question, max_tokens=60, temperature=0.0))
    assert whole.token_ids is not None
    assert whole.logprobs is not None
    compared = 0
    for cut in (1, 20, 40):
        rest = one(engine, ask(question, max_tokens=10, temperature=0.0, prefix_ids=whole.token_ids[:cut]))
        assert rest.token_ids is not None
        # reading and writing round differently, so that only tokens the model is sure of must come again
        for new, old, logprob in zip(rest.token_ids, whole.token_ids[cut:], whole.logprobs[cut:], strict=False):
            if logprob < math.log(0.8):
                break
            assert new == old
            compared += 1
    assert compared >= 10


@real
def test_a_prefix_in_words_is_continued(engine: OpenVINOEngine) -> None:
    answer = one(engine, ask("Hello", max_tokens=4, temperature=0.0, prefix_text="The capital of France is"))
    assert "Paris" in answer.text


@real
def test_stop_strings_end_text_and_ids_alike(engine: OpenVINOEngine) -> None:
    one(engine, ask(MONTHS, max_tokens=48, temperature=0.0))  # now the prompt is cached, and rounding the same
    whole = one(engine, ask(MONTHS, max_tokens=48, temperature=0.0))
    assert whole.token_ids is not None
    assert len(whole.token_ids) > 30
    ids = list(whole.token_ids)
    pieces = [engine._text.decode([[token]])[0] for token in ids]
    stops = [
        *(pieces[at] for at in (6, 20, 29)),  # a token
        *(pieces[at][1:-1] for at in range(10, 30) if len(pieces[at]) > 5),  # the middle of one
        *(pieces[at][-1] + pieces[at + 1][0] for at in range(8, 30, 6)),  # across two
        *("".join(pieces[at : at + 3]) for at in (12, 25)),  # three
        *(mark for mark in ("\n", "\n\n", ".", ",") if mark in whole.text),
    ]
    progresses = run(engine, *(ask(MONTHS, max_tokens=48, temperature=0.0, stop=("@@@", stop)) for stop in stops[:4]))
    cuts = [completions(progress)[0] for progress in progresses]
    cuts += [one(engine, ask(MONTHS, max_tokens=48, temperature=0.0, stop=("@@@", stop))) for stop in stops[4:]]
    for stop, cut in zip(stops, cuts, strict=True):
        assert cut.token_ids is not None
        assert cut.logprobs is not None
        assert cut.finish == "stop"
        assert cut.text == engine._text.decode([list(cut.token_ids)])[0]
        # up to the token that completed it, and no further
        assert stop in cut.text
        assert stop not in engine._text.decode([list(cut.token_ids[:-1])])[0]
        assert len(cut.logprobs) == len(cut.token_ids) == cut.tokens
    same = sum(cut.token_ids == whole.token_ids[: cut.tokens] for cut in cuts)
    assert same >= len(cuts) // 2  # batches of another size round differently, which may turn a close choice


@real
def test_a_stop_string_that_never_comes_changes_nothing(engine: OpenVINOEngine) -> None:
    one(engine, ask(PARIS, max_tokens=20, temperature=0.0))  # the prompt is cached
    whole = one(engine, ask(PARIS, max_tokens=20, temperature=0.0))
    assert one(engine, ask(PARIS, max_tokens=20, temperature=0.0, stop=("@@@",))) == whole


def heard(engine: OpenVINOEngine, *requests: Request) -> list[tuple[Completion, list[str]]]:
    """Each child, and the pieces that were told of it."""

    async def listening() -> list[tuple[Completion, list[str]]]:
        async def one_call(request: Request) -> list[tuple[Completion, list[str]]]:
            pieces: list[list[str]] = [[] for _ in range(request.n)]

            def listen(child: int, piece: Mapping[str, Any]) -> None:
                assert threading.get_ident() == loop_thread
                assert set(piece) == {"delta"}
                assert set(piece["delta"]) == {"content"}
                pieces[child].append(piece["delta"]["content"])

            progress = Progress(n=request.n, listen=listen)
            await engine.generate(request, progress)
            told = [list(each) for each in pieces]
            await asyncio.sleep(0.01)
            assert told == pieces  # nothing comes after the end
            return list(zip(completions(progress), pieces, strict=True))

        loop_thread = threading.get_ident()
        return [child for call in await asyncio.gather(*map(one_call, requests)) for child in call]

    return asyncio.run(listening())


@real
@pytest.mark.parametrize("text", [PARIS, EMOJI, "Say hi.", "Write a haiku in German, with emoji 😀🎉 in each line."])
def test_the_pieces_that_are_told_join_to_the_text(engine: OpenVINOEngine, text: str) -> None:
    requests = [
        ask(text, n=3, max_tokens=4 * _WINDOW),
        ask(text, max_tokens=4 * _WINDOW, temperature=0.0, logprobs=False),
        ask(text, n=2, max_tokens=_WINDOW, stop=(",", "a")),
        ask(text, max_tokens=1),
    ]
    for completion, pieces in heard(engine, *requests):
        assert "".join(pieces) == completion.text
        assert all(pieces)
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
        # as they come: a token is at most one piece, and most tokens of this model are characters
        assert completion.tokens // 6 <= len(pieces) <= completion.tokens


@real
def test_listening_changes_nothing(engine: OpenVINOEngine) -> None:
    request = ask(PARIS, n=2, max_tokens=30)
    run(engine, request)  # the prompt is cached, and rounding the same
    (progress,) = run(engine, request)
    assert [completion for completion, _ in heard(engine, request)] == completions(progress)


@real
@pytest.mark.parametrize("seed", range(4))
def test_no_character_is_told_by_halves(engine: OpenVINOEngine, seed: int) -> None:
    rng = random.Random(seed)
    if seed < 2:
        letters = "Grüße 😀👩‍👩‍👧 你好 naïve\n\t \N{REPLACEMENT CHARACTER}—."
        ids = engine._text.encode("".join(rng.choices(letters, k=5 * _WINDOW)))
    else:
        ids = tuple(rng.choices(range(17, 273), k=5 * _WINDOW))  # the tokens of single bytes
    pieces: list[str] = []

    async def written() -> None:
        loop = asyncio.get_running_loop()
        progress = Progress(n=1, listen=lambda _, piece: pieces.append(piece["delta"]["content"]))
        branch = Branch(Group(ask(""), progress, (), loop, loop.create_future()), 0, 0, (), (), {})
        for at, token in enumerate(ids, 1):
            branch.ids.append(token)
            engine._stepper._tell([branch])
            await asyncio.sleep(0)
            whole = engine._text.decode([list(ids[:at])])[0]
            assert "".join(pieces) == whole.rstrip("\N{REPLACEMENT CHARACTER}")
            assert len(ids[branch.window : at]) <= 2 * _WINDOW

    asyncio.run(written())
    assert pieces


@real
def test_the_field_stop_cuts_the_string_off(engine: OpenVINOEngine) -> None:
    greedy = ask(PARIS, max_tokens=48, temperature=0.0)
    one(engine, greedy)  # now the prompt is cached, and rounding the same
    whole = one(engine, greedy)
    assert whole.token_ids is not None
    pieces = [engine._text.decode([[token]])[0] for token in whole.token_ids]
    stops = [
        pieces[6],  # a token
        *(pieces[at][1:-1] for at in range(10, 40, 6) if len(pieces[at]) > 5),  # the middle of one
        *(pieces[at][-1] + pieces[at + 1][0] for at in range(8, 40, 8)),  # across two
        "".join(pieces[9:15]),
        whole.text[:3],  # the very beginning
    ]
    same = 0
    for stop in stops:
        # the last two begin like what comes, too; of those that are complete at once the one that began first counts
        inner = stop[2:] if len(stop) > 8 else stop
        fields = {"stop": [inner, stop, stop + "@", stop[:-1] + "@"], "seed": 7, "presence_penalty": None}
        request = ask(PARIS, max_tokens=48, temperature=0.0, fields=fields)
        ((cut, told),) = heard(engine, request)
        assert cut.finish == "eos"
        assert cut.token_ids is not None
        assert cut.logprobs is not None
        assert stop not in cut.text
        assert inner == stop or not cut.text.endswith(stop[:2])
        assert "".join(told) == cut.text
        before = engine._text.decode([list(cut.token_ids)])[0] if cut.token_ids else ""
        assert cut.text.startswith(before)
        assert len(cut.text) - len(before) < 20  # of one token at most
        assert len(cut.logprobs) == len(cut.token_ids) < cut.tokens
        if cut.text == whole.text[: whole.text.index(stop)]:
            same += 1
            needed = [at for at in range(1, 49) if stop in engine._text.decode([list(whole.token_ids[:at])])[0]]
            assert cut.tokens == needed[0]  # what was written is counted, cut off or not
    assert same >= len(stops) // 2  # batches of another size round differently, which may turn a close choice


@real
def test_a_text_that_only_begins_like_a_stop_string_is_told_to_the_end(engine: OpenVINOEngine) -> None:
    greedy = ask(PARIS, max_tokens=20, temperature=0.0)
    one(engine, greedy)
    whole = one(engine, greedy)
    fields = {"stop": whole.text[-7:] + "@"}
    ((completion, pieces),) = heard(engine, ask(PARIS, max_tokens=20, temperature=0.0, fields=fields))
    assert "".join(pieces) == completion.text
    assert completion.finish == "length"
    assert completion == whole
    assert pieces[-1].endswith(whole.text[-7:])


@real
def test_several_samples_with_the_field_stop(engine: OpenVINOEngine) -> None:
    request = ask(EMOJI, n=8, max_tokens=3 * _WINDOW, fields={"stop": "😀"})
    children = heard(engine, request)
    for completion, pieces in children:
        assert "".join(pieces) == completion.text
        assert "😀" not in completion.text
    # a false alarm only if none of the eight repeats what it was asked to repeat
    assert any(completion.finish == "eos" and completion.tokens < 3 * _WINDOW for completion, _ in children)


@real
@pytest.mark.parametrize("fields", [{}, {"stop": None}, {"stop": []}, {"stop": ""}, {"stop": [""]}, {"seed": 5}])
def test_a_field_that_says_nothing_changes_nothing(engine: OpenVINOEngine, fields: dict[str, Any]) -> None:
    request = ask("Name a colour.", max_tokens=8)
    one(engine, request)
    assert one(engine, ask("Name a colour.", max_tokens=8, fields=fields)) == one(engine, request)


@real
@pytest.mark.parametrize("stop", [7, [7], {"a": "b"}])
def test_a_field_stop_that_is_no_text_is_refused(engine: OpenVINOEngine, stop: object) -> None:
    request = ask("Name a colour.", fields={"stop": stop})
    with pytest.raises(UsageError, match="'stop' must be a text or a list of texts"):
        asyncio.run(engine.bound(request))
    with pytest.raises(UsageError, match="'stop' must be a text or a list of texts"):
        run(engine, request)


@real
def test_nothing_is_told_after_a_cancellation(engine: OpenVINOEngine) -> None:
    async def cancel(after: int) -> tuple[Progress, list[str]]:
        pieces: list[str] = []
        enough = asyncio.Event()

        def listen(child: int, piece: Mapping[str, Any]) -> None:
            pieces.append(piece["delta"]["content"])
            if len(pieces) == after:
                enough.set()

        progress = Progress(n=4, listen=listen)
        task = asyncio.create_task(engine.generate(ask(PARIS, n=4, max_tokens=400), progress))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        told = list(pieces)
        await asyncio.sleep(0.3)  # several steps of what is left, were there any
        assert pieces == told
        return progress, told

    for after in (1, 30):
        progress, told = asyncio.run(cancel(after))
        assert after <= len(told) <= sum(progress.tokens)
        assert not engine._stepper._running


def test_a_loop_that_has_gone_is_not_told() -> None:
    told: list[int] = []
    loop = asyncio.new_event_loop()
    progress = Progress(n=1, listen=lambda child, _: told.append(child))
    group = Group(ask(""), progress, (), loop, loop.create_future())
    loop.close()
    group.tell(0, "word")  # in the thread that works for other loops, too
    assert not told


@real
def test_labels_are_not_told(engine: OpenVINOEngine) -> None:
    ((completion, pieces),) = heard(engine, ask("Is Paris in France?", labels=("Yes", "No"), logprobs=False))
    assert completion.text in ("Yes", "No")
    assert pieces == []


def test_what_may_be_the_beginning_of_a_stop_string() -> None:
    assert _begun("one two", ["two three", "o"]) == 3
    assert _begun("one two", ["wot", "x"]) == 2
    assert _begun("one two", ["two"]) == 0  # whole ones are found elsewhere
    assert _begun("one two", []) == _begun("", ["two"]) == _begun("one two", ["three"]) == 0


@real
def test_labels_have_the_logprobs_of_free_sampling(engine: OpenVINOEngine) -> None:
    text = "Is Paris in France? Answer with exactly one word, Yes or No."
    free = one(engine, ask(text, max_tokens=1, temperature=0.0))
    assert free.logprobs is not None
    other = "No" if free.text == "Yes" else "Yes"
    request = ask(text, labels=(other, free.text), logprobs=False)
    bound = asyncio.run(engine.bound(request))
    (progress,) = run(engine, request)
    (completion,) = completions(progress)
    assert completion.labels is not None
    # what is free takes the likeliest token, so forcing it must find the same (up to the cache's rounding)
    assert completion.labels[1] == pytest.approx(free.logprobs[0], abs=0.3)
    assert completion.labels[0] < completion.labels[1] <= 0
    assert completion.text == free.text
    assert (progress.prompt, completion.tokens) == (bound.prompt, bound.completion)
    assert progress.cached > 0
    assert progress.slack == 2


@real
def test_what_does_not_fit_is_refused(engine: OpenVINOEngine) -> None:
    request = ask("Hello", max_tokens=8192)
    with pytest.raises(UsageError, match=r"exceed the context of smollm2-135m-instruct, 8192 tokens"):
        asyncio.run(engine.bound(request))
    with pytest.raises(UsageError, match="exceed the context"):
        run(engine, request)
    picture = Message(content=(Part(kind="image", reference="cat.png"), Part(text="What is this?")))
    with pytest.raises(UsageError, match="text only"):
        asyncio.run(engine.bound(Request(messages=(picture,))))


@real
def test_many_calls_of_several_loops_at_once(engine: OpenVINOEngine) -> None:
    async def from_another_loop() -> list[Progress]:
        return await asyncio.to_thread(lambda: run(engine, *requests[:10]))

    async def both() -> list[Progress]:
        progresses = [Progress(n=request.n) for request in requests[10:]]
        other = asyncio.create_task(from_another_loop())
        await asyncio.gather(*map(engine.generate, requests[10:], progresses))
        return [*await other, *progresses]

    requests = [ask(f"What is {number} plus {number}?", n=8, max_tokens=6) for number in range(20)]
    progresses = asyncio.run(both())  # 160 children, more than fit into one batch
    assert sum(len(completions(progress)) for progress in progresses) == 160
    for request, progress in zip(requests, progresses, strict=True):
        assert progress.prompt == 8 * asyncio.run(engine.bound(request)).prompt


@real
def test_the_event_loop_runs_on_during_a_step(engine: OpenVINOEngine) -> None:
    process = engine._stepper._process
    take = process.step
    turns = 0
    during: list[int] = []

    def spy(adds: object, cancels: object) -> object:
        before = turns
        reply = take(adds, cancels)  # type: ignore[arg-type]  # passed through
        during.append(turns - before)
        return reply

    async def watched() -> None:
        nonlocal turns
        task = asyncio.create_task(engine.generate(ask("word " * 1500, max_tokens=2), Progress(n=1)))
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        await task

    process.step = spy  # type: ignore[method-assign, assignment]  # watches each step
    try:
        asyncio.run(watched())
    finally:
        process.step = take  # type: ignore[method-assign]  # as it was
    assert max(during) > 3  # with the pipeline in this process it would be one at most


@real
def test_closing_and_failing(tmp_path: Path) -> None:
    # one more engine for what cannot be undone
    path = catalog.pull(MODEL, announce=print)
    engine = OpenVINOEngine(path)

    async def close_while_running() -> None:
        progress = Progress(n=2)
        task = asyncio.create_task(engine.generate(ask(PARIS, n=2, max_tokens=500), progress))
        await wrote(progress, 1)
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            await task

    asyncio.run(close_while_running())
    asyncio.run(engine.close())
    with pytest.raises(EngineError, match="closed"):
        run(engine, ask("Say hi."))

    with pytest.raises(UsageError, match="Cannot open"):
        OpenVINOEngine(tmp_path / "missing.gguf")
    (tmp_path / "short.gguf").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UsageError, match="not a complete GGUF"):
        OpenVINOEngine(tmp_path / "short.gguf")
    with pytest.raises(UsageError, match="cache_gb"):
        OpenVINOEngine(path, cache_gb=0.001)


@real
def test_a_dead_process_fails_every_waiting_call() -> None:
    engine = OpenVINOEngine(catalog.pull(MODEL, announce=print))

    async def kill_while_running() -> None:
        both = [Progress(n=80) for _ in range(2)]
        tasks = [asyncio.create_task(engine.generate(ask(PARIS, n=80), progress)) for progress in both]
        await wrote(both[0], 1)
        engine._stepper._process._popen.kill()
        for task in tasks:
            with pytest.raises(EngineError, match="process that runs the model ended"):
                await task

    try:
        asyncio.run(kill_while_running())
        with pytest.raises(EngineError, match="process that runs the model ended"):
            run(engine, ask("Say hi."))
    finally:
        asyncio.run(engine.close())


@real
def test_an_engine_that_nobody_closed_does_not_hold_up_the_exit_and_tells_nobody_of_itself(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from outthink.models.openvino import OpenVINOEngine\n"
        "assert 'openvino' not in sys.modules and 'openvino_genai' not in sys.modules\n"
        "from outthink.models.engine import Progress, Request\n"
        "from outthink.types import Message\n"
        f"engine = OpenVINOEngine({str(catalog.pull(MODEL, announce=print))!r})\n"
        "async def main():\n"
        "    task = asyncio.create_task(engine.generate(Request(messages=(Message(content='Hi'),)), Progress(n=1)))\n"
        "    await asyncio.sleep(0.2)\n"
        "    print('leaving')\n"
        "    raise SystemExit(7)\n"
        "asyncio.run(main())\n"
    )
    home = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | home
    environment.pop("CI", None)  # where OpenVINO is silent anyway
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (7, "leaving\n", "")
    assert [*tmp_path.iterdir()] == []


def test_the_cache_is_never_thought_larger_than_it_is() -> None:
    cache = _PrefixCache(window=10)
    chain = block_chain(range(32 * 4 + 1))
    assert len(chain) == 4
    assert cache.held(chain) == 0
    cache.allocate(5)
    cache.touch(chain)
    assert cache.held(chain) == 4
    cache.allocate(9)
    assert cache.held(chain) == 4
    cache.touch(chain[:2])
    cache.allocate(1)  # ten new blocks since the last two were used
    assert cache.held(chain) == 2


def test_a_block_counts_only_with_everything_before_it() -> None:
    ids = list(range(100))
    assert block_chain(ids[:33]) == block_chain(ids)[:1]
    assert len(block_chain(ids[:32])) == 0  # the last token is always read, to write the next
    assert not set(block_chain(ids)) & set(block_chain([7, *ids[1:]]))
