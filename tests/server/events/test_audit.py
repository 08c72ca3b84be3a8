"""Who changed what: rows in the event log, and lines for log shipping (contract 01 §24 row 11, 03 §15.5)."""

from __future__ import annotations

import contextlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from molecule_ai.kernel.db import after_commit
from molecule_ai.server.access_page import routes
from molecule_ai.server.app import Server
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.events.audit import AuditLog
from molecule_ai.server.settings import Settings
from tests.support import add_workspace, bearer, serve, wait_for

MUTATIONS = {"POST", "PUT", "PATCH", "DELETE"}
ORG = 'name: Audited\nworkspaces:\n  - {name: Lead, role: lead, model: "offline:demo"}\n'
# What each AdminAuth mutation is asked with, so that it changes something.
BODIES: dict[str, Any] = {
    "POST /workspaces": {"name": "New", "external": True},
    "PATCH /workspaces/:id/abilities": {"broadcast_enabled": True},
    "POST /admin/secrets": {"key": "K", "value": "v"},
    "PUT /admin/secrets": {"key": "K2", "value": "v"},
    "POST /settings/secrets": {"key": "K3", "value": "v"},
    "PUT /settings/secrets": {"key": "K4", "value": "v"},
    "POST /chains/:chainId/stop": {"reason": "enough"},
}
# Changes nothing where there are no containers, as here.
NEEDS_CONTAINERS = {"/admin/workspace-images/refresh"}


