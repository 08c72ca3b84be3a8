"""Any order of verbs, deaths and sweeps, with two replicas on real PostgreSQL.

Never two agents of one workspace, no way that the table of states does not know, no wish that is lost:
whatever happened, once everybody may finish, each workspace is what was last asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import SYSTEM
from molecule_ai.server.registry.schemas import Beat, Registration
from molecule_ai.server.settings import Settings
from molecule_ai.server.workspaces.lifecycle_schemas import Restart
from molecule_ai.server.workspaces.liveness import HibernationMonitor
from molecule_ai.server.workspaces.status import Status
from molecule_ai.server.workspaces.sweeper import HealthSweep, OrphanSweeper
from molecule_ai.server.workspaces.transitions import ALLOWED
from tests.support import add_workspace

from .machine import Killed, Machine, MachineProvisioner

pytestmark = pytest.mark.slow
T = TypeVar("T")
EXAMPLES = 40
# Where a server may be killed: in the hands of its back end, and at each of its own durable boundaries.
POINTS = (
    *("before start", "after record", "after start", "before stop", "after stop"),
    *("reconciler.intent", "reconciler.recorded", "reconciler.started"),
    *("reconciler.stopped", "reconciler.settled"),
)
# Every change of a status, whoever made it.
WATCH = """
    CREATE TABLE watched (id uuid, was workspace_status, now workspace_status);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO watched VALUES (NEW.id, OLD.status, NEW.status); RETURN NULL; END $$;
    CREATE TRIGGER watch AFTER UPDATE ON workspaces FOR EACH ROW
      WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION watch()"""
IDLE_FOR_AN_HOUR = """
    UPDATE workspaces SET hibernation_idle_minutes = 1, active_tasks = 0,
           idle_since = now() - interval '1 hour', last_outbound_at = NULL WHERE id = $1"""
ENDS = {
    Status.ONLINE: 1,
    Status.DEGRADED: 1,
    Status.PAUSED: 0,
    Status.HIBERNATED: 0,
    Status.REMOVED: 0,
    Status.FAILED: 0,
}


class Replicas:
    """Two servers and their machine, for as many lives as it takes."""

    def __init__(self, dsn: str, home: str) -> None:
        self.runner = asyncio.Runner()
        self.machine = Machine()
        self.hands = [MachineProvisioner(self.machine) for _ in range(2)]
        values = {"database_url": dsn, "molecule_home": home, "admin_token": "x" * 32}
        own = msgspec.convert(values | {"provisioner": "process"}, Settings)
        self.servers = [Server(own, provisioner=hands) for hands in self.hands]
        for server in self.servers:
            self.runner.run(server.start(engines=False))
        self.runner.run(self._watch())

    async def _watch(self) -> None:
        async with self.servers[0].db.connection() as connection:
            await connection.execute(WATCH)

    def close(self) -> None:
        for server in self.servers:
            self.runner.run(server.stop())
        self.runner.close()


class Life(RuleBasedStateMachine):
    """A handful of workspaces, and whatever may happen to them."""

    replicas: Replicas
    workspaces = Bundle("workspaces")

    def __init__(self) -> None:
        super().__init__()
        self.runner, self.machine = self.replicas.runner, self.replicas.machine
        self.hands, self.servers = self.replicas.hands, self.replicas.servers
        self.machine.running.clear()
        self.known: list[UUID] = []
        self.outside: list[UUID] = []
        self.must_run: set[UUID] = set()
        """Those that were woken or restarted, and asked nothing else since."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def attempt(self, coroutine: Coroutine[Any, Any, object]) -> bool:
        """Whether it was done: a refusal is an answer, a death in the middle is none."""
        try:
            self.run(coroutine)
        except (ApiError, Killed):
            return False
        return True

    def stops(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """A verb that may reach others, too: what was expected to run may be meant to rest now."""
        if self.attempt(coroutine):
            self.must_run.clear()

    @property
    def lifecycle(self) -> Any:
        return self.servers[0].lifecycle

    @rule(target=workspaces, parent=st.one_of(st.none(), workspaces))
    def create(self, parent: UUID | None) -> Any:
        if len(self.known) >= 4:
            return multiple()

        async def make() -> UUID:
            return await add_workspace(
                self.servers[0], status="provisioning", parent_id=parent, observed_generation=0
            )

        workspace_id = self.run(make())
        self.known.append(workspace_id)
        return workspace_id

    @rule(point=st.sampled_from(["lifecycle.wished", "lifecycle.removing"]))
    def the_next_verb_is_cut_off(self, point: str) -> None:
        """The server that takes it dies before it is committed: it never was."""
        failpoints.arm(point)

    @rule()
    def create_outside(self) -> None:
        if self.outside:
            return

        async def make() -> UUID:
            return await add_workspace(
                self.servers[0], status="awaiting_agent", runtime="external", desired="none", url="http://x"
            )

        self.outside.append(self.run(make()))

    @rule(verb=st.sampled_from(["pause", "resume", "restart", "hibernate", "wake", "beat", "lost"]))
    def something_happens_outside(self, verb: str) -> None:
        for workspace in self.outside:
            match verb:
                case "pause":
                    self.stops(self.lifecycle.pause(SYSTEM, workspace))
                case "resume":
                    self.stops(self.lifecycle.resume(SYSTEM, workspace, everybody=False))
                case "restart":
                    self.attempt(self.lifecycle.restart(SYSTEM, workspace, Restart()))
                case "hibernate":
                    self.attempt(self.lifecycle.hibernate(SYSTEM, workspace, force=True))
                case "wake":
                    self.attempt(self.lifecycle.wake_now(SYSTEM, workspace))
                case "beat":
                    self.attempt(self.servers[1].beats.put(Beat(workspace_id=workspace)))
                case _:
                    self.attempt(self.servers[1].losses.lost(workspace, None, reason="no heartbeat"))

    @rule(workspace=workspaces)
    def restart(self, workspace: UUID) -> None:
        if self.attempt(self.lifecycle.restart(SYSTEM, workspace, Restart())):
            self.must_run.add(workspace)

    @rule(workspace=workspaces)
    def secret_changes(self, workspace: UUID) -> None:
        async def change() -> None:
            async with self.servers[1].db.transaction() as tx:
                await self.servers[1].lifecycle.request_restart(tx, [workspace], reason="secret")

        self.attempt(change())

    @rule(workspace=workspaces)
    def pause(self, workspace: UUID) -> None:
        self.stops(self.lifecycle.pause(SYSTEM, workspace))

    @rule(workspace=workspaces, everybody=st.booleans())
    def resume(self, workspace: UUID, everybody: bool) -> None:
        self.attempt(self.lifecycle.resume(SYSTEM, workspace, everybody=everybody))

    @rule(workspace=workspaces, force=st.booleans())
    def hibernate(self, workspace: UUID, force: bool) -> None:
        self.stops(self.lifecycle.hibernate(SYSTEM, workspace, force=force))

    @rule(workspace=workspaces, replica=st.integers(0, 1))
    def nobody_needs_it(self, workspace: UUID, replica: int) -> None:
        """It is idle for longer than it is configured to be, and the monitor comes by."""

        async def pass_by() -> None:
            server = self.servers[replica]
            async with server.db.transaction() as tx:
                await tx.execute(IDLE_FOR_AN_HOUR, workspace)
            await HibernationMonitor(server.db, server.lifecycle, interval_seconds=1).tick()
            async with server.db.transaction() as tx:
                await tx.execute("UPDATE workspaces SET hibernation_idle_minutes = NULL")

        self.stops(pass_by())

    @rule(workspace=workspaces)
    def wake(self, workspace: UUID) -> None:
        if self.attempt(self.lifecycle.wake_now(SYSTEM, workspace)):
            self.must_run.add(workspace)

    @rule(workspace=workspaces, replica=st.integers(0, 1))
    def a_message_arrives(self, workspace: UUID, replica: int) -> None:
        """Whoever sleeps, or is about to, wakes for it, unless a paused ancestor keeps it down."""
        slept = self.run(self.row(workspace))["status"] in ("hibernating", "hibernated")
        woken: list[bool] = []

        async def wake() -> None:
            woken.append(await self.servers[replica].sleepers.wake(workspace))

        if self.attempt(wake()) and slept and woken[0]:
            self.must_run.add(workspace)

    @rule(workspace=workspaces, replica=st.integers(0, 1))
    def agent_falls_silent(self, workspace: UUID, replica: int) -> None:
        """It lives, but nobody hears of it."""
        instance = self.run(self.row(workspace))["instance_id"]
        self.attempt(self.servers[replica].losses.lost(workspace, instance, reason="no heartbeat"))

    @rule(workspace=workspaces)
    def remove(self, workspace: UUID) -> None:
        row = self.run(self.row(workspace))
        self.stops(
            self.lifecycle.remove(SYSTEM, workspace, confirm_name=row["name"], confirm=True, purge=False)
        )

    @rule(workspace=workspaces)
    def agent_registers(self, workspace: UUID) -> None:
        if self.machine.of(workspace):
            data = Registration(id=workspace, url="http://somewhere", agent_card={})
            self.attempt(self.servers[1].registry.register(SYSTEM, data))

    @rule(workspace=workspaces, replica=st.integers(0, 1), tasks=st.integers(0, 1))
    def agent_beats(self, workspace: UUID, replica: int, tasks: int) -> None:
        if self.machine.of(workspace):
            self.attempt(self.servers[replica].beats.put(Beat(workspace_id=workspace, active_tasks=tasks)))

    @rule(workspace=workspaces)
    def agent_dies(self, workspace: UUID) -> None:
        self.machine.crash(workspace)

    @rule(replica=st.integers(0, 1))
    def reconcile(self, replica: int) -> None:
        self.run(self.reconcile_once(replica))

    @rule(replica=st.integers(0, 1), point=st.sampled_from(POINTS), lease_ends=st.booleans())
    def reconcile_and_die(self, replica: int, point: str, lease_ends: bool) -> None:
        self.hands[replica].dies_at = point
        failpoints.disarm()
        failpoints.arm(point)
        self.run(self.reconcile_once(replica))
        failpoints.disarm()
        self.hands[replica].dies_at = ""
        if lease_ends:
            self.run(self.end_leases())

    @rule()
    def both_reconcile(self) -> None:
        async def both() -> None:
            await asyncio.gather(self.reconcile_once(0), self.reconcile_once(1))

        self.run(both())

    @rule(replica=st.integers(0, 1))
    def reconcile_while_the_other_stalls(self, replica: int) -> None:
        """A server stops for longer than its lease in the middle of a start, and then goes on."""

        async def stall() -> None:
            hands = self.hands[1 - replica]
            hands.may_go_on.clear()
            stalled = asyncio.create_task(self.reconcile_once(1 - replica))
            await asyncio.sleep(0.02)
            await self.end_leases()
            await self.reconcile_once(replica)
            hands.may_go_on.set()
            await stalled

        self.run(stall())

    @rule(workspace=workspaces, verb=st.sampled_from(["wake", "restart", "pause", "hibernate"]))
    def a_verb_comes_in_the_middle(self, workspace: UUID, verb: str) -> None:
        """While one server stops or starts agents, the other one takes a verb."""

        async def act() -> None:
            match verb:
                case "wake":
                    await self.lifecycle.wake_now(SYSTEM, workspace)
                case "restart":
                    await self.lifecycle.restart(SYSTEM, workspace, Restart())
                case "pause":
                    await self.lifecycle.pause(SYSTEM, workspace)
                case _:
                    await self.lifecycle.hibernate(SYSTEM, workspace, force=True)

        async def overlap() -> bool:
            hands = self.hands[1]
            hands.may_go_on.clear()
            running = asyncio.create_task(self.reconcile_once(1))
            await asyncio.sleep(0.02)
            try:
                await act()
            except (ApiError, Killed):
                return False
            finally:
                hands.may_go_on.set()
                await running
            return True

        if self.run(overlap()):
            if verb in ("wake", "restart"):
                self.must_run.add(workspace)
            else:
                self.must_run.clear()

    @rule(replica=st.integers(0, 1))
    def sweep(self, replica: int) -> None:
        self.run(self.sweep_once(replica))

    @rule()
    def time_passes(self) -> None:
        self.run(self.pass_time())

    @invariant()
    def nobody_is_doubled(self) -> None:
        for workspace_id in self.known:
            assert len(self.machine.of(workspace_id)) <= 1
        for workspace_id in self.outside:
            assert not self.machine.of(workspace_id)

    @invariant()
    def every_step_is_one_of_the_table(self) -> None:
        for was, now, reason in self.run(self.steps()):
            assert was is None or Status(was) in ALLOWED[Status(now)], (was, now)
            assert "internal error" not in reason

    async def steps(self) -> list[tuple[str | None, str, str]]:
        async with self.servers[0].db.connection() as connection:
            rows = await connection.fetch(
                "SELECT was::text, now::text, '' AS reason FROM watched UNION"
                " SELECT NULL, status::text, status_reason FROM workspaces"
            )
        return [(row["was"], row["now"], row["reason"]) for row in rows]

    async def row(self, workspace_id: UUID) -> dict[str, Any]:
        async with self.servers[0].db.connection() as connection:
            found = await connection.fetchrow("SELECT * FROM workspaces WHERE id = $1", workspace_id)
        assert found is not None
        return dict(found)

    async def reconcile_once(self, replica: int) -> None:
        reconciler = self.servers[replica].reconciler
        await reconciler.tick()
        for result in await asyncio.gather(*tuple(reconciler._running), return_exceptions=True):
            assert result is None or isinstance(result, Killed), result

    async def sweep_once(self, replica: int) -> None:
        server = self.servers[replica]
        await HealthSweep(server.db, server.provisioner, server.losses).tick()
        await OrphanSweeper(server.db, server.provisioner).tick()

    async def end_leases(self) -> None:
        async with self.servers[0].db.transaction() as tx:
            await tx.execute("UPDATE workspaces SET lease_until = now() - interval '1 second'")

    async def pass_time(self) -> None:
        """Leases end, back-offs and debounces are over."""
        await self.end_leases()
        async with self.servers[0].db.transaction() as tx:
            await tx.execute("UPDATE workspaces SET reconcile_after = now(), restart_asked_at = NULL")

    async def come_to_rest(self) -> None:
        for round_ in range(12):
            await self.pass_time()
            await self.reconcile_once(round_ % 2)
            await self.sweep_once(round_ % 2)
            for workspace_id in self.known:
                if self.machine.of(workspace_id):
                    with contextlib.suppress(ApiError):
                        await self.servers[0].beats.put(Beat(workspace_id=workspace_id, active_tasks=0))

    def teardown(self) -> None:
        failpoints.disarm()
        self.run(self.come_to_rest())
        self.every_step_is_one_of_the_table()
        try:
            for workspace_id in self.outside:
                row = self.run(self.row(workspace_id))
                assert row["status"] in ("awaiting_agent", "online", "paused"), row
                assert row["desired"] == "none"
            for workspace_id in self.known:
                row = self.run(self.row(workspace_id))
                status = Status(row["status"])
                alive = self.machine.of(workspace_id)
                assert status in ENDS, row
                assert row["generation"] == row["observed_generation"], row
                assert len(alive) == ENDS[status], (alive, row)
                if alive:
                    assert row["instance_id"] == str(alive[0]), (alive, row)
                    assert row["url"].endswith(str(alive[0])), (alive, row)
                asked = {"run": {"online", "degraded", "failed"}, "pause": {"paused"}}
                asked |= {"hibernate": {"hibernated"}, "remove": {"removed"}}
                assert status in asked[row["desired"]], row
                assert workspace_id not in self.must_run or status in asked["run"], row
        finally:
            self.run(self.forget())

    async def forget(self) -> None:
        async with self.servers[0].db.transaction() as tx:
            await tx.execute("TRUNCATE workspaces, watched CASCADE")


@pytest.fixture
def lives(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Life]]:
    class Lives(Life):
        replicas = Replicas(dsn, str(tmp_path))

    def die() -> None:
        raise Killed

    monkeypatch.setattr(failpoints, "die", die)
    yield Lives
    failpoints.disarm()
    Lives.replicas.close()


def test_any_order_of_verbs_and_deaths_ends_as_asked(lives: type[Life]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lives,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


def test_an_agent_that_nobody_wrote_down_is_replaced_though_it_says_that_it_is_there(
    lives: type[Life],
) -> None:
    """It was started again after a death, and so was the server that started it: its address is lost."""
    life = lives()
    scout = life.create(parent=None)
    life.reconcile(replica=0)
    life.agent_registers(scout)
    life.agent_dies(scout)
    life.sweep(replica=0)
    life.time_passes()
    life.reconcile_and_die(replica=0, point="after start", lease_ends=True)
    life.agent_registers(scout)
    life.time_passes()
    life.reconcile(replica=1)
    life.agent_registers(scout)
    life.teardown()


@pytest.mark.parametrize("verb", ["wake", "restart", "pause"])
def test_a_verb_that_comes_while_the_agent_is_being_stopped_is_not_lost(lives: type[Life], verb: str) -> None:
    life = lives()
    scout = life.create(parent=None)
    life.reconcile(replica=0)
    life.agent_registers(scout)
    life.hibernate(scout, force=True)
    life.a_verb_comes_in_the_middle(scout, verb)
    assert verb == "pause" or life.must_run == {scout}
    life.teardown()
