from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.conftest import MakeServer, connect
from tests.support import add_token, add_workspace, bearer

CARD = {"name": "scout", "skills": [{"id": "s", "name": "search"}]}
REFUSED_URLS = [
    "",
    "ftp://example.com",
    "http://169.254.169.254/",
    "http://127.0.0.1:9000",
    "http://10.1.2.3",
    "http://[::1]:80",
    "http://user:secret@93.184.216.34",
    "http://93.184.216.34:22",
    "http://",
    "not a url",
]


def body(workspace_id: UUID, **values: Any) -> dict[str, Any]:
    return {"id": str(workspace_id), "url": "http://localhost:8001", "agent_card": CARD} | values


async def row(server: Server, workspace_id: UUID) -> dict[str, Any]:
    async with server.db.connection() as connection:
        found = await connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
    assert found is not None
    return dict(found)


async def events(server: Server, workspace_id: UUID) -> list[str]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type FROM structure_events"
            " WHERE workspace_id = $1 AND event_type LIKE 'WORK%' ORDER BY seq",
            workspace_id,
        )
    return [r["event_type"] for r in rows]


async def test_the_first_registration_brings_a_token_and_the_workspace_online(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server, status="provisioning")
    first = await anonymous.post("/registry/register", json=body(workspace_id))

    assert first.status_code == 200
    told = first.json()
    assert (told["status"], told["workspace_status"]) == ("registered", "online")
    assert (told["workspace_id"], told["heartbeat_interval_seconds"]) == (str(workspace_id), 30)
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["url"], stored["agent_card"]) == (
        "online",
        "http://localhost:8001",
        CARD,
    )
    assert await events(server, workspace_id) == ["WORKSPACE_ONLINE"]

    assert told["platform_inbound_secret"].encode() not in stored["platform_inbound_secret"]

    nothing = await anonymous.post("/registry/register", json=body(workspace_id))
    assert (nothing.status_code, nothing.json()["error"]) == (401, "missing workspace auth token")
    assert "Authorization: Bearer" in nothing.json()["hint"]
    again = await anonymous.post(
        "/registry/register", json=body(workspace_id), headers=bearer(told["auth_token"])
    )
    assert again.status_code == 200
    assert "auth_token" not in again.json()
    assert again.json()["platform_inbound_secret"] == told["platform_inbound_secret"]
    assert await events(server, workspace_id) == ["WORKSPACE_ONLINE"]


async def test_only_the_workspaces_own_token_or_an_admin_registers_it(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id, other = await add_workspace(server), await add_workspace(server)
    await add_token(server, workspace_id)
    foreign = await anonymous.post(
        "/registry/register", json=body(workspace_id), headers=bearer(await add_token(server, other))
    )
    wrong = await anonymous.post("/registry/register", json=body(workspace_id), headers=bearer("nonsense"))
    for refused in (foreign, wrong):
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid workspace auth token")
    assert (await admin.post("/registry/register", json=body(workspace_id))).status_code == 200


@pytest.mark.parametrize("status", ["paused", "hibernating", "hibernated"])
async def test_a_stopped_workspace_is_not_resurrected_and_says_so(
    server: Server, anonymous: httpx.AsyncClient, status: str
) -> None:
    workspace_id = await add_workspace(server, status=status)
    headers = bearer(await add_token(server, workspace_id))
    answer = await anonymous.post("/registry/register", json=body(workspace_id), headers=headers)

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["workspace_status"]) == (status, status)
    assert (await row(server, workspace_id))["status"] == status
    assert await events(server, workspace_id) == []

    beat = {"workspace_id": str(workspace_id), "active_tasks": 1}
    beaten = await anonymous.post("/registry/heartbeat", json=beat, headers=headers)
    assert (beaten.status_code, beaten.json()["workspace_status"]) == (200, status)