async def trail(admin: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """Rows of the trail by method and route, the newest of each."""
    rows = (await admin.get("/events", params={"limit": "500"})).json()
    found: dict[str, dict[str, Any]] = {}
    for row in reversed(rows):
        if row["request"]:
            found[f"{row['request']['method']} {row['request']['route']}"] = row
    return found


async def test_every_mutation_by_an_admin_leaves_who_how_and_what(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    minted = (await admin.post("/org/tokens")).json()
    key = bearer(minted["auth_token"])
    silent, names = [], []
    for method, path, handler in routes(server.litestar):
        if method not in MUTATIONS or handler.opt["tier"] is not Tier.ADMIN or path in NEEDS_CONTAINERS:
            continue
        name, url, body = await _prepared(server, admin, method, path, len(names))
        headers = {**key, "x-request-id": f"trace-{uuid.uuid4()}", "x-confirm-name": f"Target {len(names)}"}
        answer = await anonymous.request(method, url, headers=headers, json=body)
        assert answer.status_code < 300, (name, answer.text)
        row = (await trail(admin)).get(name)
        if row is None or row["request"]["id"] != headers["x-request-id"]:
            silent.append(name)
            continue
        names.append(name)
        assert row["actor"] == f"org-token:{minted['prefix']}"
        assert row["request"]["key_prefix"] == minted["prefix"]
        assert row["request"]["status"] == answer.status_code, name
        assert "." in row["event_type"]
        if "{" in path:
            assert row["request"]["target"] in url
    assert silent == []
    assert len(names) > 12


async def _prepared(
    server: Server, admin: httpx.AsyncClient, method: str, path: str, number: int
) -> tuple[str, str, Any]:
    """The route's pattern, its path with things that exist, and its body."""
    pattern = path.replace("{workspace_id}", ":id").replace("{token_id}", ":tokenId")
    pattern = pattern.replace("{chain_id}", ":chainId").replace("{key}", ":key")
    values = {"{chain_id}": str(uuid.uuid4()), "{key}": "DOOMED"}
    if "{workspace_id}" in path:
        status = "provisioning" if path.endswith("bootstrap-failed") else "online"
        values["{workspace_id}"] = str(await add_workspace(server, f"Target {number}", status=status))
    if "{token_id}" in path:
        values["{token_id}"] = (await admin.post("/org/tokens")).json()["id"]
    if "{key}" in path:
        await admin.post("/settings/secrets", json={"key": "DOOMED", "value": "v"})
    url = path
    for place, value in values.items():
        url = url.replace(place, value)
    name = f"{method} {pattern}"
    body = {"yaml": ORG} if path == "/org/import" else BODIES.get(name)
    return name, url, body


async def test_an_agents_own_change_is_told_of_the_agent(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    own = (await admin.post(f"/workspaces/{workspace_id}/tokens")).json()
    await anonymous.post(f"/workspaces/{workspace_id}/tokens", headers=bearer(own["auth_token"]))
    row = (await trail(admin))["POST /workspaces/:id/tokens"]
    assert (row["event_type"], row["actor"]) == ("token.mint", f"workspace:{workspace_id}")
    assert row["request"]["key_prefix"] == own["prefix"]


async def test_a_line_is_written_when_its_change_is_committed(server: Server, tmp_path: Path) -> None:
    output, file = io.StringIO(), tmp_path / "audit.jsonl"
    server.events._audit_log = log = AuditLog(file, output)
    log.start()
    with contextlib.suppress(asyncpg.RaiseError):
        async with server.db.transaction() as tx:
            await server.events.append(tx, "secret.set", None, {"key": "UNDONE"}, actor="admin-token")
            await tx.execute("DO $$ BEGIN RAISE 'undone'; END $$")
    async with server.db.transaction() as tx:
        await server.events.append(tx, "secret.set", None, {"key": "DONE"}, actor="session:user_1")
        assert output.getvalue() == ""
    log.stop()
    prefix, _, text = output.getvalue().partition(" ")
    told = json.loads(text)
    assert prefix == "audit:"
    assert json.loads(file.read_text()) == told
    assert (told["event_type"], told["fields"]) == ("secret.set", {"key": "DONE"})
    assert (told["user_id"], told["actor_kind"]) == ("user_1", "user")
    assert {"ts", "workspace_id", "correlation_id"} <= set(told)


@pytest.mark.parametrize(
    ("actor", "kind"),
    [("admin-token", "admin"), ("org-token:abc", "admin"), ("workspace:x", "agent"), ("bootstrap", "admin")],
)
async def test_the_line_says_what_kind_of_actor_it_was(actor: str, kind: str) -> None:
    from datetime import UTC, datetime

    from molecule_ai.server.events import audit

    told = json.loads(audit.line(datetime.now(UTC), "token.mint", None, {}, actor, None))
    assert (told["actor_kind"], told["user_id"]) == (kind, "")


async def test_outside_of_a_transaction_of_ours_a_callback_runs_at_once(server: Server) -> None:
    called = []
    async with server.db.connection() as connection:
        after_commit(connection, lambda: called.append(True))
    assert called == [True]


async def test_a_place_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    output = io.StringIO()
    log = AuditLog(tmp_path / "absent" / "audit.jsonl", output)
    log.start()
    log.put(b"{}")
    log.stop()
    assert output.getvalue() == "audit: {}\n"


def test_where_the_file_is_by_default() -> None:
    assert Settings().audit_file is None
    assert Settings(molecule_env="production").audit_file == Path("/var/log/molecule-audit.jsonl")
    assert Settings(molecule_env="production", audit_log="off").audit_file is None
    assert Settings(audit_log="here.jsonl").audit_file == Path("here.jsonl")


async def test_a_server_writes_the_lines_to_its_standard_output(dsn: str) -> None:
    async with serve(dsn, workers=1) as served, served.client("test-admin-token-0123456789abcdef") as admin:
        await admin.post("/org/tokens", headers={"x-request-id": "trace-of-mint"})

        def lines() -> list[Any]:
            written = [line for line in served.log().splitlines() if line.startswith("audit: ")]
            return [json.loads(line.removeprefix("audit: ")) for line in written]

        (told,) = await wait_for(lines)
    assert (told["event_type"], told["correlation_id"]) == ("org_token.mint", "trace-of-mint")
    assert "auth_token" not in json.dumps(told)
