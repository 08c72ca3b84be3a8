"""The checklist of contract 01 §25, item by item."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from molecule_ai.server.app import Server
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer, serve, wait_for
from tests.upstream import upstream


async def test_01_the_open_state_ends_with_the_first_token(make_server: MakeServer) -> None:
    server = await make_server(admin_token="")
    async with connect(server) as client:
        assert (await client.get("/workspaces")).text == "[]"
        created = await client.post("/workspaces", json={"name": "First"})
        assert created.status_code in (200, 201), created.text
        workspace_id = created.json()["id"]
        minted = await client.post(f"/admin/workspaces/{workspace_id}/tokens")
        assert len(minted.json()["auth_token"]) == 43
        closed = await client.get("/workspaces")
        assert (closed.status_code, closed.json()["error"]) == (401, "admin auth required")
        # Deprecated, and only without ADMIN_TOKEN: any live token is an admin's.
        opened = await client.get("/workspaces", headers=bearer(minted.json()["auth_token"]))
        assert opened.status_code == 200


async def test_02_with_an_admin_token_only_admins_are_admins(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    own = await add_token(server, await add_workspace(server))
    key = (await admin.post("/org/tokens")).json()["auth_token"]
    for headers, status, text in (
        ({}, 401, "admin auth required"),
        (bearer("wrong"), 401, "invalid admin auth token"),
        (bearer(own), 401, "invalid admin auth token"),
        (bearer(key), 200, None),
        (bearer(ADMIN_TOKEN), 200, None),
    ):
        answer = await anonymous.get("/workspaces", headers=headers)
        assert answer.status_code == status
        assert text is None or answer.json()["error"] == text


async def test_03_a_workspace_s_routes_take_its_own_token_and_admins(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    a, b = await add_workspace(server), await add_workspace(server)
    token_of_a = await add_token(server, a)
    key = (await admin.post("/org/tokens")).json()["auth_token"]

    async def ask(name: Any, headers: dict[str, str]) -> tuple[int, str]:
        answer = await anonymous.get(f"/workspaces/{name}/activity", headers=headers)
        body = answer.json()
        return answer.status_code, body["error"] if isinstance(body, dict) else ""

    assert await ask(b, bearer(token_of_a)) == (401, "invalid workspace auth token")
    assert await ask(b, {}) == (401, "missing workspace auth token")
    assert await ask(b, bearer(key)) == (200, "")
    assert await ask(b, bearer(ADMIN_TOKEN)) == (200, "")
    assert await ask(str(a).upper(), bearer(token_of_a)) == (200, "")
    assert await ask("nonsense", bearer(ADMIN_TOKEN)) == (400, "invalid workspace ID")
    assert await ask(uuid4(), bearer(ADMIN_TOKEN)) == (404, "workspace not found")


async def test_03_without_a_bearer_the_database_is_not_asked(make_server: MakeServer) -> None:
    server = await make_server()
    await server.db.close()
    async with connect(server) as client:
        answer = await client.get(f"/workspaces/{uuid4()}/activity")
    assert (answer.status_code, answer.json()["error"]) == (401, "missing workspace auth token")


async def test_04_a_bad_bearer_never_falls_back_to_the_origin(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    await add_token(server, await add_workspace(server))
    listed, foreign = {"origin": "http://localhost:3000"}, {"origin": "https://evil.example"}
    for headers, status in (({**bearer("nonsense"), **listed}, 401), (listed, 200), (foreign, 401)):
        answer = await anonymous.put("/canvas/viewport", json={"zoom": 1}, headers=headers)
        assert answer.status_code == status, headers


async def test_05_tokens_are_capped_masked_and_dead_at_once(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    path = f"/workspaces/{await add_workspace(server)}/tokens"
    minted = [(await admin.post(path)).json() for _ in range(50)]
    assert (await admin.post(path)).status_code == 429
    listed = await admin.get(path)
    assert minted[0]["auth_token"] not in listed.text
    dead = bearer(minted[0]["auth_token"])
    assert (await anonymous.get(path, headers=dead)).status_code == 200
    assert (await admin.delete(f"{path}/{minted[0]['id']}")).status_code == 200
    assert (await admin.delete(f"{path}/{minted[0]['id']}")).status_code == 404
    assert (await anonymous.get(path, headers=dead)).status_code == 401


async def test_05_deleting_a_workspace_revokes_all_its_tokens(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    parent = await add_workspace(server, "Parent")
    child = await add_workspace(server, "Child", parent_id=parent)
    tokens = {w: await add_token(server, w) for w in (parent, child)}
    deleted = await admin.delete(
        f"/workspaces/{parent}", params={"confirm": "true"}, headers={"x-confirm-name": "Parent"}
    )
    assert deleted.status_code == 200, deleted.text
    for workspace_id, token in tokens.items():
        answer = await anonymous.get(f"/workspaces/{workspace_id}/activity", headers=bearer(token))
        assert answer.status_code == 401
    async with server.db.connection() as connection:
        live = "SELECT count(*) FROM workspace_auth_tokens WHERE revoked_at IS NULL"
        assert await connection.fetchval(live) == 0


async def test_06_and_07_keys_of_the_organization(
    anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    first = (await admin.post("/org/tokens")).json()
    assert "name" not in first
    assert first["warning"]
    assert first["created_by"] == "admin-token"
    assert (await admin.post("/org/tokens", json={"name": "n" * 101})).status_code == 400
    key = bearer(first["auth_token"])
    second = (await anonymous.post("/org/tokens", headers=key)).json()
    assert second["created_by"] == f"org-token:{first['prefix']}"
    for _ in range(9):
        assert (await admin.post("/org/tokens")).status_code == 200
    assert (await admin.post("/org/tokens")).status_code == 429
    revoked = await admin.delete(f"/org/tokens/{first['id']}")
    assert revoked.json() == {"revoked": first["id"]}
    assert (await admin.delete(f"/org/tokens/{first['id']}")).status_code == 404
    assert (await anonymous.get("/org/tokens", headers=key)).status_code == 401


async def test_08_an_absent_database_is_a_503_that_names_itself_and_nothing_else(
    make_server: MakeServer,
) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    await server.db.close()
    some = bearer("some-token")
    async with connect(server) as client:
        answers = [
            await client.get("/workspaces", headers=some),
            await client.get(f"/workspaces/{workspace_id}/activity", headers=some),
            await client.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)}, headers=some),
            await client.get(f"/registry/{workspace_id}/peers", headers=some),
        ]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error"] == "platform datastore unavailable — retry shortly"
        assert answer.json()["code"] == "platform_unavailable"
        assert "asyncpg" not in answer.text


@pytest.mark.settings(rate_limit=2)
async def test_09_limits_are_told_and_held(anonymous: httpx.AsyncClient) -> None:
    first = await anonymous.get("/org/identity")
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(first.headers)
    await anonymous.get("/org/identity")
    for forwarded in ("1.2.3.4", "5.6.7.8"):
        over = await anonymous.get("/org/identity", headers={"x-forwarded-for": forwarded})
        assert over.status_code == 429
        assert int(over.headers["retry-after"]) >= 1
        assert over.json()["retry_after"] >= 1
    for token in ("a", "b"):
        assert (await anonymous.get("/org/identity", headers=bearer(token))).status_code == 200


async def test_10_browsers_of_listed_origins(anonymous: httpx.AsyncClient) -> None:
    ask = {"access-control-request-method": "GET"}
    listed = await anonymous.options("/workspaces", headers={"origin": "http://localhost:3000", **ask})
    assert listed.status_code == 204
    assert "X-Molecule-Org-Slug" in listed.headers["access-control-allow-headers"]
    for method in ("GET", "OPTIONS", "POST"):
        foreign = {"origin": "https://evil.example", **ask}
        answer = await anonymous.request(method, "/workspaces", headers=foreign)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.settings(molecule_org_id="org-1")
async def test_11_a_tenant_hides_from_those_who_meant_another(anonymous: httpx.AsyncClient) -> None:
    hidden = await anonymous.get("/workspaces")
    assert (hidden.status_code, hidden.content) == (404, b"")
    meant = await anonymous.get("/workspaces", headers={"x-molecule-org-id": "org-1"})
    assert meant.status_code == 401
    for path in ("/health", "/metrics", "/buildinfo"):
        assert (await anonymous.get(path)).status_code == 200
    for path in ("/registry/register", "/registry/heartbeat"):
        assert (await anonymous.post(path, json={})).status_code not in (404, 429)
    assert (await anonymous.get("/health/x")).content == b""


@pytest.mark.settings(rate_limit=4)
async def test_12_security_headers_on_every_status(anonymous: httpx.AsyncClient) -> None:
    seen = {}
    for path in ("/org/identity", "/workspaces", "/events/a/b/c", "/org/identity", "/org/identity"):
        answer = await anonymous.get(path)
        seen[answer.status_code] = answer.headers
    assert set(seen) == {200, 401, 404, 429}
    for headers in seen.values():
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"] == "default-src 'self'"
    page = await anonymous.get("/docs")
    assert "unsafe-eval" not in page.headers["content-security-policy"]


async def test_13_nothing_leads_past_the_list_of_the_control_plane(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with upstream(tmp_path) as plane:
        server = await make_server(cp_upstream_url=plane.url)
        async with connect(server) as client:
            for path in (
                "/cp/admin/orgs",
                "/cp/auth",
                "/cp/orgsabc",
                "/cp/auth/../admin/orgs",
                "/cp/auth/%2e%2e/admin/orgs",
            ):
                # The client would tidy the path up; a raw target reaches the server as it is written.
                request = client.build_request("GET", "/cp", extensions={"target": path.encode()})
                request.url = httpx.URL(request.url, raw_path=path.encode())
                refused = await client.send(request)
                assert (refused.status_code, refused.content) == (404, b""), path
            assert plane.asked() == []
            passed = await client.get("/cp/orgs/acme", headers={"cookie": "mcp_session=s"})
        assert passed.status_code == 201
        (asked,) = plane.asked()
    assert (asked["path"], asked["headers"]["cookie"]) == ("/cp/orgs/acme", "mcp_session=s")
    assert asked["headers"]["host"] == plane.url.removeprefix("http://")


async def test_14_the_canvas_gets_nobodys_credentials(make_server: MakeServer, tmp_path: Path) -> None:
    async with upstream(tmp_path) as canvas:
        server = await make_server(canvas_proxy_url=canvas.url)
        async with connect(server, ADMIN_TOKEN) as client:
            assert (await client.get("/", headers={"cookie": "mcp_session=s"})).status_code == 200
        (asked,) = canvas.asked()
    assert not {"authorization", "cookie"} & set(asked["headers"])


@pytest.mark.settings(rate_limit=2)
async def test_15_metrics_are_prometheus_and_count_refusals(anonymous: httpx.AsyncClient) -> None:
    for _ in range(4):
        await anonymous.get(f"/workspaces/{uuid4()}/activity")
    text = (await anonymous.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    requests = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for sample in samples
        if sample.name == "molecule_http_requests_total"
    }
    assert requests["/workspaces/:id/activity", "429"] == 2
    assert requests["/workspaces/:id/activity", "401"] == 2


async def test_16_every_engine_reports_and_a_crash_is_a_restart(make_server: MakeServer) -> None:
    server = await make_server(engines=True)

    class Fragile:
        name = "fragile"
        interval_seconds = 0.01
        rounds = 0

        async def tick(self) -> object:
            self.rounds += 1
            if self.rounds == 1:
                raise RuntimeError("broken once")
            return {"rounds": self.rounds}

    server.supervisor.add(Fragile())
    async with connect(server, ADMIN_TOKEN) as admin:

        async def restarted() -> Any:
            shown = (await admin.get("/admin/liveness")).json()["subsystems"]
            return shown if shown["fragile"]["last_tick_at"] else None

        shown = await wait_for(restarted)
    assert shown["fragile"]["restarts"] == 1
    assert shown["fragile"]["state"] == "running"
    assert set(shown) == set(server.supervisor.pulses)
    for name in ("broadcaster", "notifications", "activity-retention", "reconciler", "scheduler", "mailbox"):
        assert shown[name]["state"] == "running", name


async def test_17_nobody_speaks_as_the_system(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    for method, path in (("POST", "a2a"), ("GET", "schedules/health")):
        for name in ("system:x", "webhook:x", "test:x", "channel:x"):
            answer = await admin.request(
                method, f"/workspaces/{workspace_id}/{path}", headers={"x-workspace-id": name}
            )
            assert (answer.status_code, answer.json()["error"]) == (403, "invalid caller ID")


async def test_18_a_signal_ends_a_server_that_streams(make_server: MakeServer, dsn: str) -> None:
    workspace_id = await add_workspace(await make_server())
    async with (
        serve(dsn, workers=1) as served,
        served.client(ADMIN_TOKEN) as admin,
        admin.stream("GET", f"/workspaces/{workspace_id}/events/stream") as stream,
        aiohttp.ClientSession(served.url, headers=bearer(ADMIN_TOKEN)) as sockets,
        sockets.ws_connect("/ws") as socket,
    ):
        chunks = stream.aiter_bytes()
        assert await anext(chunks) == b": ping\n\n"
        assert await asyncio.wait_for(served.stop(signal.SIGTERM), 40) == 0
        farewell = await socket.receive()
        assert (farewell.type, farewell.data) == (aiohttp.WSMsgType.CLOSE, 1001)


@pytest.mark.parametrize(
    "settings", [{}, {"molecule_env": "dev"}, {"molecule_strict_auth": "1"}, {"molecule_org_id": "org-1"}]
)
async def test_19_test_tokens_are_gone(make_server: MakeServer, settings: dict[str, str]) -> None:
    server = await make_server(**settings)
    workspace_id = await add_workspace(server)
    async with connect(server, ADMIN_TOKEN) as admin:
        headers = {"x-molecule-org-id": "org-1"}
        path = f"/admin/workspaces/{workspace_id}/test-token"
        assert (await admin.get(path, headers=headers)).status_code == 404


async def test_20_json_is_compact_and_errors_are_strings(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    for client in (anonymous, admin):
        for path in ("/health", "/workspaces", f"/workspaces/{workspace_id}", "/events", "/nowhere", "/ws"):
            answer = await client.get(path)
            assert b'": ' not in answer.content
            assert b'", "' not in answer.content
            if answer.status_code >= 400:
                assert isinstance(answer.json()["error"], str)


async def test_the_migrations_run_both_ways(dsn: str) -> None:
    from molecule_ai.kernel import migrations

    steps = migrations.load()
    assert len(await migrations.downgrade(dsn, steps, len(steps))) == len(steps)
    connection = await asyncpg.connect(dsn)
    left = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations'"
    assert await connection.fetch(left) == []
    await connection.close()
    assert await migrations.upgrade(dsn, steps) == [step.name for step in steps]
