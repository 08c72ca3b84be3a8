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
from tests.upstream import upstream

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
    """Workspaces with their tokens, a stranger, and the credentials of the organization."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self._server = server
        self._client = client
        self._headers: dict[str, dict[str, str]] = {}

    async def prepare(self) -> None:
        """What every caller presents that does not depend on the workspace asked for."""
        stranger = await add_workspace(self._server)
        old = await self._mint_key()
        async with self._server.db.transaction() as tx:
            await tx.execute("UPDATE org_api_tokens SET expires_at = now() WHERE id = $1", old["id"])
        bound = await self._mint_key(workspace_ids=[str(stranger)])
        self._headers = {
            "nothing": {},
            "wrong bearer": bearer("nonsense"),
            "expired key": bearer(old["auth_token"]),
            "other workspace": bearer(await add_token(self._server, stranger)),
            "key bound elsewhere": bearer(bound["auth_token"]),
            "session": {"cookie": "mcp_session=owner-cookie", "origin": "http://molecule.test"},
            "org key": bearer((await self._mint_key())["auth_token"]),
            "admin token": bearer(ADMIN_TOKEN),
        }

    async def open_workspace(self) -> uuid.UUID:
        """A workspace to ask for, with a token of each kind of its own."""
        own = await add_workspace(self._server)
        revoked = await add_token(self._server, own)
        async with self._server.db.transaction() as tx:
            await self._server.tokens.revoke_all(tx, [own])
            scoped = await self._server.tokens.mint(
                tx, own, kind="user", created_by="test", scopes=["mcp:read"]
            )
        self._headers["own workspace"] = bearer(await add_token(self._server, own))
        self._headers["revoked token"] = bearer(revoked)
        self._headers["token with scopes"] = bearer(scoped.auth_token)
        return own

    async def knock(self, method: str, path: str, caller: str, own: uuid.UUID) -> int:
        """Ask a route about this workspace; the status it answers with."""
        headers = self._headers[caller] | {"x-workspace-id": str(own)}
        body = {"id": str(own), "workspace_id": str(own)} if path.startswith("/registry/") else {}
        content: dict[str, Any] = {"json": body} if method in {"POST", "PUT", "PATCH"} else {}
        answer = await self._client.request(method, _filled(path, own), headers=headers, **content)
        return answer.status_code

    async def _mint_key(self, **wish: Any) -> dict[str, Any]:
        minted = await self._client.post("/org/tokens", headers=bearer(ADMIN_TOKEN), json=wish)
        key: dict[str, Any] = minted.json()
        return key


def _filled(path: str, workspace_id: uuid.UUID) -> str:
    words = [
        str(workspace_id) if word == "{workspace_id}" else str(uuid.uuid4()) if word.startswith("{") else word
        for word in path.split("/")
    ]
    return "/".join(words)


@pytest.mark.parametrize("strict", ["0", "1"])
async def test_every_route_lets_in_whom_its_tier_lets_in(
    make_server: MakeServer, tmp_path: Path, strict: str
) -> None:
    """Each refused caller asks about one workspace of the route, each other one about a fresh one."""
    async with upstream(tmp_path) as plane:
        server = await make_server(
            molecule_strict_auth=strict, cp_upstream_url=plane.url, molecule_org_slug="acme"
        )
        transport = httpx.ASGITransport(app=server.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://molecule.test") as client:
            door = Door(server, client)
            await door.prepare()
            wrong = {}
            for method, path, handler in routes(server.litestar):
                own = await door.open_workspace()
                for caller, refusal in zip(CALLERS, ACCESS[handler.opt["tier"]], strict=True):
                    if path == ENDLESS and not refusal:
                        continue
                    status = await door.knock(method, path, caller, own)
                    is_let_in = status != 401 and not (status >= 500 and status not in (501, 503))
                    if status != refusal if refusal else not is_let_in:
                        wrong[f"{method} {path} by {caller}"] = (status, refusal)
                    if not refusal and method not in ("GET", "HEAD"):
                        own = await door.open_workspace()
    assert wrong == {}
