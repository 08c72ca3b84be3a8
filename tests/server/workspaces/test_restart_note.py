from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.workspaces.restart_note import age, note
from tests.conftest import MakeServer
from tests.support import add_token, add_workspace, bearer

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_the_note_has_the_lines_that_agents_expect() -> None:
    text = note(AT, AT - timedelta(hours=2, minutes=14, seconds=3), ["ZED", "ALPHA"])
    assert text.split("\n") == [
        "=== WORKSPACE RESTART CONTEXT ===",
        "Restart at: 2026-03-01T12:00:00Z",
        "Previous session ended: 2026-03-01T09:45:57Z (2h14m ago)",
        "Env vars now available: ALPHA, ZED",
        "=== END RESTART CONTEXT ===",
    ]
    first = note(AT.astimezone(timezone(timedelta(hours=5))), None, [])
    assert "Restart at: 2026-03-01T12:00:00Z" in first
    assert "Previous session ended: (no prior session on record)" in first
    assert "Env vars now available: (none)" in first


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8043, "2h14m"), (189, "3m9s"), (45, "45s"), (0, "0s"), (-9, "0s"), (59.6, "1m0s"), (3600, "1h0m")],
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age(timedelta(seconds=seconds)) == text


async def notes(server: Server, workspace_id: UUID) -> list[str]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT body FROM mailbox_messages WHERE workspace_id = $1", workspace_id
        )
    return [row["body"]["params"]["message"]["parts"][0]["text"] for row in rows]


async def test_a_restarted_agent_is_told_once_when_it_is_there(
    make_server: MakeServer, anonymous: httpx.AsyncClient
) -> None:
    server = await make_server(provisioner="process")
    workspace_id = await add_workspace(
        server, status="provisioning", launched_at=AT, url="http://127.0.0.1:1"
    )
    async with server.db.transaction() as tx:
        await server.secrets.store(tx, workspace_id, {"ACME_KEY": "canary-value"}, actor="test")
        await tx.execute(
            "UPDATE workspaces SET restart_context = jsonb_build_object('at', now() - interval '1 minute',"
            " 'previous', now() - interval '5 minutes') WHERE id = $1",
            workspace_id,
        )
    headers = bearer(await add_token(server, workspace_id))
    for _ in range(2):
        beat = {"workspace_id": str(workspace_id)}
        assert (await anonymous.post("/registry/heartbeat", json=beat, headers=headers)).status_code == 200
    [text] = await notes(server, workspace_id)
    assert "ACME_KEY" in text
    assert "(4m0s ago)" in text
    assert "canary-value" not in text


async def test_a_note_that_comes_too_late_is_dropped(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server, status="offline", url="http://127.0.0.1:1")
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspaces SET restart_context = jsonb_build_object('at', now() - interval '16 minutes',"
            " 'previous', null) WHERE id = $1",
            workspace_id,
        )
    await admin.post("/registry/heartbeat", json={"workspace_id": str(workspace_id)})
    assert await notes(server, workspace_id) == []
