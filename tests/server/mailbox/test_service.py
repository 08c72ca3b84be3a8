import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from molecule_ai.kernel.db import Connection
from molecule_ai.server import a2a
from molecule_ai.server.app import Server
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.mailbox.chain import Chain
from molecule_ai.server.mailbox.errors import MailboxFull
from molecule_ai.server.mailbox.schemas import Post, Put, Settled, State
from molecule_ai.server.traffic.errors import ChainLimit
from tests.support import add_workspace


def post(target_id: UUID, key: str = "k", **values: Any) -> Post:
    return Post(target_id=target_id, body=a2a.message("hi", message_id=key), idempotency_key=key, **values)


async def put(server: Server, message: Post, **options: Any) -> Put:
    async with server.db.transaction() as tx:
        return await server.mailbox.put(tx, message, **options)


async def row(server: Server, message_id: UUID) -> Any:
    async with server.db.connection() as connection:
        return await connection.fetchrow("SELECT * FROM mailbox_messages WHERE id = $1", message_id)


async def test_a_message_is_stored_with_its_chain(server: Server) -> None:
    target = await add_workspace(server)
    chain = Chain(chain_id=uuid4(), parent_id="p", depth=1, hops=2, path=(uuid4(), uuid4()))
    stored = await row(server, (await put(server, post(target, chain=chain))).id)
    assert (stored["status"], stored["chain_id"], stored["path"]) == (
        "queued",
        chain.chain_id,
        list(chain.path),
    )
    said = stored["body"]["params"]["message"]
    assert (said["messageId"], said["metadata"]["molecule"]) == ("k", chain.metadata())


async def test_an_equal_active_message_is_not_stored_twice(server: Server) -> None:
    target = await add_workspace(server)
    one = await put(server, post(target))
    other = await put(server, post(target))
    assert (one.duplicate, other.duplicate, other.id) == (False, True, one.id)


async def test_of_two_equal_messages_at_once_one_is_stored(server: Server) -> None:
    target = await add_workspace(server)
    async with server.db.transaction() as tx:
        one = await server.mailbox.put(tx, post(target))
        racing = asyncio.create_task(put(server, post(target)))
        await asyncio.sleep(0.05)
    assert await racing == Put(one.id, duplicate=True)


async def test_a_key_is_free_again_once_its_message_ended(server: Server) -> None:
    target = await add_workspace(server)
    one = await put(server, post(target, reply_kind="x", reply_id="1"))
    async with server.db.transaction() as tx:
        assert await server.mailbox.cancel(tx, reply_kind="x", reply_id="1", reason="changed my mind") == 1
    assert (await row(server, one.id))["last_error"] == "changed my mind"
    assert not (await put(server, post(target))).duplicate


async def test_a_put_that_is_rolled_back_never_was(server: Server) -> None:
    target = await add_workspace(server)
    async with server.db.connection() as connection:
        tx = connection.transaction()
        await tx.start()
        await server.mailbox.put(connection, post(target))
        await tx.rollback()
    assert not (await put(server, post(target))).duplicate


async def test_an_unknown_target_is_refused(server: Server) -> None:
    with pytest.raises(WorkspaceNotFound):
        await put(server, post(uuid4()))


async def test_a_long_key_is_stored_as_what_stands_for_it(server: Server) -> None:
    target = await add_workspace(server)
    one = await put(server, post(target, "k" * 10_000))
    assert (await put(server, post(target, "k" * 10_000))).id == one.id
    assert (await row(server, one.id))["body"]["params"]["message"]["messageId"] == "k" * 10_000


async def test_one_caller_cannot_fill_the_mailbox_of_another(server: Server) -> None:
    target, caller = await add_workspace(server), await add_workspace(server)
    for n in range(50):
        await put(server, post(target, f"k{n}", caller_id=caller), is_bounded=True)
    with pytest.raises(MailboxFull):
        await put(server, post(target, "one-more", caller_id=caller), is_bounded=True)
    await put(server, post(target, "another", caller_id=uuid4()), is_bounded=True)


async def test_stopping_a_chain_drops_what_waits_and_refuses_the_rest(server: Server, admin: Any) -> None:
    target = await add_workspace(server)
    told: list[Settled] = []

    async def hear(tx: Connection, settled: Settled) -> None:
        told.append(settled)

    server.mailbox.replies["test"] = hear
    chain = Chain(chain_id=uuid4())
    one = await put(server, post(target, chain=chain, reply_kind="test", reply_id="7"))
    answer = await admin.post(f"/chains/{chain.chain_id}/stop", json={"reason": "enough"})
    assert answer.status_code == 200
    assert (answer.json()["cancelled"], answer.json()["status"]) == (1, "stopped")
    assert [(t.message_id, t.status, t.reply_id) for t in told] == [(one.id, State.DROPPED, "7")]
    with pytest.raises(ChainLimit) as refused:
        await put(server, post(target, "later", chain=chain))
    assert refused.value.body()["reason"] == "stopped"
    again = await admin.post(f"/chains/{chain.chain_id}/stop")
    assert (again.status_code, again.json()["stopped_at"]) == (200, answer.json()["stopped_at"])
    async with server.db.connection() as connection:
        events = await connection.fetchval(
            "SELECT count(*) FROM structure_events WHERE event_type = 'CHAIN_STOPPED'"
        )
    assert events == 1


async def test_times_are_kept(server: Server) -> None:
    target = await add_workspace(server)
    at = datetime(2031, 1, 1, tzinfo=UTC)
    stored = await row(server, (await put(server, post(target, not_before=at, expires_at=at))).id)
    assert (stored["not_before"], stored["expires_at"]) == (at, at)


async def test_removing_a_workspace_fails_what_waits_for_it(server: Server, admin: Any) -> None:
    told: list[Settled] = []

    async def hear(tx: Connection, settled: Settled) -> None:
        told.append(settled)

    server.mailbox.replies["test"] = hear
    target = await add_workspace(server, "gone", status="offline")
    await put(server, post(target, reply_kind="test"))
    answer = await admin.delete(f"/workspaces/{target}?confirm=true", headers={"x-confirm-name": "gone"})
    assert answer.status_code == 200, answer.text
    assert [(t.status, t.error) for t in told] == [(State.FAILED, "workspace removed by admin-token")]
