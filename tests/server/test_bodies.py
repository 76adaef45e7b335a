"""Bodies within limits: what is text and what is media, how many values they hold, and what reading them takes."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from typing import Any

import pytest

from outthink.server.asked import read
from outthink.server.body import Intake, Sizes
from outthink.server.errors import BadRequest
from tests.tools.loops import held
from tests.tools.server import Ask, Server, run, says
from tests.tools.serving import asked, chat, serving

FOUR = "The answer is 4."
MB = 1 << 20
SMALL = Sizes(text=MB // 4, media=MB)
BOUND = 0.25  # seconds of the processor; what is aimed at is a fifth of it


def image(size: int) -> str:
    return "data:image/png;base64," + base64.b64encode(random.Random(size).randbytes(size * 3 // 4)).decode()


def with_image(url: str, text: str = "What is it?") -> dict[str, Any]:
    parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "m", "messages": [{"role": "user", "content": parts}]}


def inside(extra: str) -> bytes:
    """A chat request with more in it, written by hand."""
    return (json.dumps(chat())[:-1] + "," + extra + "}").encode()


def taken(body: bytes, sizes: Sizes = SMALL, piece: int = 10_000) -> int:
    """The status that a body gets: 200 where it is taken in and can be read."""
    intake = Intake(sizes)
    try:
        for start in range(0, len(body), piece):
            intake.add(body[start : start + piece])
        read(intake.whole(), {}, sizes)
    except BadRequest as refusal:
        return refusal.status
    return 200


def escaped(body: dict[str, Any]) -> bytes:
    """As some writers have it, who escape every slash."""
    return json.dumps(body).replace("/", "\\/").encode()


def in_lines(url: str) -> str:
    return "\n".join(url[start : start + 76] for start in range(0, len(url), 76))


SIZES: dict[str, tuple[bytes, int]] = {
    "text": (json.dumps(chat("Is it so? " * 20_000)).encode(), 200),
    "too much text": (json.dumps(chat("Is it so? " * 30_000)).encode(), 413),
    "text that looks like base64": (json.dumps(chat("x" * (MB // 2))).encode(), 413),
    "text in a part": (json.dumps(with_image(image(10), "x" * (MB // 2))).encode(), 413),
    "an image": (json.dumps(with_image(image(MB * 3 // 4))).encode(), 200),
    "an image with escaped slashes": (escaped(with_image(image(MB * 3 // 4))), 200),
    "an image in lines": (json.dumps(with_image(in_lines(image(MB * 3 // 4)))).encode(), 200),
    "an image that is too large": (json.dumps(with_image(image(MB + 999))).encode(), 413),
    "an image as text": (json.dumps(chat(image(MB // 2))).encode(), 413),
    "a sound": (
        json.dumps(
            chat()
            | {
                "messages": [
                    {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": image(MB // 2)}}]}
                ]
            }
        ).encode(),
        200,
    ),
    "quotes": (inside('"x":"' + '\\"' * (MB // 4) + '"'), 413),
    "values in a string": (inside('"x":"' + "[],{}:" * 30_000 + '"'), 200),
    "values in a string with quotes": (inside('"x":"' + '\\"a\\": [],' * 20_000 + '"'), 200),
    "values": (inside('"x":[' + ",".join(["[]"] * 40_000) + "]"), 413),
    "names": (inside('"x":{' + ",".join(f'"{number}":0' for number in range(18_000)) + "}"), 200),
    "backslashes": (inside('"x":"' + "\\\\" * 100_000 + '",' + '"y":[' + "[]," * 60_000 + "0]"), 413),
}


@pytest.mark.parametrize(("body", "status"), SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("piece", [999, 10**9])
def test_text_and_media_have_limits_of_their_own(body: bytes, status: int, piece: int) -> None:
    assert taken(body, piece=piece) == status


def test_a_body_that_is_too_large_is_refused_before_it_is_all_there() -> None:
    intake, part = Intake(SMALL), b"Is it so? " * 10_000
    intake.add(part)
    intake.add(part)
    with pytest.raises(BadRequest):
        intake.add(part * 3)
    assert intake.size < 2 * SMALL.text


HEAVY: dict[str, bytes] = {
    "values": inside('"x":[' + "0," * 480_000 + "0]"),
    "empty lists": inside('"x":[' + "[]," * 340_000 + "0]"),
    "names": inside('"x":{' + ",".join(f'"{number}":0' for number in range(49_000)) + "}"),
    "wrong names": inside('"outthink":{' + ",".join(f'"{number}":0' for number in range(49_000)) + "}"),
    "wrong parts": inside('"messages":[{"role":"user","content":[' + "0," * 49_000 + "0]}]"),
    "parts": inside(
        '"messages":[{"role":"user","content":[' + ",".join(['{"type":"text","text":"a"}'] * 15_000) + "]}]"
    ),
    "numbers": inside('"x":[' + ",".join(["1.5e300"] * 49_000) + "]"),
    "long numbers": inside('"x":[' + ",".join(["1" * 4_000] * 250) + "]"),
    "a long number": inside('"x":1.' + "1" * 1_000_000),
    "quotes": inside('"x":[' + '"' * 1_000_000 + "]"),
    "backslashes": inside('"x":"' + "\\" * 1_000_000 + '"'),
    "escapes": inside('"x":"' + "\\u0000" * 170_000 + '"'),
    "brackets": inside('"x":' + "[" * 1_000_000),
    "ends": b"]" * 1_000_000,
    "lists in lists": inside('"x":' + "[" * 190 + "[]," * 49_000 + "0" + "]" * 190),
    "blanks": inside(" " * 1_000_000 + '"x":0'),
    "two bytes a character": json.dumps(chat("\u4e2d" * 200_000), ensure_ascii=False).encode("utf-16"),
}


@pytest.mark.parametrize(
    "body",
    [b'{"x":{' + b'"1234567":0,' * 2_200_000 + b'"a":0}}', b'{"x":[' + b"[]," * 10_000_000 + b"0]}"],
    ids=["2.2 million keys", "10 million lists"],
)
def test_what_is_far_too_large_is_refused_before_a_tenth_of_it_has_come(body: bytes) -> None:
    intake, part = Intake(Sizes()), 1 << 16

    def come() -> None:
        for start in range(0, len(body), part):
            intake.add(body[start : start + part])

    with pytest.raises(BadRequest) as refused:
        come()
    assert refused.value.status == 413
    assert intake.size < len(body) / 10


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY.keys())
def test_whatever_is_in_a_body_it_is_read_or_refused_at_once(body: bytes) -> None:
    def once() -> float:
        began = time.thread_time()
        taken(body, Sizes(), 1 << 16)
        return time.thread_time() - began

    assert min(once(), once()) < BOUND


def test_a_large_body_leaves_the_loop_to_others_and_reaches_the_model_whole() -> None:
    async def go() -> None:
        url = image(3 * MB)
        seen: list[Any] = []

        def say(ask: Ask) -> str:
            seen.append(ask.body["messages"][0]["content"][1]["image_url"]["url"])
            return FOUR

        async with Server(say) as up, serving(up) as (address, service):
            async with held() as loop:
                answer = await asked(address, with_image(url) | {"model": "m+none"})
            assert (answer.content, service.bodies.held) == (FOUR, 0)
            assert seen == [url]
            assert loop.longest < BOUND

    asyncio.run(go())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (chat("Is it so? " * 30_000), "The text of the request is larger than 256 KB; shorten it."),
        (with_image(image(MB + 999)), "images, sounds and files of the request are larger than 1 MB"),
        (chat(x=[[]] * 60_000), "The body holds more than 50,000 values; send fewer."),
    ],
)
def test_a_refusal_says_what_is_too_much(body: Any, words: str) -> None:
    async def go() -> None:
        async with Server(says(FOUR)) as up, serving(up, settings={"sizes": SMALL}) as (url, service):
            answer = await asked(url, body)
            assert (answer.status, answer.error["code"]) == (413, "too_large")
            assert words in answer.error["message"]
            assert (service.bodies.held, up.asked) == (0, [])

    run(go())
