from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer


@pytest.fixture
async def workspace_id(server: Server) -> UUID:
    return await add_workspace(server)


async def test_a_minted_token_opens_its_own_workspace_only(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    other = await add_workspace(server)
    minted = await admin.post(f"/admin/workspaces/{workspace_id}/tokens")
    body = minted.json()

    assert minted.status_code == 201
    assert len(body["auth_token"]) == 43
    assert body["message"] == "Save this token now — it cannot be retrieved again."
    assert (body["workspace_id"], body["prefix"]) == (str(workspace_id), body["auth_token"][:8])
    assert minted.headers["cache-control"] == "no-store"

    own = await anonymous.get(f"/workspaces/{workspace_id}/tokens", headers=bearer(body["auth_token"]))
    assert own.status_code == 200
    foreign = await anonymous.get(f"/workspaces/{other}/tokens", headers=bearer(body["auth_token"]))
    assert (foreign.status_code, foreign.json()["error"]) == (401, "invalid workspace auth token")
    nothing = await anonymous.get(f"/workspaces/{workspace_id}/tokens")
    assert (nothing.status_code, nothing.json()["error"]) == (401, "missing workspace auth token")


async def test_the_list_shows_neither_plaintext_nor_digest(
    admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    body = {"name": "ci", "scopes": ["mcp:read"]}
    token = (await admin.post(f"/workspaces/{workspace_id}/tokens", json=body)).json()
    listed = await admin.get(f"/workspaces/{workspace_id}/tokens")

    assert token["auth_token"] not in listed.text
    assert "hash" not in listed.text
    page = listed.json()
    assert (page["count"], page["total"]) == (1, 1)
    assert page["tokens"][0]["id"] == token["id"]
    assert page["tokens"][0]["name"] == "ci"
    assert page["tokens"][0]["kind"] == "user"
    assert page["tokens"][0]["scopes"] == ["mcp:read"]
    assert page["tokens"][0]["last_used_at"] is None


async def test_a_page_that_makes_no_sense_becomes_the_default(
    admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    for _ in range(3):
        await admin.post(f"/workspaces/{workspace_id}/tokens")
    for query in ({"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"offset": "-1"}):
        assert (await admin.get(f"/workspaces/{workspace_id}/tokens", params=query)).json()["count"] == 3
    second = await admin.get(f"/workspaces/{workspace_id}/tokens", params={"limit": "2", "offset": "2"})
    assert (second.json()["count"], second.json()["total"]) == (1, 3)


async def test_a_revoked_token_is_gone(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    minted = (await admin.post(f"/workspaces/{workspace_id}/tokens")).json()
    path = f"/workspaces/{workspace_id}/tokens/{minted['id']}"

    # A token may revoke itself.
    first = await anonymous.delete(path, headers=bearer(minted["auth_token"]))
    assert (first.status_code, first.json()) == (200, {"status": "revoked"})
    dead = await anonymous.get(f"/workspaces/{workspace_id}/tokens", headers=bearer(minted["auth_token"]))
    assert dead.status_code == 401
    again = await admin.delete(path)
    assert (again.status_code, again.json()["error"]) == (404, "token not found or already revoked")


async def test_only_the_own_workspace_s_token_can_be_revoked(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    other = await add_workspace(server)
    minted = (await admin.post(f"/workspaces/{other}/tokens")).json()
    assert (await admin.delete(f"/workspaces/{workspace_id}/tokens/{minted['id']}")).status_code == 404
    for token_id in ("nonsense", str(uuid4())):
        missing = await admin.delete(f"/workspaces/{workspace_id}/tokens/{token_id}")
        assert (missing.status_code, missing.json()["error"]) == (404, "token not found or already revoked")


async def test_the_51st_live_token_is_refused(
    server: Server, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    for _ in range(50):
        last = await admin.post(f"/workspaces/{workspace_id}/tokens")
        assert last.status_code == 201
    refused = await admin.post(f"/workspaces/{workspace_id}/tokens")
    assert (refused.status_code, refused.json()["error"]) == (
        429,
        "maximum 50 active tokens per workspace",
    )
    # The agent itself always gets one: its workspace must be able to start.
    assert await add_token(server, workspace_id, kind="agent")
    await admin.delete(f"/workspaces/{workspace_id}/tokens/{last.json()['id']}")
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_auth_tokens SET revoked_at = now() WHERE kind = 'agent'")
    assert (await admin.post(f"/workspaces/{workspace_id}/tokens")).status_code == 201


@pytest.mark.parametrize("path", ["/workspaces/{}/tokens", "/admin/workspaces/{}/tokens"])
async def test_bad_wishes_are_refused(admin: httpx.AsyncClient, workspace_id: UUID, path: str) -> None:
    url = path.format(workspace_id)
    for body, text in (
        ({"name": "n" * 101}, "name too long (max 100 chars)"),
        ({"scopes": ["mcp:everything"]}, "unknown scope"),
        ({"scopes": "mcp:read"}, "invalid request body"),
        ([], "invalid request body"),
    ):
        answer = await admin.post(url, json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, text)
    empty = await admin.post(url, headers={"content-type": "application/json"})
    assert empty.status_code == 201


async def test_nothing_is_minted_for_absent_workspaces(server: Server, admin: httpx.AsyncClient) -> None:
    removed = await add_workspace(server, status="removed")
    for name in (str(uuid4()), str(removed)):
        answer = await admin.post(f"/admin/workspaces/{name}/tokens")
        assert (answer.status_code, answer.json()["error"]) == (404, "workspace not found")
    answer = await admin.post(f"/workspaces/{removed}/tokens")
    assert (answer.status_code, answer.json()["error"]) == (404, "workspace not found")
    answer = await admin.post("/admin/workspaces/nonsense/tokens")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid workspace ID")


async def test_only_admins_mint_for_any_workspace(
    server: Server, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    own = await add_token(server, workspace_id)
    for headers, text in (
        ({}, "admin auth required"),
        (bearer("nonsense"), "invalid admin auth token"),
        (bearer(own), "invalid admin auth token"),
    ):
        answer = await anonymous.post(f"/admin/workspaces/{workspace_id}/tokens", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, text)


async def test_a_narrowed_token_does_not_open_workspace_routes(
    anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, workspace_id: UUID
) -> None:
    body = {"scopes": ["mcp:read"]}
    minted = (await admin.post(f"/workspaces/{workspace_id}/tokens", json=body)).json()
    answer = await anonymous.get(f"/workspaces/{workspace_id}/tokens", headers=bearer(minted["auth_token"]))
    assert answer.status_code == 401


async def test_the_test_token_route_is_gone(admin: httpx.AsyncClient, workspace_id: UUID) -> None:
    assert (await admin.get(f"/admin/workspaces/{workspace_id}/test-token")).status_code == 404


async def test_an_org_key_is_a_second_admin(anonymous: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
    unnamed = await admin.post("/org/tokens")
    assert unnamed.status_code == 200
    assert unnamed.json()["warning"] == "copy this token now; it will not be shown again"
    assert "name" not in unnamed.json()
    assert unnamed.json()["created_by"] == "admin-token"
    assert unnamed.headers["cache-control"] == "no-store"

    key = bearer(unnamed.json()["auth_token"])
    named = (await anonymous.post("/org/tokens", json={"name": "nightly-ci"}, headers=key)).json()
    assert named["created_by"] == f"org-token:{unnamed.json()['prefix']}"

    listed = (await anonymous.get("/org/tokens", headers=key)).json()
    assert listed["count"] == 2
    assert [item["id"] for item in listed["tokens"]] == [named["id"], unnamed.json()["id"]]
    assert "name" not in listed["tokens"][1]
    assert named["auth_token"] not in str(listed)

    gone = await anonymous.delete(f"/org/tokens/{unnamed.json()['id']}", headers=key)
    assert (gone.status_code, gone.json()) == (200, {"revoked": unnamed.json()["id"]})
    assert (await anonymous.get("/org/tokens", headers=key)).status_code == 401
    again = await admin.delete(f"/org/tokens/{unnamed.json()['id']}")
    assert (again.status_code, again.json()["error"]) == (404, "token not found or already revoked")
    assert (await admin.delete("/org/tokens/nonsense")).status_code == 404


async def test_org_keys_take_strange_bodies(admin: httpx.AsyncClient) -> None:
    assert (await admin.post("/org/tokens", content=b"{not json")).status_code == 200
    long = await admin.post("/org/tokens", json={"name": "é" * 101})
    assert (long.status_code, long.json()["error"]) == (400, "name too long (max 100 chars)")
    assert (await admin.post("/org/tokens", json={"name": "é" * 100})).status_code == 200


async def test_org_keys_are_the_admin_s(
    server: Server, anonymous: httpx.AsyncClient, workspace_id: UUID
) -> None:
    own = await add_token(server, workspace_id)
    for method, path in (
        ("GET", "/org/tokens"),
        ("POST", "/org/tokens"),
        ("DELETE", f"/org/tokens/{uuid4()}"),
    ):
        assert (await anonymous.request(method, path)).status_code == 401
        assert (await anonymous.request(method, path, headers=bearer("nonsense"))).status_code == 401
        assert (await anonymous.request(method, path, headers=bearer(own))).status_code == 401


async def test_the_eleventh_key_within_an_hour_is_refused_on_every_replica(make_server, dsn: str) -> None:
    from tests.conftest import ADMIN_TOKEN, connect

    one, two = await make_server(), await make_server()
    async with connect(one, ADMIN_TOKEN) as first, connect(two, ADMIN_TOKEN) as second:
        for left in range(9, -1, -1):
            minted = await (first if left % 2 else second).post("/org/tokens")
            assert minted.headers["x-ratelimit-limit"] == "10"
            assert minted.headers["x-ratelimit-remaining"] == str(left)
            # Revoking does not buy a new one.
            await first.delete(f"/org/tokens/{minted.json()['id']}")
        refused = await second.post("/org/tokens")
        assert (refused.status_code, refused.json()["error"]) == (429, "rate limit exceeded")
        assert 3500 < refused.json()["retry_after"] <= 3600
        assert refused.headers["retry-after"] == str(refused.json()["retry_after"])
        assert 'molecule_rate_limited_total{limiter="mint"} 1.0' in (await second.get("/metrics")).text
        async with one.db.transaction() as tx:
            await tx.execute("UPDATE org_api_tokens SET created_at = created_at - interval '1 hour'")
        assert (await second.post("/org/tokens")).status_code == 200
