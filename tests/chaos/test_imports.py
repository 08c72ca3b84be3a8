"""A server killed in the middle of a write: all of it or nothing is there, and the next try ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import ADMIN_TOKEN
from tests.support import serve

pytestmark = [pytest.mark.processes, pytest.mark.slow]

ORG: dict[str, Any] = {
    "name": "Two trees",
    "workspaces": [
        {"name": name, "secrets": {"KEY": "v"}, "children": [{"name": f"{name} child"}]}
        for name in ("First", "Second")
    ],
}


async def names(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT name FROM workspaces WHERE status <> 'removed' ORDER BY name")
    finally:
        await connection.close()
    return [row["name"] for row in rows]


async def killed(dsn: str, home: Path, point: str, method: str, path: str, body: Any) -> None:
    """Send one request to a server that dies at `point`."""
    settings = {"molecule_home": home, "molecule_failpoints": point}
    async with (
        serve(dsn, 1, respawn=False, **settings) as served,
        served.client(ADMIN_TOKEN) as client,
    ):
        with pytest.raises(httpx.HTTPError):
            await client.request(method, path, json=body)


async def test_an_import_killed_between_two_trees_is_ended_by_the_next(dsn: str, tmp_path: Path) -> None:
    await killed(dsn, tmp_path, "orgs.tree_imported", "POST", "/org/import", {"template": ORG})
    assert await names(dsn) == ["First", "First child"]

    async with serve(dsn, 2, molecule_home=tmp_path) as served, served.client(ADMIN_TOKEN) as client:
        again = (await client.post("/org/import", json={"template": ORG})).json()
        listed = (await client.get(f"/workspaces/{again['workspaces'][0]['id']}/secrets")).json()
    assert (again["created_count"], again["skipped_count"]) == (2, 2)
    assert [secret["key"] for secret in listed] == ["KEY"]
    assert await names(dsn) == ["First", "First child", "Second", "Second child"]
    connection = await asyncpg.connect(dsn)
    imports = await connection.fetch("SELECT status FROM org_imports ORDER BY started_at")
    await connection.close()
    assert [row["status"] for row in imports] == ["interrupted", "completed"]


@pytest.mark.parametrize(
    ("point", "method", "path", "body"),
    [
        ("workspaces.created", "POST", "/workspaces", {"name": "Scout", "secrets": {"KEY": "v"}}),
        ("secrets.saved", "POST", "/settings/secrets", {"key": "KEY", "value": "v"}),
    ],
)
async def test_a_write_killed_before_its_commit_leaves_nothing(
    dsn: str, tmp_path: Path, point: str, method: str, path: str, body: Any
) -> None:
    await killed(dsn, tmp_path, point, method, path, body)
    connection = await asyncpg.connect(dsn)
    left = await connection.fetchval(
        "SELECT (SELECT count(*) FROM workspaces) + (SELECT count(*) FROM workspace_secrets)"
        " + (SELECT count(*) FROM global_secrets) + (SELECT count(*) FROM canvas_layouts)"
        " + (SELECT count(*) FROM structure_events)"
    )
    await connection.close()
    assert left == 0
    async with serve(dsn, 1, molecule_home=tmp_path) as served, served.client(ADMIN_TOKEN) as client:
        assert (await client.request(method, path, json=body)).is_success