async def test_a_removed_workspace_is_gone_for_its_agent(
    server: Server, anonymous: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    headers = bearer(await add_token(server, workspace_id))
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET status = 'removed' WHERE id = $1", workspace_id)
        await server.tokens.revoke_all(tx, [workspace_id])
    for path, data in {
        "/registry/register": body(workspace_id),
        "/registry/heartbeat": {"workspace_id": str(workspace_id)},
        "/registry/update-card": {"workspace_id": str(workspace_id), "agent_card": CARD},
    }.items():
        gone = await anonymous.post(path, json=data, headers=headers)
        assert (gone.status_code, gone.json()["code"]) == (410, "WORKSPACE_REMOVED")


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_a_url_that_we_would_not_call_is_refused_with_the_reason(
    server: Server, admin: httpx.AsyncClient, url: str
) -> None:
    workspace_id = await add_workspace(server, status="awaiting_agent", desired="none", runtime="langgraph")
    answer = await admin.post("/registry/register", json=body(workspace_id, url=url))
    assert answer.status_code == 400
    told = answer.json()
    assert (told["error"], told["code"]) == ("invalid request body", "URL_REJECTED")
    assert told["detail"]
    assert (await row(server, workspace_id))["status"] == "awaiting_agent"


async def test_the_url_of_our_provisioner_wins_and_the_card_is_kept(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(
        server, status="online", url="http://127.0.0.1:40001", handle={"url": "http://127.0.0.1:40001"}
    )
    answer = await admin.post("/registry/register", json=body(workspace_id, url="http://f00dcafe:8000"))
    assert answer.status_code == 200
    stored = await row(server, workspace_id)
    assert (stored["url"], stored["agent_card"]) == ("http://127.0.0.1:40001", CARD)


@pytest.mark.parametrize("values", [{"delivery_mode": "poll", "url": ""}, {"url": "remote://no-inbound"}])
async def test_poll_mode_needs_no_url(server: Server, admin: httpx.AsyncClient, values: Any) -> None:
    workspace_id = await add_workspace(server, status="awaiting_agent", desired="none", runtime="external")
    assert (await admin.post("/registry/register", json=body(workspace_id, **values))).status_code == 200
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["delivery_mode"], stored["url"]) == ("online", "poll", "")


async def test_an_unknown_id_is_inserted_for_an_admin_and_for_nobody_else(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = uuid4()
    refused = await anonymous.post("/registry/register", json=body(workspace_id))
    assert (refused.status_code, refused.json()["code"]) == (404, "WORKSPACE_NOT_FOUND")
    assert (await admin.post("/registry/register", json=body(workspace_id))).status_code == 200
    assert (await row(server, workspace_id))["name"] == str(workspace_id)


async def test_on_a_fresh_open_server_an_unknown_agent_introduces_itself(
    make_server: MakeServer, tmp_path: Any
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made below this")
    key = "11" * 32  # nor can the key of the secrets be kept there
    server = await make_server(
        admin_token="", molecule_home=str(blocked / "home"), secrets_encryption_key=key
    )
    async with connect(server) as client:
        answer = await client.post("/registry/register", json=body(uuid4()))
        assert answer.status_code == 200
        assert len(answer.json()["auth_token"]) == 43


async def test_only_one_workspace_is_the_platform(server: Server, admin: httpx.AsyncClient) -> None:
    one, two = await add_workspace(server), await add_workspace(server)
    assert (await admin.post("/registry/register", json=body(one, kind="platform"))).status_code == 200
    refused = await admin.post("/registry/register", json=body(two, kind="platform"))
    assert refused.status_code == 409


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"id": "x", "agent_card": {}, "url": "http://localhost"},
        {"id": str(uuid4()), "url": "http://localhost"},
        {"id": str(uuid4()), "url": "http://localhost", "agent_card": "text"},
        {"id": str(uuid4()), "url": 7, "agent_card": {}},
        {"id": str(uuid4()), "url": "http://localhost", "agent_card": {}, "delivery_mode": "fax"},
        {"id": str(uuid4()), "url": "http://localhost", "agent_card": {}, "kind": "boss"},
    ],
)
async def test_what_is_no_registration_is_refused(admin: httpx.AsyncClient, data: dict[str, Any]) -> None:
    answer = await admin.post("/registry/register", json=data)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid request body")


async def test_an_agent_about_to_be_replaced_does_not_bring_the_workspace_online(
    make_server: MakeServer,
) -> None:
    server = await make_server(provisioner="process")
    async with connect(server, "test-admin-token-0123456789abcdef") as admin:
        workspace_id = await add_workspace(server, status="provisioning", url="http://127.0.0.1:1")
        answer = await admin.post("/registry/register", json=body(workspace_id))
        assert answer.json()["workspace_status"] == "provisioning"
        beat = await admin.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)})
        assert beat.json()["workspace_status"] == "provisioning"


async def test_cards_are_replaced_and_announced(server: Server, anonymous: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    headers = bearer(await add_token(server, workspace_id))
    data = {"workspace_id": str(workspace_id), "agent_card": {"name": "new"}}
    assert (await anonymous.post("/registry/update-card", json=data)).status_code == 401
    answer = await anonymous.post("/registry/update-card", json=data, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "updated"})
    assert (await row(server, workspace_id))["agent_card"] == {"name": "new"}

    large = {"workspace_id": str(workspace_id), "agent_card": {"name": "x" * 300_000}}
    assert (await anonymous.post("/registry/update-card", json=large, headers=headers)).status_code == 413
    missing = await anonymous.post(
        "/registry/update-card", json={"workspace_id": str(workspace_id)}, headers=headers
    )
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid request body")
    unknown = await anonymous.post(
        "/registry/update-card", json={"workspace_id": str(uuid4()), "agent_card": {}}
    )
    assert unknown.status_code == 404


@pytest.mark.settings(molecule_strict_auth="1")
@pytest.mark.parametrize(
    ("status", "minutes", "passes"),
    [
        ("provisioning", 1, True),
        ("awaiting_agent", 9, True),
        ("provisioning", 11, False),
        ("online", 1, False),
        ("failed", 1, False),
    ],
)
async def test_without_a_token_a_workspace_is_claimed_only_while_it_waits_for_its_first_agent(
    server: Server, anonymous: httpx.AsyncClient, status: str, minutes: int, passes: bool
) -> None:
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    workspace_id = await add_workspace(
        server, status=status, status_changed_at=since, runtime="external", desired="none"
    )
    answer = await anonymous.post("/registry/register", json=body(workspace_id))
    assert answer.status_code == (200 if passes else 401)
    beat = await anonymous.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)})
    assert beat.status_code == 401  # a beat is no first word
