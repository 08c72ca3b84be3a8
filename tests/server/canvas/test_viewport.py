"""Where the canvas opens (contract 06 §8, 01 §4.4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import MakeServer, connect
from tests.support import add_token, add_workspace, bearer
from tests.upstream import Upstream, upstream

PATH = "/canvas/viewport"
START = {"x": 0, "y": 0, "zoom": 1}


async def test_what_was_saved_last_is_shown_to_everybody(
    anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    assert (await anonymous.get(PATH)).json() == START
    for seen in ({"x": 12.5, "y": -3, "zoom": 0.5}, {"x": 1, "y": 2, "zoom": 3}):
        saved = await admin.put(PATH, json=seen)
        assert (saved.status_code, saved.json()) == (200, {"status": "saved"})
        assert (await anonymous.get(PATH)).json() == seen


@pytest.mark.parametrize(
    "seen", ['{"zoom":0}', '{"zoom":-1}', "{}", '{"x":1e999,"zoom":1}', '{"x":"left"}', "nonsense"]
)
async def test_a_viewport_that_shows_nothing_is_refused(
    anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, seen: str
) -> None:
    refused = await admin.put(PATH, content=seen)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid viewport data")
    assert (await anonymous.get(PATH)).json() == START


async def test_every_credential_and_a_listed_page_may_save_it(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    own = await add_token(server, await add_workspace(server))
    key = (await admin.post("/org/tokens")).json()["auth_token"]
    listed, foreign = {"origin": "http://localhost:3000"}, {"origin": "https://evil.example"}

    async def save(headers: dict[str, str]) -> tuple[int, str]:
        answer = await anonymous.put(PATH, json=START, headers=headers)
        return answer.status_code, answer.json().get("error", "")

    for headers in (bearer(own), bearer(key), listed):
        assert await save(headers) == (200, "")
    for headers in ({}, foreign, {"origin": "http://molecule.test"}):
        assert await save(headers) == (401, "admin auth required")
    # A bad bearer never falls back to the origin.
    assert await save({**bearer("nonsense"), **listed}) == (401, "invalid admin auth token")


async def test_behind_the_same_host_the_canvas_may_save_it(make_server: MakeServer) -> None:
    server = await make_server(canvas_proxy_url="http://127.0.0.1:1")
    async with connect(server) as client:
        own = {"origin": "http://molecule.test"}
        assert (await client.put(PATH, json=START, headers=own)).status_code == 200


async def test_before_anything_is_configured_anybody_may_save_it(make_server: MakeServer) -> None:
    server = await make_server(admin_token="")
    async with connect(server) as client:
        assert (await client.put(PATH, json=START)).status_code == 200
        await add_token(server, await add_workspace(server))
        assert (await client.put(PATH, json=START)).status_code == 401


async def test_without_a_database_it_opens_at_the_start(make_server: MakeServer) -> None:
    server = await make_server()
    await server.db.close()
    async with connect(server) as client:
        assert (await client.get(PATH)).json() == START
        saved = await client.put(PATH, json=START, headers=bearer("some-token"))
        assert (saved.status_code, saved.json()["code"]) == (503, "platform_unavailable")


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with upstream(tmp_path) as started:
        yield started


async def test_a_person_has_one_of_their_own(make_server: MakeServer, plane: Upstream) -> None:
    server = await make_server(cp_upstream_url=plane.url, molecule_org_slug="acme")

    def person(name: str) -> dict[str, Any]:
        return {"cookie": f"mcp_session={name}", "origin": "http://molecule.test"}

    shared, own = {"x": 1, "y": 1, "zoom": 1}, {"x": 5, "y": 5, "zoom": 2}
    async with connect(server, "test-admin-token-0123456789abcdef") as admin, connect(server) as client:
        await admin.put(PATH, json=shared)
        assert (await client.get(PATH, headers=person("owner-cookie"))).json() == shared
        await client.put(PATH, json=own, headers=person("owner-cookie"))
        assert (await client.get(PATH, headers=person("owner-cookie"))).json() == own
        for headers in ({}, person("member-cookie"), person("unknown")):
            assert (await client.get(PATH, headers=headers)).json() == shared
