import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from molecule_ai.server.app import Server
from molecule_ai.server.workspaces.lifecycle import LOOK_AGAIN_SECONDS
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_token, add_workspace, bearer

AT_ONCE = {"prefer": "respond-async"}
VERBS = ("restart", "pause", "resume", "hibernate", "wake")


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    """Agents would be started here, but no engine runs."""
    return await make_server(provisioner="process")


async def row(server: Server, workspace_id: UUID) -> dict[str, Any]:
    async with server.db.connection() as connection:
        found = await connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
    assert found is not None
    return dict(found)


async def statuses(server: Server, ids: dict[str, UUID]) -> dict[str, str]:
    return {name: (await row(server, workspace_id))["status"] for name, workspace_id in ids.items()}


async def events(server: Server, workspace_id: UUID) -> list[tuple[str, Any]]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type, payload FROM structure_events WHERE workspace_id = $1"
            " AND event_type LIKE 'WORK%' ORDER BY seq",
            workspace_id,
        )
    return [(r["event_type"], r["payload"]) for r in rows]


async def family(server: Server) -> dict[str, UUID]:
    head = await add_workspace(server, "head")
    child = await add_workspace(server, "child", parent_id=head)
    alone = await add_workspace(server, "alone", parent_id=head, status="paused")
    leaf = await add_workspace(server, "leaf", parent_id=child, status="hibernated")
    outside = await add_workspace(server, "outside", parent_id=head, runtime="external", desired="none")
    return {"head": head, "child": child, "alone": alone, "leaf": leaf, "outside": outside}


@pytest.mark.parametrize("verb", VERBS)
async def test_verbs_need_the_workspaces_own_credential(
    server: Server, anonymous: httpx.AsyncClient, admin: httpx.AsyncClient, verb: str
) -> None:
    workspace_id, other = await add_workspace(server), await add_workspace(server)
    foreign = await add_token(server, other)
    path = f"/workspaces/{workspace_id}/{verb}"
    nothing = await anonymous.post(path)
    assert (nothing.status_code, nothing.json()["error"]) == (401, "missing workspace auth token")
    for wrong in (foreign, "nonsense"):
        refused = await anonymous.post(path, headers=bearer(wrong))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid workspace auth token")
    bad = await admin.post(f"/workspaces/nonsense/{verb}")
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid workspace ID")
    assert (await admin.post(f"/workspaces/{uuid4()}/{verb}")).status_code == 404
    token = await add_token(server, workspace_id)
    own = await anonymous.post(path, headers=bearer(token) | AT_ONCE)
    assert own.status_code not in (400, 401, 500)


@pytest.mark.parametrize("before", ["online", "degraded", "offline", "failed", "hibernated", "provisioning"])
async def test_a_restart_raises_the_generation_and_says_what_it_keeps(
    server: Server, admin: httpx.AsyncClient, before: str
) -> None:
    workspace_id = await add_workspace(server, "scout", status=before, url="http://127.0.0.1:1")
    answer = await admin.post(f"/workspaces/{workspace_id}/restart")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "provisioning",
        "config_dir": "existing-volume",
        "reset_session": False,
    }
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["desired"], stored["generation"]) == ("provisioning", "run", 2)
    assert stored["restart_context"] is not None
    told = [] if before == "provisioning" else ["WORKSPACE_PROVISIONING"]
    assert [name for name, _ in await events(server, workspace_id)] == told


@pytest.mark.parametrize("content", [None, b"", b"{}", b"null"])
async def test_a_restart_takes_a_body_or_none(
    server: Server, admin: httpx.AsyncClient, content: bytes | None
) -> None:
    workspace_id = await add_workspace(server)
    answer = await admin.post(
        f"/workspaces/{workspace_id}/restart?reset=true",
        content=content,
        headers={"content-type": "application/json"} if content is not None else {},
    )
    assert (answer.status_code, answer.json()["reset_session"]) == (200, True)
    assert (await row(server, workspace_id))["reset_session"] is True


async def test_a_restart_that_cannot_be_is_refused_before_anything_happens(
    server: Server, admin: httpx.AsyncClient
) -> None:
    ids = await family(server)
    await admin.post(f"/workspaces/{ids['child']}/pause")
    below = await admin.post(f"/workspaces/{ids['leaf']}/restart")
    assert (below.status_code, below.json()["error"]) == (
        409,
        'parent workspace "child" is paused — resume it first',
    )
    outside = await admin.post(f"/workspaces/{ids['outside']}/restart")
    assert (outside.status_code, outside.json()["code"]) == (409, "EXTERNAL_WORKSPACE")
    unknown = await admin.post(f"/workspaces/{ids['head']}/restart", json={"template": "nothing"})
    assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid template")
    escape = await admin.post(f"/workspaces/{ids['head']}/restart", json={"template": "../etc"})
    assert escape.status_code == 400
    bad = await admin.post(f"/workspaces/{ids['head']}/restart", json={"reset": "yes"})
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid request body")
    assert (await row(server, ids["head"]))["generation"] == 1


