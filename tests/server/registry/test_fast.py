"""The bare way of a heartbeat answers like the route."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from tests.support import add_token, add_workspace, bearer


def through(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://molecule.test")


def cases(workspace_id: UUID, token: str) -> list[dict[str, Any]]:
    good = {"workspace_id": str(workspace_id), "active_tasks": 1}
    unknown = {"workspace_id": str(uuid4())}
    return [
        {"json": good, "headers": bearer(token)},
        {"json": good, "headers": {"Authorization": f"bearer {token}"}},
        {"json": good, "headers": bearer("nonsense")},
        {"json": good},
        {"json": unknown, "headers": bearer(token)},
        {"json": {}, "headers": bearer(token)},
        {"json": good | {"active_tasks": "x"}, "headers": bearer(token)},
        {"json": good | {"current_task": "a\0b"}, "headers": bearer(token)},
        {"content": b"{", "headers": bearer(token)},
        {"content": b"", "headers": bearer(token)},
        {"json": good | {"current_task": "x" * 70_000}, "headers": bearer(token)},
    ]


@pytest.mark.parametrize("case", range(11))
async def test_both_ways_answer_alike(server: Server, case: int) -> None:
    workspace_id = await add_workspace(server)
    token = await add_token(server, workspace_id)
    request = cases(workspace_id, token)[case]
    answers = []
    for app in (server.app, server.front(server.litestar)):
        async with through(app) as client:
            answers.append(await client.post("/registry/heartbeat", **request))
    bare, routed = answers
    assert bare.status_code == routed.status_code
    assert bare.headers["content-type"] == routed.headers["content-type"]
    assert bare.json().keys() == routed.json().keys()
    assert {k: v for k, v in bare.json().items() if k not in ("server_time", "request_id")} == {
        k: v for k, v in routed.json().items() if k not in ("server_time", "request_id")
    }
