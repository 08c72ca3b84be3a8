import uuid
from typing import Any

import httpx
import pytest

from molecule_ai.kernel.crypto import Keyring
from molecule_ai.server.app import Server
from molecule_ai.server.secrets.errors import SecretsBroken
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.server.workspaces.test_routes import create, events_of, refusal, token_of


async def test_a_secret_is_kept_listed_and_never_shown(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/secrets"
    saved = await admin.post(
        path, json={"key": "API_KEY", "value": "canary-77", "hosts": ["Api.Example.net"]}
    )
    assert (saved.status_code, saved.json()) == (200, {"status": "saved", "key": "API_KEY"})
    assert (await admin.put(path, json={"key": "API_KEY", "value": "canary-78"})).status_code == 200
    await admin.post("/settings/secrets", json={"key": "API_KEY", "value": "shadowed"})
    await admin.post("/admin/secrets", json={"key": "ORG_KEY", "value": "canary-79"})
    listed = await admin.get(path)
    assert [(s["key"], s["scope"], s["has_value"]) for s in listed.json()] == [
        ("API_KEY", "workspace", True),
        ("ORG_KEY", "global", True),
    ]
    assert "canary" not in listed.text
    async with connect(server, await token_of(admin, made["id"])) as agent:
        pulled = await agent.get(f"{path}/values")
    assert pulled.json() == {"API_KEY": "canary-78", "ORG_KEY": "canary-79"}
    assert pulled.headers["cache-control"] == "no-store"
    events = await events_of(server, made["id"])
    assert ("secret.read", {"keys": ["API_KEY", "ORG_KEY"]}) in events
    assert "canary" not in str(events)


async def test_values_are_for_the_agent_alone(admin: httpx.AsyncClient, server: Server) -> None:
    one, other = await create(admin, "One"), await create(admin, "Other")
    path = f"/workspaces/{one['id']}/secrets/values"
    await token_of(admin, one["id"])
    assert refusal(await admin.get(path)) == (401, "invalid workspace auth token")
    async with connect(server, await token_of(admin, other["id"])) as stranger:
        assert refusal(await stranger.get(path)) == (401, "invalid workspace auth token")
    async with connect(server) as anonymous:
        assert refusal(await anonymous.get(path)) == (401, "missing workspace auth token")


async def test_org_secrets_need_an_admin(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin)
    async with connect(server, await token_of(admin, made["id"])) as agent:
        assert (await agent.get("/settings/secrets")).status_code == 401
        assert (await agent.post("/settings/secrets", json={"key": "A", "value": "b"})).status_code == 401
    saved = await admin.post("/settings/secrets", json={"key": "A", "value": "b"})
    assert saved.json() == {"status": "saved", "key": "A", "scope": "global"}
    assert (await admin.get("/settings/secrets/A/dependents")).json() == {"dependents": [made["id"]]}
    assert (await admin.delete("/admin/secrets/A")).json()["status"] == "deleted"
    assert refusal(await admin.delete("/settings/secrets/A")) == (404, "secret not found")


async def test_deleting_twice_finds_nothing(admin: httpx.AsyncClient) -> None:
    made = await create(admin, secrets={"A": "b"})
    path = f"/workspaces/{made['id']}/secrets/A"
    assert (await admin.delete(path)).json() == {"status": "deleted", "key": "A"}
    assert refusal(await admin.delete(path)) == (404, "secret not found")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_request"),
        ({"key": "A"}, "invalid_request"),
        ({"key": "A", "value": ""}, "invalid_request"),
        ({"key": "a-b", "value": "x"}, "INVALID_SECRET_KEY"),
        ({"key": "A" * 256, "value": "x"}, "INVALID_SECRET_KEY"),
        ({"key": "PLATFORM_URL", "value": "x"}, "RESERVED_SECRET_KEY"),
        ({"key": "MOLECULE_WORKSPACE_TOKEN", "value": "x"}, "RESERVED_SECRET_KEY"),
        ({"key": "A", "value": "x" * 65537}, "INVALID_SECRET_VALUE"),
        ({"key": "A", "value": "x", "delivery": "mail"}, "INVALID_SECRET_DELIVERY"),
    ],
)
async def test_what_cannot_be_kept(admin: httpx.AsyncClient, body: dict[str, Any], code: str) -> None:
    made = await create(admin)
    answer = await admin.post(f"/workspaces/{made['id']}/secrets", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert (await admin.get(f"/workspaces/{made['id']}/secrets")).json() == []


async def test_a_store_holds_two_hundred(admin: httpx.AsyncClient) -> None:
    made = await create(admin, secrets={f"K{n}": "v" for n in range(200)})
    path = f"/workspaces/{made['id']}/secrets"
    assert (await admin.post(path, json={"key": "K1", "value": "again"})).status_code == 200
    one_more = await admin.post(path, json={"key": "ONE_MORE", "value": "v"})
    assert one_more.json()["code"] == "TOO_MANY_SECRETS"


async def test_only_environment_secrets_reach_the_environment(
    admin: httpx.AsyncClient, server: Server
) -> None:
    made = await create(admin)
    path = f"/workspaces/{made['id']}/secrets"
    await admin.post(path, json={"key": "BROKERED", "value": "v", "delivery": "broker"})
    async with server.db.connection() as connection:
        assert await server.secrets.environment(connection, uuid.UUID(made["id"])) == {}


async def test_a_value_moved_to_another_row_does_not_open(admin: httpx.AsyncClient, server: Server) -> None:
    made = await create(admin, secrets={"A": "one", "B": "two"})
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspace_secrets SET encrypted_value ="
            " (SELECT encrypted_value FROM workspace_secrets WHERE key = 'B') WHERE key = 'A'"
        )
        with pytest.raises(SecretsBroken) as broken:
            await server.secrets.environment(tx, uuid.UUID(made["id"]))
    assert broken.value.extra["failed_keys"] == ["workspace:A"]


async def test_an_older_key_still_opens_and_a_lost_one_does_not(make_server: MakeServer) -> None:
    old, new = "1:" + "11" * 32, "2:" + "22" * 32
    first = await make_server(secrets_encryption_key=old)
    async with connect(first, ADMIN_TOKEN) as admin:
        made = await create(admin, secrets={"A": "one"})
    rotated = await make_server(secrets_encryption_keys=f"{new},{old}")
    lost = await make_server(secrets_encryption_key=new)
    async with rotated.db.connection() as connection:
        assert await rotated.secrets.environment(connection, uuid.UUID(made["id"])) == {"A": "one"}
    async with lost.db.connection() as connection:
        with pytest.raises(SecretsBroken):
            await lost.secrets.environment(connection, uuid.UUID(made["id"]))
    assert "***" in repr(Keyring.parse(old))
