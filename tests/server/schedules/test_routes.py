"""Schedules as clients see them (contract 03 §2)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer

WANTED = {"name": "Pulse", "cron_expr": "0 9 * * 1-5", "timezone": "Europe/Oslo", "prompt": "How are you?"}
FIELDS = {
    "id",
    "workspace_id",
    "name",
    "cron_expr",
    "expression",
    "timezone",
    "prompt",
    "enabled",
    "last_run_at",
    "next_run_at",
    "run_count",
    "last_status",
    "last_error",
    "source",
    "created_at",
    "updated_at",
    "consecutive_empty_runs",
    "last_success_at",
    "last_duration_ms",
    "running",
}


@pytest.fixture
async def workspace_id(server: Server) -> UUID:
    return await add_workspace(server)


@pytest.fixture
def path(workspace_id: UUID) -> str:
    return f"/workspaces/{workspace_id}/schedules"


async def add(client: httpx.AsyncClient, path: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(path, json=WANTED | fields)
    assert answer.status_code == 201, answer.text
    schedule: dict[str, Any] = answer.json()["schedule"]
    return schedule


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def event_types(server: Server) -> list[str]:
    async with server.db.connection() as connection:
        rows = await connection.fetch("SELECT event_type FROM structure_events ORDER BY seq")
    return [row["event_type"] for row in rows]


async def test_a_new_schedule_knows_when_it_fires(
    server: Server, admin: httpx.AsyncClient, path: str
) -> None:
    answer = await admin.post(path, json=WANTED)
    body = answer.json()

    assert answer.status_code == 201
    assert body["status"] == "created"
    assert body["next_run_at"].endswith(":00:00Z")
    schedule = body["schedule"]
    assert set(schedule) == FIELDS
    assert (schedule["id"], schedule["next_run_at"]) == (body["id"], body["next_run_at"])
    assert (schedule["cron_expr"], schedule["expression"]) == ("0 9 * * 1-5", "0 9 * * 1-5")
    assert (schedule["last_status"], schedule["last_error"], schedule["run_count"]) == ("", "", 0)
    assert (schedule["enabled"], schedule["source"], schedule["running"]) == (True, "runtime", False)
    assert (await admin.get(path)).json() == [schedule]
    assert (await admin.get(f"{path}/{body['id']}")).json() == schedule
    assert await event_types(server) == ["SCHEDULE_CREATED", "schedule.create"]


async def test_what_is_left_out_has_a_default(admin: httpx.AsyncClient, path: str) -> None:
    answer = await admin.post(path, json={"cron_expr": "* * * * *", "prompt": "a\r\nb"})
    schedule = answer.json()["schedule"]
    assert (schedule["name"], schedule["timezone"], schedule["prompt"]) == ("", "UTC", "a\nb")
    off = await admin.post(path, json={"cron_expr": "* * * * *", "prompt": "x", "enabled": False})
    assert off.status_code == 201  # a second one without a name, too
    assert off.json()["next_run_at"] is not None


@pytest.mark.parametrize("key", ["cron_expr", "expression", "cron"])
async def test_the_expression_has_three_names(admin: httpx.AsyncClient, path: str, key: str) -> None:
    answer = await admin.post(path, json={key: " @daily ", "prompt": "x"})
    assert answer.json()["schedule"]["cron_expr"] == "0 0 * * *"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "cron_expr and prompt are required"),
        ({"prompt": "x"}, "cron_expr and prompt are required"),
        ({"cron_expr": "* * * * *"}, "cron_expr and prompt are required"),
        ({"cron_expr": "* * * * *", "prompt": "\r"}, "cron_expr and prompt are required"),
        ({"cron_expr": 5, "prompt": "x"}, "cron_expr and prompt are required"),
        ([], "cron_expr and prompt are required"),
        (
            {"cron_expr": "* * * * *", "expression": "0 * * * *", "prompt": "x"},
            "cron_expr and expression disagree",
        ),
        ({"cron_expr": "61 * * * *", "prompt": "x"}, "invalid cron expression: bad minute '61'"),
        ({"cron_expr": "* * * *", "prompt": "x"}, "invalid cron expression: five fields are needed, not 4"),
        ({"cron_expr": "@every 5m", "prompt": "x"}, "invalid cron expression: @every is not supported"),
        (
            {"cron_expr": "TZ=UTC * * * * *", "prompt": "x"},
            "invalid cron expression: set the time zone in the field timezone",
        ),
        ({"cron_expr": "0 0 30 2 *", "prompt": "x"}, "cron expression never fires"),
        ({"cron_expr": "* * * * *", "prompt": "x", "timezone": "Mars/Base"}, "invalid timezone: Mars/Base"),
        ({"cron_expr": "* * * * *", "prompt": "x", "name": "n" * 201}, "name exceeds 200 characters"),
        ({"cron_expr": "* * * * *", "prompt": "x" * 65_537}, "prompt exceeds 65536 bytes"),
    ],
)
async def test_bad_schedules_say_why(admin: httpx.AsyncClient, path: str, body: Any, text: str) -> None:
    assert refusal(await admin.post(path, json=body)) == (400, text)


async def test_broken_json_and_broken_text(admin: httpx.AsyncClient, path: str) -> None:
    broken = await admin.post(path, content=b'{"cron_expr":')
    assert refusal(broken) == (400, "cron_expr and prompt are required")
    odd = b'{"cron_expr":"* * * * *","prompt":"a\\ud800b\\u0000c"}'
    answer = await admin.post(path, content=odd)
    assert answer.status_code == 201
    assert answer.json()["schedule"]["prompt"] == "a\ufffdbc"


async def test_a_name_is_taken_once_per_workspace(
    server: Server, admin: httpx.AsyncClient, path: str
) -> None:
    first, other = await add(admin, path), await add(admin, path, name="Other")
    assert refusal(await admin.post(path, json=WANTED)) == (409, "schedule name already exists")
    renamed = await admin.patch(f"{path}/{other['id']}", json={"name": "Pulse"})
    assert refusal(renamed) == (409, "schedule name already exists")
    elsewhere = await add_workspace(server)
    assert (await admin.post(f"/workspaces/{elsewhere}/schedules", json=WANTED)).status_code == 201
    assert (await admin.patch(f"{path}/{first['id']}", json={"name": "Pulse"})).status_code == 200


async def test_a_workspace_holds_200(server: Server, admin: httpx.AsyncClient, path: str) -> None:
    workspace_id = UUID(path.split("/")[2])
    async with server.db.transaction() as tx:
        await tx.execute(
            """INSERT INTO workspace_schedules (workspace_id, cron_expr, prompt)
               SELECT $1, '* * * * *', 'x' FROM generate_series(1, 200)""",
            workspace_id,
        )
    assert refusal(await admin.post(path, json=WANTED)) == (409, "a workspace holds at most 200 schedules")


async def test_absent_and_removed_workspaces(server: Server, admin: httpx.AsyncClient) -> None:
    gone = await add_workspace(server, status="removed")
    for workspace_id in (uuid4(), gone):
        answer = await admin.post(f"/workspaces/{workspace_id}/schedules", json=WANTED)
        assert refusal(answer) == (404, "workspace not found")
    assert refusal(await admin.get("/workspaces/nonsense/schedules")) == (400, "invalid workspace ID")


async def test_a_patch_changes_what_it_names(server: Server, admin: httpx.AsyncClient, path: str) -> None:
    before = await add(admin, path)
    answer = await admin.patch(f"{path}/{before['id']}", json={"prompt": "New\r", "name": None, "extra": 1})
    body = answer.json()
    assert body["status"] == "updated"
    assert body["schedule"] == before | {"prompt": "New", "updated_at": body["schedule"]["updated_at"]}

    moved = (await admin.patch(f"{path}/{before['id']}", json={"expression": "0 10 * * *"})).json()
    assert moved["schedule"]["cron_expr"] == "0 10 * * *"
    assert moved["next_run_at"] != before["next_run_at"]
    assert (await event_types(server))[-2:] == ["SCHEDULE_UPDATED", "schedule.update"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "invalid JSON"),
        (b'{"enabled":"yes"}', "invalid JSON"),
        (b'{"prompt":""}', "prompt must not be empty"),
        (b'{"timezone":"Mars/Base"}', "invalid timezone: Mars/Base"),
        (b'{"cron_expr":"x"}', "invalid cron expression: five fields are needed, not 1"),
    ],
)
async def test_bad_patches_say_why(admin: httpx.AsyncClient, path: str, body: bytes, text: str) -> None:
    schedule = await add(admin, path)
    assert refusal(await admin.patch(f"{path}/{schedule['id']}", content=body)) == (400, text)


async def test_a_deleted_schedule_is_gone(server: Server, admin: httpx.AsyncClient, path: str) -> None:
    schedule = await add(admin, path)
    assert (await admin.delete(f"{path}/{schedule['id']}")).json() == {"status": "deleted"}
    assert refusal(await admin.delete(f"{path}/{schedule['id']}")) == (404, "schedule not found")
    assert (await event_types(server))[-2:] == ["SCHEDULE_DELETED", "schedule.delete"]


@pytest.mark.parametrize("schedule_id", ["6f1c9a52-0d6b-4b7e-9a53-1f2d3c4b5a69", "nonsense"])
async def test_unknown_schedules(admin: httpx.AsyncClient, path: str, schedule_id: str) -> None:
    one = f"{path}/{schedule_id}"
    for method, suffix in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/run"),
        ("GET", "/history"),
        ("GET", "/explain"),
    ]:
        answer = await admin.request(method, one + suffix, json={} if method == "PATCH" else None)
        assert refusal(answer) == (404, "schedule not found")


async def test_a_schedule_opens_only_under_its_own_workspace(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, path: str
) -> None:
    schedule = await add(admin, path)
    other = await add_workspace(server)
    token = bearer(await add_token(server, other))
    routes = [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/run"),
        ("GET", "/history"),
        ("GET", "/explain"),
    ]
    for method, suffix in routes:
        body = {} if method == "PATCH" else None
        through_own = f"/workspaces/{other}/schedules/{schedule['id']}{suffix}"
        answer = await anonymous.request(method, through_own, json=body, headers=token)
        assert refusal(answer) == (404, "schedule not found")
        foreign = await anonymous.request(
            method, f"{path}/{schedule['id']}{suffix}", json=body, headers=token
        )
        assert refusal(foreign) == (401, "invalid workspace auth token")
        nothing = await anonymous.request(method, f"{path}/{schedule['id']}{suffix}", json=body)
        assert refusal(nothing) == (401, "missing workspace auth token")
    assert refusal(await anonymous.get(path)) == (401, "missing workspace auth token")
    assert refusal(await anonymous.post(path, json=WANTED)) == (401, "missing workspace auth token")
    assert refusal(await anonymous.get("/admin/schedules/health")) == (401, "admin auth required")


async def test_a_run_is_put_into_the_mailbox(server: Server, admin: httpx.AsyncClient, path: str) -> None:
    schedule = await add(admin, path, enabled=False)
    answer = await admin.post(f"{path}/{schedule['id']}/run", json={})
    body = answer.json()

    assert answer.status_code == 200
    assert (body["status"], body["prompt"]) == ("fired", WANTED["prompt"])
    assert (body["workspace_id"], body["schedule_id"]) == (schedule["workspace_id"], schedule["id"])
    async with server.db.connection() as connection:
        [message] = await connection.fetch("SELECT * FROM mailbox_messages")
    assert (message["reply_kind"], message["reply_id"]) == ("schedule_run", body["run_id"])
    assert (message["source_kind"], message["caller_id"]) == ("scheduler", None)
    said = message["body"]["params"]["message"]
    assert said["messageId"] == f"cron-{schedule['id'][:8]}-{body['run_id'][:8]}"
    assert (said["role"], said["parts"][0]["text"]) == ("user", WANTED["prompt"])
    after = (await admin.get(f"{path}/{schedule['id']}")).json()
    assert (after["running"], after["last_status"]) == (True, "queued")
    assert after["next_run_at"] == schedule["next_run_at"]

    again = await admin.post(f"{path}/{schedule['id']}/run")
    assert refusal(again) == (409, "a run of this schedule is already in progress")
    assert again.json()["run_id"] == body["run_id"]
    assert (await admin.get(f"{path}/{schedule['id']}/history")).json() == []


async def test_teammates_see_health_and_no_prompt(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    boss = await add_workspace(server, "Boss")
    one, two = [await add_workspace(server, parent_id=boss) for _ in range(2)]
    stranger = await add_workspace(server, parent_id=await add_workspace(server))
    path = f"/workspaces/{one}/schedules"
    schedule = await add(admin, path)
    async with server.db.transaction() as tx:
        await tx.execute(
            "UPDATE workspace_schedules SET last_error = 'Bearer abcdefghijklmnop ' || repeat('x', 900)"
        )

    for caller in (boss, one, two):
        headers = bearer(await add_token(server, caller)) | {"x-workspace-id": str(caller)}
        answer = await anonymous.get(f"{path}/health", headers=headers)
        assert answer.status_code == 200, answer.text
        [row] = answer.json()
        assert (row["id"], row["name"]) == (schedule["id"], "Pulse")
        assert not {"prompt", "cron_expr", "expression"} & set(row)
        assert row["last_error"].startswith("*** xxx")
        assert len(row["last_error"]) == 500
    headers = bearer(await add_token(server, stranger)) | {"x-workspace-id": str(stranger)}
    assert refusal(await anonymous.get(f"{path}/health", headers=headers)) == (403, "access denied")


async def test_health_refuses_forged_callers(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, workspace_id: UUID, path: str
) -> None:
    token = await add_token(server, workspace_id)
    health = f"{path}/health"
    assert refusal(await anonymous.get(health)) == (401, "X-Workspace-ID header required")
    assert refusal(await anonymous.get(health, headers=bearer(token))) == (
        401,
        "X-Workspace-ID header required",
    )
    named = {"x-workspace-id": str(workspace_id)}
    assert refusal(await anonymous.get(health, headers=named)) == (401, "missing caller auth token")
    wrong = named | bearer("nonsense")
    assert refusal(await anonymous.get(health, headers=wrong)) == (401, "invalid caller auth token")
    forged = {"x-workspace-id": "system:scheduler"}
    assert refusal(await anonymous.get(health, headers=forged)) == (403, "invalid caller ID")
    assert (await admin.get(health)).json() == []
    assert refusal(await admin.get(f"/workspaces/{uuid4()}/schedules/health")) == (404, "workspace not found")


@pytest.mark.parametrize(
    ("cron", "threshold"), [("*/5 * * * *", 600), ("0 * * * *", 7200), ("0 3 * * *", 172_800)]
)
async def test_operators_see_every_schedule(
    server: Server, admin: httpx.AsyncClient, path: str, cron: str, threshold: int
) -> None:
    schedule = await add(admin, path, cron_expr=cron, timezone="UTC")
    [row] = (await admin.get("/admin/schedules/health")).json()
    assert (row["schedule_id"], row["schedule_name"]) == (schedule["id"], "Pulse")
    assert (row["status"], row["stale_threshold_seconds"]) == ("never_run", threshold)
    assert (row["cron_expr"], row["expression"]) == (cron, cron)
    assert row["expected_next_run"] == row["next_scheduled_at"] == schedule["next_run_at"]
    assert (row["last_run_at"], row["last_fired_at"], row["phantom_detected"]) == (None, None, False)


@pytest.mark.parametrize(
    ("last_run", "enabled", "status"),
    [("1 minute", True, "ok"), ("3 days", True, "stale"), ("3 days", False, "disabled")],
)
async def test_stale_means_that_fires_are_missing(
    server: Server, admin: httpx.AsyncClient, path: str, last_run: str, enabled: bool, status: str
) -> None:
    await add(admin, path, cron_expr="0 * * * *", enabled=enabled)
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspace_schedules SET last_run_at = now() - $1::text::interval", last_run)
    assert (await admin.get("/admin/schedules/health")).json()[0]["status"] == status


async def test_explain_answers_for_times_without_a_record(admin: httpx.AsyncClient, path: str) -> None:
    schedule = await add(admin, path, cron_expr="0 9 * * *", timezone="UTC")
    explain = f"{path}/{schedule['id']}/explain"

    async def outcome(at: str) -> tuple[bool, str]:
        body = (await admin.get(explain, params={"at": at})).json()
        return body["due"], body["outcome"]

    assert await outcome("2020-01-01T09:00:00Z") == (True, "not_due")
    assert await outcome("2020-01-01T10:00:00Z") == (False, "not_due")
    assert await outcome("2099-01-01T09:00:00+00:00") == (True, "future")
    assert (await admin.get(explain)).status_code == 200
    refused = await admin.get(explain, params={"at": "yesterday"})
    assert refusal(refused) == (400, "at must be RFC 3339 (e.g. 2026-04-17T09:00:00Z)")
