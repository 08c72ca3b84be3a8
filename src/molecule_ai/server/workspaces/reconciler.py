"""Drives every workspace from what is observed to what is wished.

A wish is a row whose generation was raised. One process at a time claims it with a lease, so that
restarts asked for during a run make one more run, whatever their number. What is about to happen is
recorded before it happens: a process that dies at any point leaves a row from which the next one goes
on, and whatever it started in between is either the expected instance or an orphan that the sweep ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from types import MappingProxyType

import msgspec

from molecule_ai.kernel import failpoints, log
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.provisioners.base import Handle, Launch, Provisioner
from molecule_ai.provisioners.errors import Elsewhere, NoBackend, ProvisionError
from molecule_ai.server.events.service import Events
from molecule_ai.server.tokens.service import Tokens

from . import reconcile_store as store
from . import transitions
from .adoption import adopted
from .inbound import InboundSecrets
from .launches import Launches, LaunchRefused
from .losses import Losses
from .reconcile_store import Claim, Held
from .restart_note import Notes
from .status import STOP_FAILED, Desired, Status
from .transitions import ALLOWED

LEASE = timedelta(seconds=10)  # how long the work of a killed process waits for another one
RENEW_SECONDS = 2.5
RETRY_AFTER = timedelta(seconds=5)
START_BUDGET_SECONDS = 180.0  # contract 02 §9.2
BUSY_RETRY = timedelta(seconds=5)
BUSY_PATIENCE = timedelta(minutes=5)  # a change of configuration waits so long for a task to end


class LeaseLost(Exception):
    """Another process has claimed the row: what we do now would be done twice."""


class WishChanged(Exception):
    """Nobody wants this agent any more."""


class Reconciler:
    """The engine. Every replica runs it; the lease decides who acts."""

    name = "reconciler"
    interval_seconds = 1.0

    def __init__(
        self,
        db: Database,
        events: Events,
        tokens: Tokens,
        provisioner: Provisioner,
        launches: Launches,
        losses: Losses,
        notes: Notes,
        inbound: InboundSecrets,
        ids: Ids,
        *,
        has_backend: bool,
        concurrency: int,
        wake: Callable[[], None],
    ) -> None:
        self._db = db
        self._events = events
        self._tokens = tokens
        self._provisioner = provisioner
        self._launches = launches
        self._losses = losses
        self._notes = notes
        self._inbound = inbound
        self._ids = ids
        self._has_backend = has_backend
        self._concurrency = concurrency
        self._wake = wake
        self._node = provisioner.node or None
        self._running: set[asyncio.Task[None]] = set()
        self._log = log.get()

    async def tick(self) -> dict[str, int]:
        """Claim as much as there is room for; the work itself goes on beside the loop."""
        free = self._concurrency - len(self._running)
        if free <= 0:
            return {"claimed": 0, "running": len(self._running)}
        async with self._db.transaction() as tx:
            claims = await store.claim(tx, self._node, free, LEASE)
        for claim in claims:
            task = asyncio.create_task(self._run(claim), name=f"reconcile:{claim.id}")
            self._running.add(task)
            task.add_done_callback(self._finished)
        return {"claimed": len(claims), "running": len(self._running)}

    async def stop(self) -> None:
        """Abandon what is under way; leases and intents let another process go on."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake()

    async def _run(self, claim: Claim) -> None:
        bound = self._log.bind(workspace_id=str(claim.id), desired=claim.desired, generation=claim.generation)
        try:
            async with self._renewing(claim):
                await self._drive(claim)
        except LeaseLost:
            bound.info("reconcile_lease_lost")
        except WishChanged:
            await self._release(claim, "", timedelta())
        except DatastoreUnavailable:
            bound.warning("reconcile_interrupted")
        except LaunchRefused as refused:
            bound.info("start_refused", code=refused.code, error=str(refused))
            await self._give_up(claim, refused.code, str(refused), facts=refused.facts)
        except Elsewhere as elsewhere:
            bound.info("reconcile_elsewhere", node=elsewhere.node)
            await self._release(claim, "")
        except TimeoutError:
            bound.warning("start_timed_out")
            seconds = int(START_BUDGET_SECONDS)
            await self._give_up(claim, "TIMEOUT", f"the back end did not start the agent within {seconds} s")
        except ProvisionError as error:
            bound.warning("provision_failed", code=error.code, error=str(error), cause=str(error.__cause__))
            await self._failed(claim, error)
        except Exception:
            bound.exception("reconcile_crashed")
            await self._release(claim, "an internal error; tried again")

    async def _drive(self, claim: Claim) -> None:
        match claim.desired:
            case Desired.RUN if claim.cause == "detector" and claim.is_live and claim.handle is not None:
                await self._settle(claim, stopped=False)  # it came back by itself, to where we know it
            case Desired.RUN if self._should_wait(claim):
                await self._release(claim, "", BUSY_RETRY)
            case Desired.RUN:
                await self._start(claim)
            case Desired.NONE:
                await self._settle(claim, stopped=False)
            case _:
                await self._stop(claim)

    @staticmethod
    def _should_wait(claim: Claim) -> bool:
        """A busy agent finishes its task before it is restarted for a change of configuration."""
        if claim.cause != "config" or not claim.is_live or claim.active_tasks == 0:
            return False
        return claim.asked_at is not None and claim.now - claim.asked_at < BUSY_PATIENCE

    async def _start(self, claim: Claim) -> None:
        if not self._has_backend:
            raise NoBackend("this server starts no agents; register one for this workspace yourself")
        async with self._db.transaction() as tx:
            held = await self._hold(tx, claim)
            if held.desired is not Desired.RUN:
                raise WishChanged
            await transitions.move(
                tx,
                self._events,
                claim.id,
                Status.PROVISIONING,
                only_from=ALLOWED[Status.PROVISIONING],
                reason=claim.cause,
            )
        async with self._db.connection() as connection:
            environment = await self._launches.environment(connection, claim)
        config = await self._launches.require_environment(claim, environment)
        claim = adopted(claim, config)
        await self._end(claim)
        await self._launches.apply_changes(claim)
        launch = await self._intend(claim, environment, wants_note=config.get("restart_context") is not False)
        async with asyncio.timeout(START_BUDGET_SECONDS):
            await self._provisioner.start(launch, partial(self._record, claim))
        failpoints.reach("reconciler.started")
        async with self._db.transaction() as tx:
            await store.release(tx, claim, timedelta())

    async def _end(self, claim: Claim) -> None:
        """Stop whatever runs for the workspace; nothing is expected to run after this."""
        if claim.instance_id is None and claim.handle is None:
            return
        handle = msgspec.convert(claim.handle, Handle) if claim.handle is not None else None
        if handle is not None and handle.node != (self._node or handle.node):
            return  # its machine is gone, and the claim says so
        await self._provisioner.stop(claim.id, handle)
        failpoints.reach("reconciler.stopped")

    async def _intend(self, claim: Claim, environment: dict[str, str], *, wants_note: bool) -> Launch:
        """Record the instance that comes next, with its token. Raises `WishChanged`."""
        instance_id = self._ids.new()
        async with self._db.transaction() as tx:
            held = await self._hold(tx, claim)
            if held.desired is not Desired.RUN or held.status is not Status.PROVISIONING:
                raise WishChanged
            await store.intend(tx, claim.id, instance_id, self._node)
            await store.adopt(tx, claim)
            minted = await self._tokens.rotate_agent(tx, claim.id)
            inbound_secret = await self._inbound.ensure(tx, claim.id)
            if not wants_note:
                await self._notes.drop(tx, claim.id)
        failpoints.reach("reconciler.intent")
        return self._launches.build(
            claim, instance_id, environment, token=minted.auth_token, inbound_secret=inbound_secret
        )

    async def _record(self, claim: Claim, handle: Handle) -> None:
        """Keep the handle of an agent that waits for leave to live; whoever lost the row gives none."""
        async with self._db.transaction() as tx:
            held = await self._hold(tx, claim)
            if held.desired is not Desired.RUN:
                raise WishChanged
            await store.record(tx, claim, msgspec.to_builtins(handle), handle.url)
        failpoints.reach("reconciler.recorded")

    async def _stop(self, claim: Claim) -> None:
        if claim.desired is Desired.REMOVE:
            handle = msgspec.convert(claim.handle, Handle) if claim.handle is not None else None
            if handle is None or handle.node == (self._node or handle.node):
                await self._provisioner.remove(claim.id, handle, claim.purge)
            failpoints.reach("reconciler.stopped")
        else:
            await self._end(claim)
        await self._settle(claim, stopped=True)

    async def _settle(self, claim: Claim, *, stopped: bool) -> None:
        async with self._db.transaction() as tx:
            held = await self._hold(tx, claim)
            if held.desired is Desired.HIBERNATE:
                await transitions.move(
                    tx,
                    self._events,
                    claim.id,
                    Status.HIBERNATED,
                    only_from={Status.HIBERNATING},
                    reason="idle",
                )
            await store.settle(tx, claim.id, claim.generation, stopped=stopped)
            if stopped and claim.purge:
                await store.purge(tx, claim.id)
        failpoints.reach("reconciler.settled")

    async def _failed(self, claim: Claim, error: ProvisionError) -> None:
        """A start that fails is told; whoever cannot be put to sleep goes on; other stops are repeated."""
        match claim.desired:
            case Desired.RUN:
                tail = await self._losses.tail(claim.id)
                await self._give_up(claim, error.code, _text(error), tail=tail)
            case Desired.HIBERNATE:
                await self._stay_awake(claim, str(error))
            case _:
                await self._release(claim, f"{STOP_FAILED}: {error}")

    async def _stay_awake(self, claim: Claim, error: str) -> None:
        """Back to what it was, unless somebody wished something else meanwhile."""
        async with self._db.transaction() as tx:
            held = await self._hold(tx, claim)
            if held.generation != claim.generation:
                await store.release(tx, claim, timedelta())
                return
            was = claim.slept_from or Status.ONLINE
            ill = {"error_rate": held.last_error_rate, "sample_error": held.last_sample_error}
            await transitions.move(
                tx,
                self._events,
                claim.id,
                was,
                only_from={Status.HIBERNATING},
                reason=f"{STOP_FAILED}: {error}",
                payload=ill if was is Status.DEGRADED else {},
                change=transitions.Change(desired=Desired.RUN),
            )
            await store.settle(tx, claim.id, claim.generation, stopped=False)

    async def _give_up(
        self,
        claim: Claim,
        code: str,
        text: str,
        *,
        tail: str = "",
        facts: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        with contextlib.suppress(LeaseLost, DatastoreUnavailable):
            async with self._db.transaction() as tx:
                await self._hold(tx, claim)
                await self._losses.fail(
                    tx, claim.id, code, text, tail, only_from=Status.PROVISIONING, **facts
                )
                await store.settle(tx, claim.id, claim.generation, stopped=True)

    async def _release(self, claim: Claim, reason: str, retry_after: timedelta = RETRY_AFTER) -> None:
        with contextlib.suppress(DatastoreUnavailable):
            async with self._db.transaction() as tx:
                await store.release(tx, claim, retry_after, reason)

    async def _hold(self, tx: Connection, claim: Claim) -> Held:
        held = await store.hold(tx, claim)
        if held is None:
            raise LeaseLost
        return held

    @asynccontextmanager
    async def _renewing(self, claim: Claim) -> AsyncIterator[None]:
        """Keep the lease while the work lasts; whether it is still ours is asked at each write."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(RENEW_SECONDS)
                with contextlib.suppress(DatastoreUnavailable):
                    async with self._db.transaction() as tx:
                        await store.renew(tx, claim, LEASE)

        renewal = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewal.cancel()


def _text(error: ProvisionError) -> str:
    """What the owner may read: contract 02 §9.2 keeps engine details in the log."""
    return str(error) or "workspace start failed"
