"""Keys of the organization that are narrowed: by time, by role, to workspaces (contract 01 §24 row 34)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer


async def key(admin: httpx.AsyncClient, **wish: Any) -> dict[str, str]:
    minted = await admin.post("/org/tokens", json=wish)
    assert minted.status_code == 200, minted.text
    return bearer(minted.json()["auth_token"])


async def test_a_key_ends_with_its_days(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    minted = (await admin.post("/org/tokens", json={"expires_in_days": 7})).json()
    headers = bearer(minted["auth_token"])
    assert minted["expires_at"]
    assert (await anonymous.get("/workspaces", headers=headers)).status_code == 200
    # It mints no key that outlives it.
    child = (await anonymous.post("/org/tokens", headers=headers)).json()
    assert child["expires_at"] == minted["expires_at"]
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE org_api_tokens SET expires_at = now() WHERE id = $1", minted["id"])
    refused = await anonymous.get("/workspaces", headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid admin auth token")
    listed = (await admin.get("/org/tokens")).json()["tokens"]
    assert [one["id"] for one in listed] == [child["id"]]
    assert (await admin.delete(f"/org/tokens/{minted['id']}")).status_code == 404


async def test_a_reader_changes_nothing(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    reader = await key(admin, role="reader")
    assert (await anonymous.get("/workspaces", headers=reader)).status_code == 200
    assert (await anonymous.get(f"/workspaces/{workspace_id}/activity", headers=reader)).status_code == 200
    for method, path in (
        ("PATCH", f"/workspaces/{workspace_id}"),
        ("POST", "/workspaces"),
        ("POST", f"/workspaces/{workspace_id}/restart"),
        ("GET", "/settings/secrets"),
        ("GET", "/org/tokens"),
    ):
        refused = await anonymous.request(method, path, headers=reader, json={"name": "x"})
        assert (refused.status_code, refused.json()["error"]) == (403, "not permitted for this role")


async def test_an_editor_works_without_the_keys_of_the_house(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    editor = await key(admin, role="editor")
    renamed = await anonymous.patch(f"/workspaces/{workspace_id}", headers=editor, json={"name": "New"})
    assert renamed.status_code == 200
    for path in ("/admin/liveness", "/admin/secrets", "/settings/secrets", "/org/tokens"):
        assert (await anonymous.get(path, headers=editor)).status_code == 403
    assert (await anonymous.post("/org/tokens", headers=editor)).status_code == 403


async def test_a_bound_key_opens_what_is_about_its_workspaces_alone(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    mine, other = await add_workspace(server), await add_workspace(server)
    for workspace_id in (mine, other):
        await add_token(server, workspace_id)
    bound = await key(admin, workspace_ids=[str(mine)])
    assert (await anonymous.get(f"/workspaces/{mine}/activity", headers=bound)).status_code == 200
    beat = await anonymous.post("/registry/heartbeat", json={"workspace_id": str(mine)}, headers=bound)
    assert beat.status_code == 200
    for method, path, body in (
        ("GET", f"/workspaces/{other}/activity", None),
        ("GET", f"/registry/{other}/peers", None),
        ("GET", "/workspaces", None),
        ("GET", "/org/tokens", None),
        ("POST", "/registry/heartbeat", {"workspace_id": str(other)}),
        ("POST", "/workspaces", {"name": "x"}),
    ):
        refused = await anonymous.request(method, path, headers=bound, json=body)
        assert (refused.status_code, refused.json()["error"]) == (
            403,
            "this key is bound to other workspaces",
        ), path
    as_other = {**bound, "x-workspace-id": str(other)}
    assert (await anonymous.post(f"/workspaces/{mine}/a2a", headers=as_other, json={})).status_code == 403
    # Of a workspace that it is not bound to it sees what everybody sees.
    shown = (await anonymous.get(f"/workspaces/{other}", headers=bound)).json()
    assert "current_task" not in shown
    assert "current_task" in (await anonymous.get(f"/workspaces/{mine}", headers=bound)).json()


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"expires_in_days": 0}, "expires_in_days must be between 1 and 3650"),
        ({"expires_in_days": 3651}, "expires_in_days must be between 1 and 3650"),
        ({"role": "owner"}, "role must be admin, editor or reader"),
        ({"workspace_ids": []}, "workspace_ids must name 1 to 100 workspaces of this organization"),
        (
            {"workspace_ids": [str(uuid4())]},
            "workspace_ids must name 1 to 100 workspaces of this organization",
        ),
        ({"workspace_ids": ["nonsense"]}, "invalid request body"),
    ],
)
async def test_a_wish_that_makes_no_sense_mints_nothing(
    admin: httpx.AsyncClient, wish: dict[str, Any], error: str
) -> None:
    refused = await admin.post("/org/tokens", json=wish)
    assert (refused.status_code, refused.json()["error"]) == (400, error)
    assert (await admin.get("/org/tokens")).json()["count"] == 0


async def test_a_token_with_scopes_opens_none_of_the_workspaces_routes(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    minted = await admin.post(f"/workspaces/{workspace_id}/tokens", json={"scopes": ["mcp:read"]})
    narrow = bearer(minted.json()["auth_token"])
    for path in (f"/workspaces/{workspace_id}/activity", f"/workspaces/{workspace_id}/secrets/values"):
        refused = await anonymous.get(path, headers=narrow)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid workspace auth token")
    beat = await anonymous.post(
        "/registry/heartbeat", json={"workspace_id": str(workspace_id)}, headers=narrow
    )
    assert beat.status_code == 401