async def test_without_a_back_end_nothing_can_be_started(make_server: MakeServer) -> None:
    server = await make_server(provisioner="none")
    async with connect(server, ADMIN_TOKEN) as admin:
        workspace_id = await add_workspace(server)
        for verb in ("restart", "hibernate"):
            answer = await admin.post(f"/workspaces/{workspace_id}/{verb}")
            assert (answer.status_code, answer.json()["error"]) == (503, "provisioner not available")
        paused = await admin.post(f"/workspaces/{workspace_id}/pause")
        assert paused.status_code == 200
        resumed = await admin.post(f"/workspaces/{workspace_id}/resume")
        assert (resumed.status_code, resumed.json()["error"]) == (503, "provisioner not available")


async def test_pause_reaches_the_subtree_and_resume_leaves_who_was_paused_apart(
    server: Server, admin: httpx.AsyncClient
) -> None:
    ids = await family(server)
    paused = await admin.post(f"/workspaces/{ids['head']}/pause")
    assert (paused.status_code, paused.json()) == (200, {"status": "paused", "paused_count": 4})
    assert set((await statuses(server, ids)).values()) == {"paused"}
    assert await events(server, ids["leaf"]) == [("WORKSPACE_PAUSED", {"name": "leaf"})]
    assert (await row(server, ids["child"]))["desired"] == "pause"

    again = await admin.post(f"/workspaces/{ids['head']}/pause")
    assert (again.status_code, again.json()["error"]) == (404, "workspace not found or already paused")
    below = await admin.post(f"/workspaces/{ids['child']}/resume")
    assert (below.status_code, below.json()["code"]) == (409, "ANCESTOR_PAUSED")

    resumed = await admin.post(f"/workspaces/{ids['head']}/resume")
    assert (resumed.status_code, resumed.json()) == (200, {"status": "provisioning", "resumed_count": 4})
    assert await statuses(server, ids) == {
        "head": "provisioning",
        "child": "provisioning",
        "alone": "paused",
        "leaf": "provisioning",
        "outside": "awaiting_agent",
    }
    assert (await row(server, ids["outside"]))["desired"] == "none"
    twice = await admin.post(f"/workspaces/{ids['head']}/resume")
    assert (twice.status_code, twice.json()["error"]) == (404, "workspace not found or not paused")


async def test_resume_all_and_pause_alone(server: Server, admin: httpx.AsyncClient) -> None:
    ids = await family(server)
    await admin.post(f"/workspaces/{ids['head']}/pause")
    everybody = await admin.post(f"/workspaces/{ids['head']}/resume?all=true")
    assert everybody.json()["resumed_count"] == 5
    alone = await admin.post(f"/workspaces/{ids['head']}/pause?cascade=false")
    assert alone.json()["paused_count"] == 1


async def test_hibernation_respects_tasks_unless_forced(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server, active_tasks=2)
    busy = await admin.post(f"/workspaces/{workspace_id}/hibernate")
    assert busy.status_code == 409
    assert busy.json()["error"] == "workspace has active tasks; use ?force=true to terminate them"
    assert busy.json()["active_tasks"] == 2
    forced = await admin.post(f"/workspaces/{workspace_id}/hibernate?force=true", headers=AT_ONCE)
    assert (forced.status_code, forced.json()) == (202, {"status": "hibernating"})
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["desired"]) == ("hibernating", "hibernate")
    stopped = await add_workspace(server, status="offline")
    refused = await admin.post(f"/workspaces/{stopped}/hibernate")
    assert (refused.status_code, refused.json()["error"]) == (
        404,
        "workspace not found or not in a hibernatable state (must be online or degraded)",
    )


async def test_hibernation_waits_a_moment_for_the_word_that_a_task_has_ended(
    server: Server, admin: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server, active_tasks=1)
    path = f"/workspaces/{workspace_id}/hibernate"
    asking = asyncio.create_task(admin.post(path, headers=AT_ONCE))
    await asyncio.sleep(
        LOOK_AGAIN_SECONDS / 2
    )  # the first look finds it busy; whoever is later finds it idle
    async with server.db.connection() as connection:
        await connection.execute("UPDATE workspaces SET active_tasks = 0 WHERE id = $1", workspace_id)
    assert (await asking).status_code == 202


