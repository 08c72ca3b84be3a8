"""What is open before anything is configured, and what closes it (contract 01 §4 to §6)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.agents import Agent, add_agent, envelope
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer

CANVAS = {"canvas_proxy_url": "http://127.0.0.1:1"}
OWN_PAGE = {"origin": "http://molecule.test"}


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"admin_token": "", **CANVAS}, 200),
        ({"admin_token": ""}, 401),
        ({**CANVAS}, 401),
        ({"admin_token": "", "molecule_strict_auth": "1", **CANVAS}, 401),
        ({"admin_token": "", "cp_upstream_url": "http://127.0.0.1:1", **CANVAS}, 401),
    ],
)
async def test_a_page_of_this_host_is_believed_only_where_nothing_could_prove_it(
    make_server: MakeServer, settings: dict[str, Any], status: int
) -> None:
    server = await make_server(**settings)
    workspace_id = await add_workspace(server)
    await add_token(server, workspace_id)
    async with connect(server) as client:
        path = f"/workspaces/{workspace_id}/activity"
        for headers in (
            OWN_PAGE,
            {"referer": "http://molecule.test/"},
            {"referer": "https://molecule.test"},
        ):
            assert (await client.get(path, headers=headers)).status_code == status
        for headers in (
            {"origin": "http://molecule.test.evil.example"},
            {"referer": "http://molecule.test.evil.example/"},
            {"origin": "http://evil.example", "referer": "http://molecule.testx/"},
        ):
            assert (await client.get(path, headers=headers)).status_code == 401
        # Never an admin, and never in the place of a wrong bearer.
        assert (await client.get("/workspaces", headers=OWN_PAGE)).status_code == 401
        assert (await client.get(path, headers={**OWN_PAGE, **bearer("nonsense")})).status_code == 401


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"admin_token": ""}, 200),
        ({}, 401),
        ({"admin_token": "", "molecule_strict_auth": "1"}, 401),
        ({"admin_token": "", "molecule_env": "dev"}, 200),
        ({"molecule_env": "dev"}, 401),
    ],
)
async def test_a_message_from_nobody_passes_only_before_there_is_an_operator(
    make_server: MakeServer, settings: dict[str, Any], status: int
) -> None:
    server = await make_server(**settings)
    async with Agent().serving() as agent, connect(server) as client:
        target = await add_agent(server, agent)
        await add_token(server, target)
        answer = await client.post(f"/workspaces/{target}/a2a", json=envelope("hello"))
        assert answer.status_code == status
        assert status == 200 or answer.json()["error"] == "canvas auth required"
        assert len(agent.received) == (status == 200)


async def test_no_credential_of_a_caller_reaches_an_agent(server: Server) -> None:
    async with Agent().serving() as agent, connect(server) as client:
        target, caller = await add_agent(server, agent), await add_workspace(server)
        token = await add_token(server, caller)
        for headers in (
            {**bearer(ADMIN_TOKEN), "cookie": "mcp_session=s"},
            {**bearer(token), "x-workspace-id": str(caller)},
        ):
            said = await client.post(f"/workspaces/{target}/a2a", json=envelope("hello"), headers=headers)
            assert said.status_code in (200, 403), said.text
        assert agent.headers
        for given in agent.headers:
            text = str(given)
            assert ADMIN_TOKEN not in text
            assert token not in text
            assert "mcp_session" not in text


async def test_an_agent_proves_itself_also_towards_itself(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    async with Agent().serving() as agent:
        target = await add_agent(server, agent)
        await add_token(server, target)
        path, as_self = f"/workspaces/{target}/a2a", {"x-workspace-id": str(target)}
        refused = await anonymous.post(path, json=envelope("me"), headers=as_self)
        assert (refused.status_code, refused.json()["error"]) == (401, "missing caller auth token")
        wrong = await anonymous.post(path, json=envelope("me"), headers={**as_self, **bearer("nonsense")})
        assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid caller auth token")
        assert agent.received == []


async def test_a_live_key_of_the_organization_keeps_the_doors_closed(make_server: MakeServer) -> None:
    server = await make_server(admin_token="")
    async with connect(server) as client:
        minted = (await client.post("/org/tokens")).json()
        assert minted["created_by"] == "bootstrap"
        assert (await client.get("/workspaces")).status_code == 401
        workspace_id = await add_workspace(server)
        await add_token(server, workspace_id)
        async with server.db.transaction() as tx:
            await server.tokens.revoke_all(tx, [workspace_id])
        assert (await client.get("/workspaces")).status_code == 401
        key = bearer(minted["auth_token"])
        assert (await client.delete(f"/org/tokens/{minted['id']}", headers=key)).status_code == 200
        assert (await client.get("/workspaces")).status_code == 200


@pytest.mark.parametrize(
    "settings", [{"molecule_strict_auth": "1"}, {"molecule_env": "production"}, {"molecule_org_id": "o"}]
)
async def test_strict_and_hosted_servers_have_no_open_state(
    make_server: MakeServer, settings: dict[str, Any]
) -> None:
    server = await make_server(admin_token="", secrets_encryption_key="ab" * 32, **settings)
    async with connect(server) as client:
        answer = await client.get("/workspaces", headers={"x-molecule-org-id": "o"})
        assert (answer.status_code, answer.json()["error"]) == (401, "admin auth required")


async def test_strict_mode_takes_no_workspace_token_for_an_admins(make_server: MakeServer) -> None:
    for strict, status in (("0", 200), ("1", 401)):
        server = await make_server(admin_token="", molecule_strict_auth=strict)
        own = await add_token(server, await add_workspace(server))
        async with connect(server, own) as client:
            assert (await client.get("/workspaces")).status_code == status


@pytest.mark.parametrize(("strict", "status"), [("0", 200), ("1", 401)])
async def test_a_workspace_without_a_token_speaks_for_itself_only_by_default(
    make_server: MakeServer, strict: str, status: int
) -> None:
    server = await make_server(molecule_strict_auth=strict)
    workspace_id = await add_workspace(server)
    async with connect(server) as client:
        peers = await client.get(f"/registry/{workspace_id}/peers")
        beat = await client.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)})
        assert (peers.status_code, beat.status_code) == (status, status)


async def test_in_strict_mode_an_agent_registers_only_while_it_is_expected(make_server: MakeServer) -> None:
    server = await make_server(molecule_strict_auth="1")
    async with connect(server) as client:
        for columns, status in (({"status": "provisioning"}, 200), ({"status": "online"}, 401)):
            workspace_id = await add_workspace(server, **columns)
            card = {"name": "x", "url": "", "version": "1", "skills": [], "capabilities": {}}
            body = {"id": str(workspace_id), "delivery_mode": "poll", "agent_card": card}
            answer = await client.post("/registry/register", json=body)
            assert answer.status_code == status, answer.text
        late = await add_workspace(server, status="provisioning")
        async with server.db.transaction() as tx:
            old = "UPDATE workspaces SET status_changed_at = now() - interval '11 minutes' WHERE id = $1"
            await tx.execute(old, late)
        assert (await client.post("/registry/register", json=body | {"id": str(late)})).status_code == 401


async def test_operators_may_look_and_post_where_agents_do(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    one, two = await add_workspace(server), await add_workspace(server)
    for workspace_id in (one, two):
        await add_token(server, workspace_id)
    key = (await admin.post("/org/tokens")).json()["auth_token"]
    for token in (key, ADMIN_TOKEN):
        headers = bearer(token)
        named = {**headers, "x-workspace-id": str(one)}
        assert (await anonymous.get(f"/registry/{one}/peers", headers=headers)).status_code == 200
        assert (await anonymous.get(f"/registry/discover/{two}", headers=named)).status_code != 401
        viewport = await anonymous.put("/canvas/viewport", json={"zoom": 1}, headers=headers)
        assert viewport.status_code == 200


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "http://molecule.test"),
        ({"trusted_proxies": "127.0.0.0/8"}, "https://public.example"),
        ({"external_platform_url": "https://named.example/"}, "https://named.example"),
    ],
)
async def test_where_the_platform_is_comes_from_nobody_but_a_trusted_proxy(
    make_server: MakeServer, settings: dict[str, Any], expected: str
) -> None:
    server = await make_server(**settings)
    async with connect(server, ADMIN_TOKEN) as admin:
        created = await admin.post(
            "/workspaces",
            json={"name": "Outside", "external": True},
            headers={"x-forwarded-host": "public.example", "x-forwarded-proto": "https"},
        )
        assert created.json()["connection"]["platform_url"] == expected
