"""Every registered route: what it declares, and who gets past its door."""

from __future__ import annotations

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.access_page import ACCESS, CALLERS, render, routes
from molecule_ai.server.app import Server
from molecule_ai.server.auth.tiers import Tier
from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import add_token, add_workspace, bearer

ROOT = Path(__file__).parents[2]
# It never ends for who may follow it; tests/server/events/test_streams.py asks as them.
ENDLESS = "/workspaces/{workspace_id}/events/stream"


async def test_every_route_declares_what_a_reader_of_the_api_needs(server: Server) -> None:
    missing = {}
    for method, path, handler in routes(server.litestar):
        tier = handler.opt.get("tier")
        lacks = [
            name
            for name, has in {
                "tier": isinstance(tier, Tier) and tier in ACCESS,
                "summary": bool(handler.summary) and handler.summary[0].isupper(),
                "operation id": bool(handler.operation_id),
                "tags": bool(handler.tags),
                "errors": all(issubclass(error, ApiError) for error in handler.opt.get("refusals", ())),
            }.items()
            if not has
        ]
        if lacks:
            missing[f"{method} {path}"] = lacks
    assert missing == {}


async def test_operation_ids_are_unique_and_every_error_is_typed(server: Server) -> None:
    schema = server.litestar.openapi_schema.to_schema()
    operations = [
        (f"{method} {path}", operation)
        for path, methods in schema["paths"].items()
        if not path.startswith("/docs")
        for method, operation in methods.items()
        if isinstance(operation, dict)
    ]
    ids = Counter(operation["operationId"] for _, operation in operations)
    assert [name for name, count in ids.items() if count > 1] == []
    untyped = [
        f"{name} {status}"
        for name, operation in operations
        for status, response in operation["responses"].items()
        if int(status) >= 400
        and response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref")
        != "#/components/schemas/ErrorBody"
    ]
    assert untyped == []


async def test_the_access_page_tells_of_every_route(server: Server) -> None:
    assert (ROOT / "docs" / "reference" / "access.md").read_text() == render(server.litestar), (
        "run: make openapi"
    )


class Door:
    """One workspace with its token, a stranger, and the keys of the organization."""

    def __init__(self, server: Server, client: httpx.AsyncClient, org_key: str) -> None:
        self._server = server
        self._client = client
        self._org_key = org_key

    async def knock(self, method: str, path: str, caller: str) -> int:
        """Ask a route of a workspace made for this question; the status it answers with."""
        own = await add_workspace(self._server)
        token = await add_token(self._server, own)
        headers = {
            "nothing": {},
            "wrong bearer": bearer("nonsense"),
            "other workspace": bearer(self._stranger),
            "own workspace": bearer(token),
            "org key": bearer(self._org_key),
            "admin token": bearer(ADMIN_TOKEN),
        }[caller] | {"x-workspace-id": str(own)}
        body = {"id": str(own), "workspace_id": str(own)} if path.startswith("/registry/") else {}
        content: dict[str, Any] = {"json": body} if method in {"POST", "PUT", "PATCH"} else {}
        answer = await self._client.request(method, _filled(path, own), headers=headers, **content)
        return answer.status_code

    async def prepare(self) -> None:
        """Give the stranger a token of its own."""
        self._stranger = await add_token(self._server, await add_workspace(self._server))


def _filled(path: str, workspace_id: uuid.UUID) -> str:
    words = [
        str(workspace_id) if word == "{workspace_id}" else str(uuid.uuid4()) if word.startswith("{") else word
        for word in path.split("/")
    ]
    return "/".join(words)


@pytest.mark.parametrize("strict", ["0", "1"])
async def test_every_route_lets_in_whom_its_tier_lets_in(make_server: MakeServer, strict: str) -> None:
    server = await make_server(molecule_strict_auth=strict)
    transport = httpx.ASGITransport(app=server.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://molecule.test") as client:
        minted = await client.post("/org/tokens", headers=bearer(ADMIN_TOKEN))
        door = Door(server, client, minted.json()["auth_token"])
        await door.prepare()
        wrong = {}
        for method, path, handler in routes(server.litestar):
            for caller, passes in zip(CALLERS, ACCESS[handler.opt["tier"]], strict=True):
                if path == ENDLESS and passes:
                    continue
                status = await door.knock(method, path, caller)
                if (status == 401) is passes or (status >= 500 and status not in (501, 503)):
                    wrong[f"{method} {path} by {caller}"] = status
    assert wrong == {}
