"""What every route owes, asked of every route: a body that is none, and a thing that is not there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx

from molecule_ai.server.app import Server
from molecule_ai.server.auth.tiers import Tier
from tests.support import add_token, add_workspace, bearer

NOT_JSON = b'{"name": '
# Contract 01 §13.1: an unreadable body mints an unnamed key.
READS_ANYTHING = {("POST", "/org/tokens")}
# A filter of the log; a page for people; what an absent back end cannot tell of anybody; a report that
# changes nothing when it comes too late; a body that is asked for first.
NOT_LOOKED_UP = {
    ("POST", "/admin/workspaces/{workspace_id}/bootstrap-failed"),
    ("PATCH", "/workspaces/{workspace_id}/abilities"),
    ("GET", "/events/{workspace_id}"),
    ("GET", "/workspaces/{workspace_id}/approvals/{approval_id}/approve"),
    ("GET", "/workspaces/{workspace_id}/approvals/{approval_id}/deny"),
    ("GET", "/workspaces/{workspace_id}/console"),
}


def api(server: Server) -> Iterator[tuple[str, str, Any]]:
    """Method, path and handler of each route of the API."""
    for route in server.litestar.routes:
        for handler in getattr(route, "route_handlers", ()):
            if "tier" in handler.opt and not route.path_format.startswith("/docs"):
                for method in sorted(handler.http_methods - {"HEAD", "OPTIONS"}):
                    yield method, route.path_format, handler


def filled(path: str, workspace_id: uuid.UUID) -> str:
    """The path with this workspace and otherwise with ids of things that do not exist."""
    words = []
    for word in path.split("/"):
        if word == "{workspace_id}":
            words.append(str(workspace_id))
        elif word.startswith("{"):
            words.append("NO_SUCH_KEY" if "key" in word else str(uuid.uuid4()))
        else:
            words.append(word)
    return "/".join(words)


def is_about_a_workspace(path: str, handler: Any) -> bool:
    """An admin may ask: a route for the workspace's own token alone refuses before it looks."""
    return "{workspace_id}" in path and handler.opt["tier"] is not Tier.WORKSPACE_OWN


async def test_a_body_that_is_no_json_is_a_400_wherever_a_body_is_read(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server)
    wrong = {}
    for method, path, handler in api(server):
        takes_body = "data" in handler.parsed_fn_signature.parameters
        if not takes_body or (method, path) in READS_ANYTHING:
            continue
        url = filled(path, workspace_id)
        answer = await admin.request(method, url, content=NOT_JSON)
        # What the decoder has to say is not the caller's business.
        is_chatty = any(word in answer.text for word in ("malformed", "byte", "position", "column"))
        if answer.status_code != 400 or not isinstance(answer.json().get("error"), str) or is_chatty:
            wrong[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    assert wrong == {}


async def test_what_is_not_there_is_a_404_that_says_so(server: Server, admin: httpx.AsyncClient) -> None:
    absent = uuid.uuid4()
    wrong = {}
    for method, path, handler in api(server):
        if not is_about_a_workspace(path, handler) or (method, path) in NOT_LOOKED_UP:
            continue
        answer = await admin.request(method, filled(path, absent), headers={"x-workspace-id": str(absent)})
        allowed = {404} | (
            {403} if handler.opt["tier"] in {Tier.CALLER, Tier.DISCOVERY, Tier.PEER} else set()
        )
        if answer.status_code not in allowed:
            wrong[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    assert wrong == {}


async def test_a_malformed_workspace_id_is_a_400_everywhere(server: Server, admin: httpx.AsyncClient) -> None:
    wrong = {}
    for method, path, handler in api(server):
        if not is_about_a_workspace(path, handler):
            continue
        url = path.replace("{workspace_id}", "not-a-uuid")
        answer = await admin.request(method, filled(url, uuid.uuid4()))
        if (answer.status_code, answer.json().get("error")) != (400, "invalid workspace ID"):
            wrong[f"{method} {path}"] = (answer.status_code, answer.text[:200])
    assert wrong == {}


async def test_another_workspaces_token_opens_nothing_of_this_one(server: Server) -> None:
    mine, other = await add_workspace(server), await add_workspace(server)
    await add_token(server, mine)
    token = await add_token(server, other)
    wrong = {}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=server.app, raise_app_exceptions=False),
        base_url="http://molecule.test",
    ) as client:
        for method, path, handler in api(server):
            if handler.opt["tier"] not in {Tier.ADMIN, Tier.WORKSPACE, Tier.WORKSPACE_OWN}:
                continue
            for headers, case in (({}, "none"), (bearer("wrong"), "wrong"), (bearer(token), "other")):
                answer = await client.request(method, filled(path, mine), headers=headers)
                if answer.status_code != 401:
                    wrong[f"{method} {path} {case}"] = (answer.status_code, answer.text[:200])
    assert wrong == {}


async def test_text_that_the_database_cannot_hold_is_a_400(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    answer = await admin.get(f"/workspaces/{workspace_id}/approvals", params={"status": "pend\x00ing"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid request body")
