"""An agent that prints what it was trusted with: nobody else gets to read it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.secrets.redaction import MASK, Mask
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer, wait_for

OWN = 'canary-of-one-"workspace"\\and\nits lines'
ORG = "canary-of-the-whole-org"
CHANGED = "canary-after-the-change"


@pytest.fixture
async def speaker(server: Server, admin: httpx.AsyncClient) -> UUID:
    workspace_id = await add_workspace(server, "speaker", runtime="external", desired="none")
    saved = await admin.post(f"/workspaces/{workspace_id}/secrets", json={"key": "OWN_KEY", "value": OWN})
    shared = await admin.put("/settings/secrets", json={"key": "ORG_KEY", "value": ORG})
    assert saved.status_code < 300
    assert shared.status_code < 300
    return workspace_id


async def test_an_agent_that_prints_its_secrets_is_not_heard_doing_so(
    server: Server, anonymous: httpx.AsyncClient, speaker: UUID
) -> None:
    me = bearer(await add_token(server, speaker, kind="external"))
    said = f"I hold {OWN} and {ORG}."
    for path, body in (
        ("/registry/register", {"id": str(speaker), "delivery_mode": "poll", "agent_card": {"name": said}}),
        ("/registry/update-card", {"workspace_id": str(speaker), "agent_card": {"skills": [{"id": said}]}}),
        (
            "/registry/heartbeat",
            {
                "workspace_id": str(speaker),
                "error_rate": 0.9,
                "sample_error": said,
                "current_task": said,
                "uptime_seconds": 5,
                "runtime_metadata": {},
            },
        ),
        (
            f"/workspaces/{speaker}/activity",
            {
                "activity_type": "agent_log",
                "summary": said,
                "request_body": {"a": [{"b": said}]},
                "response_body": said,
                "error_detail": said,
                "tool_trace": [{"tool": "print", "input": {"text": said}}],
                "metadata": {"x": said},
            },
        ),
        (f"/workspaces/{speaker}/notify", {"message": said}),
        (f"/workspaces/{speaker}/notify", {"type": "progress", "task_id": said}),
    ):
        answer = await anonymous.post(path, json=body, headers=me)
        assert answer.status_code < 300, (path, answer.text)
    async with connect(server, ADMIN_TOKEN) as admin:
        failed = {"error": ORG, "log_tail": ORG}
        starting = await add_workspace(server, status="provisioning")
        await admin.post(f"/admin/workspaces/{starting}/bootstrap-failed", json=failed)
    for table in ("workspaces", "activity_logs", "structure_events", "broadcast_frames"):
        for row in await _rows(server, table):
            assert ORG not in row, (table, row)
            assert "canary-of-one" not in row, (table, row)
    everything = "".join([*await _rows(server, "activity_logs"), *await _rows(server, "workspaces")])
    assert everything.count(MASK) >= 8


async def test_a_changed_secret_is_known_and_the_old_one_stays_known(
    server: Server, admin: httpx.AsyncClient, speaker: UUID
) -> None:
    path = f"/workspaces/{speaker}/activity"
    await admin.post(path, json={"activity_type": "agent_log", "summary": f"before {ORG}"})
    await admin.put("/settings/secrets", json={"key": "ORG_KEY", "value": CHANGED})
    await admin.post(path, json={"activity_type": "agent_log", "summary": f"{ORG} and {CHANGED}"})
    rows = (await admin.get(path)).json()
    assert [row["summary"] for row in rows] == [f"{MASK} and {MASK}", f"before {MASK}"]


async def test_a_secret_that_another_replica_keeps_is_known_here(make_server: MakeServer) -> None:
    here, there = await make_server(engines=True), await make_server()
    workspace_id = await add_workspace(here)
    async with connect(here, ADMIN_TOKEN) as one, connect(there, ADMIN_TOKEN) as other:
        path = f"/workspaces/{workspace_id}/activity"
        await one.post(path, json={"activity_type": "agent_log", "summary": "nothing to hide"})
        await other.post(f"/workspaces/{workspace_id}/secrets", json={"key": "A_KEY", "value": OWN})

        async def is_masked() -> bool:
            await one.post(path, json={"activity_type": "agent_log", "summary": OWN})
            newest: dict[str, Any] = (await one.get(path, params={"limit": 1})).json()[0]
            return newest["summary"] == MASK

        await wait_for(is_masked, 30)


async def test_what_names_a_model_is_no_secret(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    await admin.post(f"/workspaces/{workspace_id}/secrets", json={"key": "MODEL", "value": "openai:gpt-5"})
    path = f"/workspaces/{workspace_id}/activity"
    await admin.post(path, json={"activity_type": "agent_log", "summary": "I run on openai:gpt-5"})
    assert (await admin.get(path)).json()[0]["summary"] == "I run on openai:gpt-5"


def test_the_longest_secret_is_taken_first_and_short_ones_are_words() -> None:
    mask = Mask(["secret-value", "secret-value-and-more", "word"])
    assert mask.value({"said": ["secret-value-and-more, secret-value, word"]}) == {
        "said": [f"{MASK}, {MASK}, word"]
    }


async def _rows(server: Server, table: str) -> list[str]:
    async with server.db.connection() as connection:
        known = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        found = await connection.fetch(f"SELECT t::text AS text FROM {table} t") if known else []
    return [row["text"] for row in found]
