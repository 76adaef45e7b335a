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
from outthink.server.start import viewer
from outthink.view.pages import POLICY, Viewer
from outthink.view.recordings import Shelf
from tests.tools.server import Server, says
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


def test_a_key_sees_what_was_asked_with_it_and_nothing_else(tmp_path: Path) -> None:
    """Whatever stands in what was asked and told, and wherever somebody looks."""
    made = dict(make_key(tmp_path / "keys", name) for name in ("one", "two", "three"))
    keys = Keys.open(tmp_path / "keys")
    feigned = '","owner":"two"}'
    where = ("rows?source=0", "sources", "overview?source=0", "compare?sources=0", "rows?source=0&around=0")

    async def told(session: aiohttp.ClientSession, url: str, name: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {made[name]}"}
        async with session.get(f"{url}/view/api/{path}", headers=headers) as reply:
            return await reply.json()

    async def go() -> None:
        recorder = Recorder(tmp_path / "kept", {**SETTINGS, "model": "http://secret.example/v1"})
        parts: dict[str, Any] = {"recorder": recorder, "viewer": viewer(tmp_path / "kept", keys), "keys": keys}
        async with (
            Server(says(f"so 42{feigned}")) as upstream,
            serving(upstream, strategy="none", **parts) as (url, _),
            aiohttp.ClientSession() as session,
        ):
            for name, count in (("one", 2), ("two", 1)):
                for _ in range(count):
                    asked = chat(f"I am {name}{feigned}", metadata={"owner": "two"})
                    headers = {"Authorization": f"Bearer {made[name]}"}
                    async with session.post(url + CHAT, json=asked, headers=headers) as answer:
                        assert answer.status == 200, await answer.text()
            for name, other, count in (("one", "two", 2), ("two", "one", 1), ("three", "one", 0)):
                for _ in range(400 if count else 20):
                    listed = await told(session, url, name, "rows?source=0")
                    if count and len(listed["rows"]) >= count:
                        break
                    await asyncio.sleep(0.02)
                assert listed["total"] == len(listed["rows"]) == count
                everything = [await told(session, url, name, path) for path in where]
                everything += [await told(session, url, name, f"problem?source=0&line={line}") for line in range(4)]
                said = json.dumps(everything)
                assert said.count("I am ") == said.count(f"I am {name}") == count
                assert f"I am {other}" not in said
                assert str(tmp_path) not in said
                assert "secret" not in said
                (source,) = (await told(session, url, name, "sources"))["sources"]
                assert (source["lines"], source["known"]) == (count, count)

    asyncio.run(asyncio.wait_for(go(), 60))


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