async def test_of_many_wakes_one_starts_the_agent(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server, status="hibernated", desired="hibernate")

    async def wake() -> bool:
        async with server.db.transaction() as tx:
            return await server.lifecycle.wake(tx, workspace_id, reason="a message")

    assert sum(await asyncio.gather(*(wake() for _ in range(10)))) == 1
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["desired"], stored["generation"]) == ("provisioning", "run", 2)
    late = await admin.post(f"/workspaces/{workspace_id}/wake")
    assert (late.status_code, late.json()["code"]) == (409, "NOT_HIBERNATED")


async def test_a_wake_while_falling_asleep_is_not_lost(server: Server, admin: httpx.AsyncClient) -> None:
    workspace_id = await add_workspace(server)
    await admin.post(f"/workspaces/{workspace_id}/hibernate", headers=AT_ONCE)
    answer = await admin.post(f"/workspaces/{workspace_id}/wake")
    assert (answer.status_code, answer.json()) == (202, {"status": "provisioning"})
    stored = await row(server, workspace_id)
    assert (stored["status"], stored["desired"], stored["generation"]) == ("hibernating", "run", 3)


async def test_requested_restarts_coalesce_and_spare_who_must_rest(server: Server) -> None:
    ids = await family(server)
    async with server.db.transaction() as tx:
        for n in range(10):
            await server.lifecycle.request_restart(tx, list(ids.values()), reason=f"secret {n}")
    generations = {name: (await row(server, found))["generation"] for name, found in ids.items()}
    assert generations == {"head": 11, "child": 11, "alone": 1, "leaf": 1, "outside": 1}
    assert (await row(server, ids["head"]))["status"] == "online"


async def test_removal_takes_the_subtree_its_tokens_and_its_layouts(
    server: Server, admin: httpx.AsyncClient
) -> None:
    ids = await family(server)
    token = await add_token(server, ids["leaf"])
    from molecule_ai.server.auth.principal import SYSTEM

    removal = await server.lifecycle.remove(
        SYSTEM, ids["head"], confirm_name="head", confirm=True, purge=False
    )
    assert (removal.status, removal.cascade_deleted) == ("removed", 4)
    assert set((await statuses(server, ids)).values()) == {"removed"}
    assert await events(server, ids["leaf"]) == [("WORKSPACE_REMOVED", {})]
    assert await events(server, ids["head"]) == [("WORKSPACE_REMOVED", {"cascade_deleted": 4})]
    assert await server.identities.identify(token) is None
    again = await server.lifecycle.remove(
        SYSTEM, ids["head"], confirm_name="head", confirm=False, purge=False
    )
    assert again.cascade_deleted == 0
    assert len(await events(server, ids["head"])) == 1


async def test_bootstrap_failures_are_kept_with_the_end_of_their_log(
    server: Server, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    workspace_id = await add_workspace(server, status="provisioning")
    path = f"/admin/workspaces/{workspace_id}/bootstrap-failed"
    assert (await anonymous.post(path)).status_code == 401
    answer = await admin.post(path, json={"error": "no disk", "log_tail": "x" * 10_000 + "END"})
    assert answer.json() == {"ok": True}
    stored = await row(server, workspace_id)
    assert stored["status"] == "failed"
    assert stored["last_sample_error"].startswith("no disk\n\n[")
    assert stored["last_sample_error"].endswith("END")
    [(name, payload)] = await events(server, workspace_id)
    assert (name, payload["source"], payload["code"]) == (
        "WORKSPACE_PROVISION_FAILED",
        "bootstrap_watcher",
        "BOOT_CRASH",
    )
    assert len(payload["log_tail"].encode()) <= 8192
    assert (await admin.post(path)).json() == {"ok": True, "no_change": True}
    bad = await admin.post(path, json={"error": 5})
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid request body")


async def test_the_console_is_for_operators(make_server: MakeServer) -> None:
    server = await make_server(provisioner="none")
    workspace_id = await add_workspace(server)
    async with connect(server, ADMIN_TOKEN) as admin, connect(server) as anonymous:
        assert (await anonymous.get(f"/workspaces/{workspace_id}/console")).status_code == 401
        answer = await admin.get(f"/workspaces/{workspace_id}/console")
    assert answer.status_code == 501
    assert answer.json()["error"] == "console output unavailable on this deployment (no control plane)"
