"""Sessions of a control plane, verified at a real server of another process (contract 01 §7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import Role
from molecule_ai.server.auth.sessions import Sessions
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer
from tests.upstream import Upstream, upstream

OWN = {"origin": "http://molecule.test"}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with upstream(tmp_path) as started:
        yield started


@pytest.fixture
async def server(make_server: MakeServer, plane: Upstream) -> Server:
    return await make_server(cp_upstream_url=plane.url, molecule_org_slug="acme")


def session(name: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; mcp_session={name}; other=1"}


async def test_a_member_is_an_admin_and_only_the_session_cookie_travels(
    anonymous: httpx.AsyncClient, plane: Upstream
) -> None:
    assert (await anonymous.get("/workspaces", headers=session("owner-cookie"))).status_code == 200
    (asked,) = plane.asked()
    assert asked["path"] == "/cp/auth/tenant-member?slug=acme"
    assert asked["headers"]["cookie"] == "mcp_session=owner-cookie"
    assert asked["headers"]["user-agent"] == "molecule-tenant-platform/session-verifier"


@pytest.mark.parametrize("cookie", ["unknown", "broken-cookie", ""])
async def test_whom_the_control_plane_does_not_know_is_nobody(
    anonymous: httpx.AsyncClient, cookie: str
) -> None:
    refused = await anonymous.get("/workspaces", headers=session(cookie))
    assert (refused.status_code, refused.json()["error"]) == (401, "admin auth required")


async def test_a_session_opens_workspaces_discovery_and_messages(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    workspace_id, peer = await add_workspace(server), await add_workspace(server)
    await add_token(server, workspace_id)
    await add_token(server, peer)
    for path in (f"/workspaces/{workspace_id}/activity", f"/registry/{workspace_id}/peers"):
        assert (await anonymous.get(path, headers=session("admin-cookie"))).status_code == 200
        assert (await anonymous.get(path)).status_code == 401
    invalid = await anonymous.get(f"/registry/{workspace_id}/peers", headers=session("unknown"))
    assert (invalid.status_code, invalid.json()["error"]) == (401, "invalid session")
    own_only = f"/workspaces/{workspace_id}/secrets/values"
    assert (await anonymous.get(own_only, headers=session("admin-cookie"))).status_code == 401
    said = await anonymous.post(
        f"/workspaces/{workspace_id}/a2a", json={}, headers={**session("admin-cookie"), **OWN}
    )
    assert said.status_code not in (401, 403)


async def test_a_bad_bearer_leaves_the_word_to_the_cookie_and_a_good_one_comes_first(
    server: Server, anonymous: httpx.AsyncClient, plane: Upstream
) -> None:
    both = {**session("owner-cookie"), **bearer("nonsense")}
    assert (await anonymous.get("/workspaces", headers=both)).status_code == 200
    asked = len(plane.asked())
    explicit = {**session("admin-cookie"), **bearer(ADMIN_TOKEN), **OWN}
    minted = await anonymous.post("/org/tokens", headers=explicit)
    assert minted.json()["created_by"] == "admin-token"
    assert len(plane.asked()) == asked
    by_session = await anonymous.post("/org/tokens", headers={**session("admin-cookie"), **OWN})
    assert by_session.json()["created_by"] == "session:user_admin-cookie"


async def test_another_site_changes_nothing_with_the_cookie(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    for origin in ({}, {"origin": "https://evil.example"}):
        refused = await anonymous.post("/org/tokens", headers={**session("admin-cookie"), **origin})
        assert (refused.status_code, refused.json()["error"]) == (403, "origin not allowed")
    listed = {"origin": "http://localhost:3000"}
    assert (
        await anonymous.post("/org/tokens", headers={**session("admin-cookie"), **listed})
    ).status_code == 200


async def test_a_member_works_but_does_not_administer(server: Server, anonymous: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    member = {**session("member-cookie"), **OWN}
    for path in ("/admin/liveness", "/settings/secrets", "/org/tokens"):
        refused = await anonymous.get(path, headers=member)
        assert (refused.status_code, refused.json()["error"]) == (403, "not permitted for this role")
    renamed = await anonymous.patch(f"/workspaces/{workspace_id}", json={"name": "Mine"}, headers=member)
    assert renamed.status_code == 200
    # A control plane that sends no role means an admin.
    assert (await anonymous.get("/admin/liveness", headers=session("old-cookie"))).status_code == 200


async def test_verdicts_are_kept_a_while_and_asked_for_once(plane: Upstream) -> None:
    now = [1000.0]
    sessions = Sessions(plane.url, "acme", lambda: now[0])
    await sessions.open()
    try:
        crowd = await asyncio.gather(*(sessions.find("member-cookie") for _ in range(20)))
        assert {found.role for found in crowd if found} == {Role.EDITOR}
        assert await sessions.find("unknown") is None
        assert len(plane.asked()) == 2
        now[0] += 4.9
        await sessions.find("unknown")
        assert len(plane.asked()) == 2
        now[0] += 0.2
        await sessions.find("unknown")
        await sessions.find("member-cookie")
        assert len(plane.asked()) == 3
        now[0] += 25
        await sessions.find("member-cookie")
        assert len(plane.asked()) == 4
        now[0] += 31
        assert await sessions.tick() == {"forgotten": 2, "kept": 0}
    finally:
        await sessions.close()


async def test_an_absent_control_plane_is_no_verdict(plane: Upstream) -> None:
    sessions = Sessions(plane.url, "acme")
    await sessions.open()
    try:
        await plane.stop()
        assert await sessions.find("owner-cookie") is None
        assert await sessions.tick() == {"forgotten": 0, "kept": 0}
    finally:
        await sessions.close()


async def test_without_a_slug_cookies_are_ignored(make_server: MakeServer, plane: Upstream) -> None:
    server = await make_server(cp_upstream_url=plane.url)
    async with connect(server) as client:
        assert (await client.get("/workspaces", headers=session("owner-cookie"))).status_code == 401
    assert plane.asked() == []
