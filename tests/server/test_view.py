"""The page of a server that records: what was served is seen as it comes, by those who may ask."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from outthink.server.keys import Keys, make_key
from outthink.server.record import Recorder
from outthink.view.pages import POLICY, Viewer
from outthink.view.recordings import Shelf
from tests.tools.server import Server
from tests.tools.serving import CHAT, chat, serving

SETTINGS: dict[str, Any] = {"strategy": "none", "models": {"model": "m"}}


async def follow(session: aiohttp.ClientSession, url: str, told: asyncio.Queue[Any]) -> None:
    """Put what the stream of events tells into a queue, as it comes, and None at its end."""
    async with session.get(url) as stream:
        async for line in stream.content:
            if line.startswith(b"data: "):
                told.put_nowait(json.loads(line[6:]))
    told.put_nowait(None)


def test_requests_are_seen_as_they_come_and_the_server_can_still_end(tmp_path: Path) -> None:
    async def go() -> None:
        recorder = Recorder(tmp_path / "traffic", SETTINGS)
        viewer = Viewer(Shelf([tmp_path / "traffic"]), every=0.02)
        async with aiohttp.ClientSession() as session, Server() as upstream:
            async with serving(upstream, strategy="none", recorder=recorder, viewer=viewer) as (url, _):
                told: asyncio.Queue[Any] = asyncio.Queue()
                following = asyncio.create_task(follow(session, f"{url}/view/api/events", told))
                async with session.get(f"{url}/view") as page:  # people leave the slash out
                    assert (page.status, page.url.path) == (200, "/view/")
                async with session.get(f"{url}/view/") as page:
                    assert (page.status, page.headers["Content-Security-Policy"]) == (200, POLICY)
                async with session.post(url + CHAT, json=chat("What is <b>2+2</b>?")) as answer:
                    assert answer.status == 200
                rows: list[Any] = []
                while not rows:
                    await asyncio.wait_for(told.get(), 10)
                    async with session.get(f"{url}/view/api/rows?source=0") as listed:
                        rows = (await listed.json())["rows"]
                async with session.get(f"{url}/view/api/problem?source=0&line=0") as shown:
                    entry = await shown.json()
                assert entry["trace"]["prompts"][0][-1]["content"] == "What is <b>2+2</b>?"
                async with session.get(f"{url}/view/api/sources") as listed:
                    assert [one["name"] for one in (await listed.json())["sources"]] == ["traffic/served"]
            # the stream of events did not keep it from ending
            while await asyncio.wait_for(told.get(), 10) is not None:
                pass
            await following

    asyncio.run(asyncio.wait_for(go(), 60))


def test_nobody_without_a_key_sees_any_of_it(tmp_path: Path) -> None:
    _, key = make_key(tmp_path / "keys")

    async def go() -> None:
        recorder = Recorder(tmp_path / "traffic", SETTINGS)
        parts: dict[str, Any] = {
            "recorder": recorder,
            "viewer": Viewer(Shelf([tmp_path])),
            "keys": Keys.open(tmp_path / "keys"),
        }
        async with (
            Server() as upstream,
            serving(upstream, strategy="none", **parts) as (url, _),
            aiohttp.ClientSession() as session,
        ):
            for path, status in (
                ("", 200), ("static/app.js", 200), ("static/../../v1/models", 401), ("api/sources", 401),
                ("api/rows?source=0", 401), ("api/problem?source=0&line=0", 401), ("api/compare?sources=0", 401),
                ("api/overview?source=0", 401), ("api/events", 401), ("static/none.js", 404),
            ):  # fmt: skip
                async with session.get(f"{url}/view/{path}") as reply:
                    assert reply.status == status, path
            async with session.get(f"{url}/view/api/sources", headers={"Authorization": f"Bearer {key}"}) as reply:
                assert reply.status == 200

    asyncio.run(go())


def test_there_is_no_page_where_none_was_asked_for(tmp_path: Path) -> None:
    async def go() -> None:
        recorder = Recorder(tmp_path, SETTINGS)
        async with (
            Server() as upstream,
            serving(upstream, recorder=recorder) as (url, _),
            aiohttp.ClientSession() as session,
            session.get(f"{url}/view/") as reply,
        ):
            assert reply.status == 404

    asyncio.run(go())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed_through_it(tmp_path: Path, method: str) -> None:
    async def go() -> None:
        recorder, viewer = Recorder(tmp_path, SETTINGS), Viewer(Shelf([tmp_path]))
        async with (
            Server() as upstream,
            serving(upstream, recorder=recorder, viewer=viewer) as (url, _),
            aiohttp.ClientSession() as session,
            session.request(method, f"{url}/view/api/sources") as reply,
        ):
            assert reply.status == 405

    asyncio.run(go())
