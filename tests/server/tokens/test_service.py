import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from molecule_ai.server.tokens.bootstrap import admin_token
from molecule_ai.server.tokens.errors import TooManyTokens
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer


async def _status(client: httpx.AsyncClient, workspace_id: UUID, token: str) -> int:
    return (await client.get(f"/workspaces/{workspace_id}/tokens", headers=bearer(token))).status_code


async def test_of_a_crowd_that_mints_at_once_exactly_fifty_win(make_server: MakeServer) -> None:
    replicas = [await make_server(), await make_server()]
    workspace_id = await add_workspace(replicas[0])

    async def mint(number: int) -> bool:
        try:
            await add_token(replicas[number % 2], workspace_id, kind="user")
        except TooManyTokens:
            return False
        return True

    won = await asyncio.gather(*(mint(number) for number in range(80)))
    assert sum(won) == 50


async def test_a_revoked_token_fails_on_every_replica_at_once(make_server: MakeServer) -> None:
    one, two = await make_server(), await make_server()
    workspace_id = await add_workspace(one)
    async with connect(one, ADMIN_TOKEN) as admin, connect(one) as first, connect(two) as second:
        minted = (await admin.post(f"/workspaces/{workspace_id}/tokens")).json()
        token = minted["auth_token"]
        busy = await asyncio.gather(*(_status(c, workspace_id, token) for c in [first, second] * 20))
        assert set(busy) == {200}

        await admin.delete(f"/workspaces/{workspace_id}/tokens/{minted['id']}")
        for _ in range(10):
            refused = await asyncio.gather(*(_status(c, workspace_id, token) for c in [first, second] * 50))
            assert set(refused) == {401}


async def test_removing_a_workspace_closes_its_tokens(make_server: MakeServer) -> None:
    server = await make_server()
    gone, stays = await add_workspace(server), await add_workspace(server)
    tokens = [await add_token(server, w) for w in (gone, gone, stays)]
    async with server.db.transaction() as tx:
        assert await server.tokens.revoke_all(tx, [gone]) == 2
    async with connect(server) as client:
        assert await _status(client, gone, tokens[0]) == 401
        assert await _status(client, gone, tokens[1]) == 401
        assert await _status(client, stays, tokens[2]) == 200


async def test_the_old_agent_token_ends_with_the_first_use_of_the_new_one(make_server: MakeServer) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    old, user = await add_token(server, workspace_id), await add_token(server, workspace_id, kind="user")
    async with server.db.transaction() as tx:
        new = (await server.tokens.rotate_agent(tx, workspace_id)).auth_token
    async with connect(server) as client:
        assert await _status(client, workspace_id, old) == 200
        assert await _status(client, workspace_id, new) == 200
        assert await _status(client, workspace_id, old) == 401
        assert await _status(client, workspace_id, user) == 200
        assert await _status(client, workspace_id, new) == 200


async def test_the_old_agent_token_ends_after_ten_minutes_at_the_latest(make_server: MakeServer) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    await add_token(server, workspace_id)
    async with server.db.transaction() as tx:
        await server.tokens.rotate_agent(tx, workspace_id)
        until = await tx.fetchval("SELECT expires_at FROM workspace_auth_tokens WHERE expires_at IS NOT NULL")
    assert until - datetime.now(UTC) <= timedelta(minutes=10)


async def test_every_act_leaves_an_audit_event_without_the_secret(make_server: MakeServer) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    async with connect(server, ADMIN_TOKEN) as admin:
        minted = (await admin.post(f"/workspaces/{workspace_id}/tokens")).json()
        await admin.delete(f"/workspaces/{workspace_id}/tokens/{minted['id']}")
        key = (await admin.post("/org/tokens", json={"name": "ci"})).json()
        await admin.delete(f"/org/tokens/{key['id']}")
    async with server.db.connection() as connection:
        rows = await connection.fetch("SELECT event_type, actor, payload FROM structure_events ORDER BY seq")
    assert [row["event_type"] for row in rows] == [
        "token.mint",
        "token.revoke",
        "org_token.mint",
        "org_token.revoke",
    ]
    assert {row["actor"] for row in rows} == {"admin-token"}
    assert rows[0]["payload"]["token_id"] == minted["id"]
    assert minted["auth_token"] not in str(rows)
    assert key["auth_token"] not in str(rows)


async def test_the_bootstrap_token_is_made_once_and_opens_the_door(
    make_server: MakeServer, tmp_path: Path
) -> None:
    one, two = await make_server(admin_token=""), await make_server(admin_token="")
    file = tmp_path / "home" / "admin-token"
    token = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    workspace_id = await add_workspace(one)
    await add_token(one, workspace_id)
    for server in (one, two):
        async with connect(server, token) as client:
            assert (await client.get("/org/tokens")).status_code == 200
        async with connect(server) as client:
            assert (await client.get("/org/tokens")).status_code == 401


@pytest.mark.parametrize(
    "settings",
    [{"admin_token": "configured-token-0123"}, {"molecule_strict_auth": "1"}, {"molecule_org_id": "acme"}],
)
async def test_no_bootstrap_token_where_there_are_other_means(
    make_server: MakeServer, tmp_path: Path, settings: dict[str, str]
) -> None:
    await make_server(**{"admin_token": "", **settings})
    assert not (tmp_path / "home" / "admin-token").exists()


async def test_many_processes_agree_on_one_admin_token(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    made = await asyncio.gather(*(asyncio.to_thread(admin_token, home) for _ in range(8)))
    assert len({token for token, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1


async def test_a_restart_replaces_the_agents_token_and_nobody_elses(make_server: MakeServer) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    mine = await add_token(server, workspace_id, kind="user")
    first = await add_token(server, workspace_id)
    async with server.db.transaction() as tx:
        second = await server.tokens.rotate_agent(tx, workspace_id)
    async with connect(server) as client:
        assert await _status(client, workspace_id, second.auth_token) == 200
        assert await _status(client, workspace_id, first) == 401
        assert await _status(client, workspace_id, mine) == 200


async def test_the_use_of_a_token_is_written_once_a_minute(make_server: MakeServer) -> None:
    server = await make_server()
    workspace_id = await add_workspace(server)
    token = await add_token(server, workspace_id, kind="user")

    async def used() -> datetime | None:
        await server.identities.flush()
        async with server.db.connection() as connection:
            found: datetime | None = await connection.fetchval(
                "SELECT last_used_at FROM workspace_auth_tokens WHERE workspace_id = $1", workspace_id
            )
        return found

    async with connect(server) as client:
        assert await used() is None
        for _ in range(5):
            await _status(client, workspace_id, token)
        first = await used()
        assert first is not None
        await _status(client, workspace_id, token)
        assert await used() == first
        async with server.db.transaction() as tx:
            await tx.execute("UPDATE workspace_auth_tokens SET last_used_at = now() - interval '61 seconds'")
        await _status(client, workspace_id, token)
        later = await used()
        assert later is not None
        assert later >= first
