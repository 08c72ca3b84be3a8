"""What has not changed is not sent again (RFC 9110 §13.1.2)."""

from __future__ import annotations

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_workspace

LISTS = ("/org/tokens", "/events", "/activity", "/approvals/pending", "/agents", "/settings/secrets")


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_that_did_not_change_is_a_304(admin: httpx.AsyncClient, path: str) -> None:
    first = await admin.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = await admin.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["x-request-id"]
        assert "content-type" not in again.headers
    changed = await admin.get(path, headers={"if-none-match": '"other"'})
    assert (changed.status_code, changed.content) == (200, first.content)


async def test_a_list_that_changed_is_sent(server: Server, admin: httpx.AsyncClient) -> None:
    for path, change in (("/workspaces", add_workspace(server)), ("/org/tokens", admin.post("/org/tokens"))):
        tag = (await admin.get(path)).headers["etag"]
        await change
        again = await admin.get(path, headers={"if-none-match": tag})
        assert again.status_code == 200
        assert again.headers["etag"] != tag


async def test_head_tells_the_tag_and_failures_have_none(
    anonymous: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    assert (await admin.head("/org/tokens")).headers["etag"] == (await admin.get("/org/tokens")).headers[
        "etag"
    ]
    for answer in (
        await anonymous.get("/org/tokens", headers={"if-none-match": "*"}),
        await admin.post("/org/tokens"),
        await admin.get("/nowhere/x"),
        await admin.get("/health"),
    ):
        assert "etag" not in answer.headers
        assert answer.status_code != 304
