"""The bare way of a heartbeat answers like the route."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.auth.identities import digest
from molecule_ai.server.registry.schemas import Beat
from tests.support import add_token, add_workspace, bearer

from .test_register import row


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


async def test_a_beat_counts_only_with_a_live_token_of_its_workspace(server: Server) -> None:
    mine, other = await add_workspace(server), await add_workspace(server)
    token, foreign = await add_token(server, mine), await add_token(server, other)
    beat = Beat(workspace_id=mine, active_tasks=3)

    assert await server.beats.put_proven(beat, digest(foreign)) is None
    assert await server.beats.put_proven(beat, digest("nonsense")) is None
    assert (await row(server, mine))["last_heartbeat_at"] is None
    outcome = await server.beats.put_proven(beat, digest(token))
    assert outcome is not None
    assert (await row(server, mine))["active_tasks"] == 3

    async with server.db.transaction() as tx:
        await server.tokens.revoke_all(tx, [mine])
    assert await server.beats.put_proven(beat, digest(token)) is None


async def test_beats_without_proof_hold_up_no_other(server: Server) -> None:
    workspace_id = await add_workspace(server)
    tokens = [await add_token(server, workspace_id, kind="user") for _ in range(2)]
    beat = Beat(workspace_id=workspace_id)
    invented = [server.beats.put_proven(beat, digest(f"invented {n}")) for n in range(50)]
    *refused, told = await asyncio.gather(*invented, server.beats.put_proven(beat, digest(tokens[0])))
    assert refused == [None] * 50
    assert told is not None
    assert told.token_id is not None

    both = await asyncio.gather(*(post_beat(server, workspace_id, token) for token in tokens))
    assert both == [200, 200]


async def test_the_first_beat_of_a_rotated_token_ends_the_one_before(server: Server) -> None:
    workspace_id = await add_workspace(server)
    before = await add_token(server, workspace_id)
    async with server.db.transaction() as tx:
        after = (await server.tokens.rotate_agent(tx, workspace_id)).auth_token
    assert await post_beat(server, workspace_id, before) == 200
    assert await post_beat(server, workspace_id, after) == 200
    assert await post_beat(server, workspace_id, before) == 401


async def post_beat(server: Server, workspace_id: UUID, token: str) -> int:
    async with through(server.app) as client:
        body = {"workspace_id": str(workspace_id)}
        answer = await client.post("/registry/heartbeat", json=body, headers=bearer(token))
    return answer.status_code
