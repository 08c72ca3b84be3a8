"""The engines that watch the clock, ticked by hand on real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from molecule_ai.kernel.clock import ManualClock
from molecule_ai.provisioners.base import Handle
from molecule_ai.server.app import Server
from molecule_ai.server.workspaces.liveness import HibernationMonitor, Liveness, ProvisionTimeouts
from tests.conftest import ADMIN_TOKEN, MakeServer, connect
from tests.support import add_workspace

MANAGED, EXTERNAL = timedelta(seconds=180), timedelta(seconds=90)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    """Agents would be started here, but no engine runs by itself."""
    return await make_server(provisioner="process")


async def row(server: Server, workspace_id: UUID) -> dict[str, Any]:
    async with server.db.connection() as connection:
        found = await connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
    assert found is not None
    return dict(found)


async def events(server: Server, workspace_id: UUID) -> list[tuple[str, Any]]:
    async with server.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT event_type, payload FROM structure_events WHERE workspace_id = $1 ORDER BY seq",
            workspace_id,
        )
    return [(r["event_type"], r["payload"]) for r in rows]


async def silent(server: Server, seconds: float, **columns: Any) -> UUID:
    at = ago(seconds)
    return await add_workspace(
        server, last_heartbeat_at=at, online_since=ago(9000), status_changed_at=ago(9000), **columns
    )


def watching(server: Server, clock: ManualClock) -> Liveness:
    return Liveness(server.db, server.losses, clock, managed=MANAGED, external=EXTERNAL)


async def listen(liveness: Liveness, clock: ManualClock, seconds: float) -> None:
    for _ in range(int(seconds // 5)):
        clock.advance(timedelta(seconds=5))
        await liveness.tick()


async def test_silence_makes_offline_and_brings_a_restart(server: Server) -> None:
    gone, fresh = await silent(server, 200), await silent(server, 100)
    outside = await silent(server, 100, desired="none", runtime="external")
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    liveness = watching(server, clock)
    await liveness.tick()
    await listen(liveness, clock, 60)
    assert (await row(server, gone))["status"] == "online"  # nobody was listening until a minute ago
    await listen(liveness, clock, 125)

    lost = await row(server, gone)
    assert (lost["status"], lost["status_reason"]) == ("offline", "no heartbeat")
    assert (lost["desired"], lost["generation"], lost["restart_cause"]) == ("run", 2, "detector")
    assert lost["restart_attempts"] == 1
    assert await events(server, gone) == [("WORKSPACE_OFFLINE", {})]
    assert (await row(server, fresh))["status"] == "online"
    left = await row(server, outside)
    assert (left["status"], left["generation"]) == ("awaiting_agent", 1)
    assert await events(server, outside) == [("WORKSPACE_OFFLINE", {})]


async def test_after_a_pause_of_this_process_silence_counts_anew(server: Server) -> None:
    gone = await silent(server, 500)
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    liveness = watching(server, clock)
    await liveness.tick()
    await listen(liveness, clock, 170)
    clock.advance(timedelta(minutes=10))  # the lid was closed
    await liveness.tick()
    await listen(liveness, clock, 100)
    assert (await row(server, gone))["status"] == "online"
    await listen(liveness, clock, 100)
    assert (await row(server, gone))["status"] == "offline"


@pytest.mark.parametrize("status", ["paused", "hibernated", "failed", "provisioning", "removed"])
async def test_who_is_not_expected_to_beat_is_left_alone(server: Server, status: str) -> None:
    workspace_id = await silent(server, 5000, status=status)
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    liveness = watching(server, clock)
    await liveness.tick()
    await listen(liveness, clock, 200)
    assert (await row(server, workspace_id))["status"] == status


async def test_the_sixth_loss_in_a_row_is_a_restart_loop(server: Server) -> None:
    times = [ago(60 * m) for m in (10, 8, 6, 4, 2)]
    workspace_id = await add_workspace(
        server, instance_id=str(UUID(int=1)), restart_times=times, restart_attempts=5, online_since=ago(30)
    )
    assert await server.losses.lost(workspace_id, str(UUID(int=1)), reason="process ended")
    failed = await row(server, workspace_id)
    assert (failed["status"], failed["status_reason"]) == ("failed", "RESTART_LOOP")
    assert failed["last_sample_error"].startswith("restart loop")
    assert failed["instance_id"] is None
    assert [name for name, _ in await events(server, workspace_id)] == [
        "WORKSPACE_OFFLINE",
        "WORKSPACE_PROVISION_FAILED",
    ]


async def test_the_loss_of_a_predecessor_is_no_loss(server: Server) -> None:
    workspace_id = await add_workspace(server, instance_id=str(UUID(int=2)))
    assert not await server.losses.lost(workspace_id, str(UUID(int=1)), reason="process ended")
    assert (await row(server, workspace_id))["status"] == "online"


async def test_a_boot_that_crashes_is_tried_again_and_then_explained(server: Server) -> None:
    workspace_id = await add_workspace(server, status="provisioning", instance_id=str(UUID(int=1)))
    for generation in (2, 3):
        assert await server.losses.lost(workspace_id, str(UUID(int=1)), reason="process ended")
        again = await row(server, workspace_id)
        assert (again["status"], again["generation"]) == ("provisioning", generation)
    await server.losses.lost(workspace_id, str(UUID(int=1)), reason="process ended")
    assert (await row(server, workspace_id))["status"] == "failed"
    [(name, payload)] = await events(server, workspace_id)
    assert (name, payload["code"]) == ("WORKSPACE_PROVISION_FAILED", "BOOT_CRASH")


async def test_a_start_that_takes_too_long_fails_with_its_limit(server: Server) -> None:
    slow = await add_workspace(server, status="provisioning", status_changed_at=ago(700))
    patient = await add_workspace(server, status="provisioning", status_changed_at=ago(700), runtime="hermes")
    tail = server.boot_log.tail
    sweep = ProvisionTimeouts(server.db, server.losses, tail, server.timeouts, override=timedelta())
    assert await sweep.tick() == {"failed": 1}
    assert (await row(server, patient))["status"] == "provisioning"
    [(name, payload)] = await events(server, slow)
    assert (name, payload["code"], payload["timeout_secs"]) == (
        "WORKSPACE_PROVISION_FAILED",
        "TIMEOUT",
        600,
    )
    assert (payload["runtime"], payload["source"]) == ("langgraph", "provision_timeout_sweep")
    everyone = ProvisionTimeouts(
        server.db, server.losses, tail, server.timeouts, override=timedelta(seconds=60)
    )
    assert await everyone.tick() == {"failed": 1}


async def test_the_most_patient_template_of_a_runtime_sets_its_limit(
    make_server: MakeServer, tmp_path: Path
) -> None:
    for name, seconds in (("slow", 1200), ("slower", 2400), ("odd", "many")):
        (tmp_path / name).mkdir()
        config = f"runtime: langgraph\nruntime_config: {{provision_timeout_seconds: {seconds}}}\n"
        (tmp_path / name / "config.yaml").write_text(config)
    server = await make_server(provisioner="process", configs_dir=str(tmp_path))
    slow = await add_workspace(server, status="provisioning", status_changed_at=ago(2300))
    tail = server.boot_log.tail
    sweep = ProvisionTimeouts(server.db, server.losses, tail, server.timeouts, override=timedelta())
    assert await sweep.tick() == {"failed": 0}
    async with connect(server, ADMIN_TOKEN) as admin:
        one = (await admin.get(f"/workspaces/{slow}")).json()
        [listed] = (await admin.get("/workspaces")).json()
    assert one["provision_timeout_ms"] == listed["provision_timeout_ms"] == 2_400_000
    async with server.db.transaction() as tx:
        await tx.execute("UPDATE workspaces SET status_changed_at = $1", ago(2401))
    assert await sweep.tick() == {"failed": 1}


async def test_idle_workspaces_are_put_to_sleep(server: Server) -> None:
    idle = {"hibernation_idle_minutes": 5, "idle_since": ago(301)}
    sleepy = await add_workspace(server, **idle)
    busy = await add_workspace(server, **idle | {"active_tasks": 1})
    talking = await add_workspace(server, **idle | {"last_outbound_at": ago(10)})
    early = await add_workspace(server, **idle | {"idle_since": ago(200)})
    never = await add_workspace(server, idle_since=ago(90_000))
    outside = await add_workspace(server, **idle, runtime="external", desired="none")
    asked = await add_workspace(server, **idle)  # a message is under way that its agent has not told of
    async with server.db.transaction() as tx:
        await tx.execute(
            "INSERT INTO workspace_slots"
            " (workspace_id, slot, holder, message_id, chain_id, depth, hops, path, since, until)"
            " VALUES ($1, 1, $1, 'm', $1, 0, 0, '{}', now(), now() + interval '1 minute')",
            asked,
        )
    monitor = HibernationMonitor(server.db, server.lifecycle, interval_seconds=120)
    assert await monitor.tick() == {"hibernated": 1}
    asleep = await row(server, sleepy)
    assert (asleep["status"], asleep["desired"]) == ("hibernating", "hibernate")
    for other in (busy, talking, early, never, outside, asked):
        assert (await row(server, other))["status"] == "online"


async def test_without_a_back_end_a_new_workspace_says_so_and_its_agent_may_come(
    make_server: MakeServer,
) -> None:
    server = await make_server(provisioner="none", engines=True)
    async with connect(server, ADMIN_TOKEN) as admin:
        made = await admin.post("/workspaces", json={"name": "scout", "runtime": "echo"})
        assert made.status_code == 201
        assert made.json()["status"] == "provisioning"
        assert made.json()["warnings"][0]["code"] == "NO_BACKEND"
        workspace_id = UUID(made.json()["id"])
        await server.reconciler.tick()
        await _until(server, workspace_id, "failed")
        async with connect(server) as agent:
            card = {"id": str(workspace_id), "url": "http://localhost:1", "agent_card": {}}
            answer = await agent.post("/registry/register", json=card)
        assert answer.status_code == 200
        assert answer.json()["auth_token"]
        assert (await row(server, workspace_id))["status"] == "online"


async def _until(server: Server, workspace_id: UUID, status: str) -> None:
    from tests.support import wait_for

    async def there() -> bool:
        return bool((await row(server, workspace_id))["status"] == status)

    await wait_for(there)


async def test_report_dead_believes_two_probes(server: Server, admin: httpx.AsyncClient) -> None:
    dead = {
        "instance_id": str(UUID(int=1)),
        "url": "http://127.0.0.1:1",
        "node": server.provisioner.node,
        "pid": 2**22 - 1,
        "started_at": 1.0,
        "boot_id": "another",
    }
    workspace_id = await add_workspace(
        server, instance_id=dead["instance_id"], handle=dead, node=server.provisioner.node
    )
    assert await server.losses.report_dead(workspace_id)
    assert (await row(server, workspace_id))["status"] == "offline"
    assert await server.losses.report_dead(workspace_id), "it is on its way already"
    successor = await add_workspace(
        server, handle=dead | {"instance_id": str(UUID(int=2))}, node=server.provisioner.node
    )
    assert await server.losses.report_dead(successor, msgspec.convert(dead, Handle))
    asleep = await add_workspace(server, status="hibernated", desired="hibernate")
    assert not await server.losses.report_dead(asleep)
    elsewhere = await add_workspace(
        server, instance_id=dead["instance_id"], handle=dead | {"node": "other"}, node="other"
    )
    assert not await server.losses.report_dead(elsewhere)
    outside = await add_workspace(server, runtime="external", desired="none")
    assert not await server.losses.report_dead(outside)
