"""Heartbeats: gathered for a moment, written in one statement, and what they mean for the status.

One process writes one batch at a time. While it is under way the next one gathers, so that a crowd of
agents costs few transactions and a single agent waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.workspaces import transitions
from molecule_ai.server.workspaces.arrivals import Arrivals
from molecule_ai.server.workspaces.errors import WorkspaceRemoved
from molecule_ai.server.workspaces.status import Status

from . import store
from .schemas import Beat
from .store import Pulse

GATHER_SECONDS = 0.002  # well below what an agent notices, and enough for a batch under load
MAX_BATCH = 500
MAX_TEXT = 4096
MAX_INT = 2**31 - 1
MAX_SPEND = 10**12  # contract 02 §11.2
DEGRADED_AT, RECOVERED_BELOW = 0.5, 0.1
WEDGED = "wedged"
_LOST = frozenset({Status.PROVISIONING, Status.FAILED, Status.AWAITING_AGENT})


class Outcome(Struct, frozen=True):
    """What the sender of a beat learns."""

    status: Status
    at: datetime


class Beats:
    """Takes heartbeats from the routes and writes them in batches."""

    def __init__(self, db: Database, events: Events, arrivals: Arrivals, *, starts_agents: bool) -> None:
        self._db = db
        self._events = events
        self._arrivals = arrivals
        self._starts_agents = starts_agents
        self._waiting: list[tuple[Beat, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, beat: Beat) -> Outcome:
        """Return when the beat is durable. Raises `WorkspaceNotFound` or `WorkspaceRemoved`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((beat, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_SECONDS)
                batch = self._take()
                try:
                    results: dict[UUID, Outcome | ApiError] = await self._settle(
                        [beat for beat, _ in batch.values()]
                    )
                except Exception as error:
                    _answer(batch, error)
                else:
                    _answer(batch, results)
        finally:
            self._writer = None

    def _take(self) -> dict[UUID, tuple[Beat, asyncio.Future[Outcome]]]:
        """The first beat of each workspace; a second one keeps its place for the next batch."""
        batch: dict[UUID, tuple[Beat, asyncio.Future[Outcome]]] = {}
        left = []
        for item in self._waiting:
            if len(batch) < MAX_BATCH and item[0].workspace_id not in batch:
                batch[item[0].workspace_id] = item
            else:
                left.append(item)
        self._waiting = left
        return batch

    async def _settle(self, beats: Sequence[Beat]) -> dict[UUID, Outcome | ApiError]:
        results: dict[UUID, Outcome | ApiError] = {}
        by_id = {beat.workspace_id: beat for beat in beats}
        async with self._db.transaction() as tx:
            pulses = await store.beat(tx, columns(beats))
            unregistered = []
            for pulse in pulses:
                status = await self._judge(tx, pulse, by_id[pulse.id])
                results[pulse.id] = Outcome(status, pulse.at)
                if status in _LOST and not pulse.is_reachable:
                    unregistered.append(pulse.id)
            if unregistered:
                await store.note_unregistered(tx, unregistered)
            await self._tell(tx, pulses)
            if missing := by_id.keys() - results.keys():
                known = await store.statuses(tx, list(missing))
                results.update(
                    {i: WorkspaceRemoved() if i in known else WorkspaceNotFound() for i in missing}
                )
        return results

    async def _judge(self, tx: Connection, pulse: Pulse, beat: Beat) -> Status:
        """Apply the table of contract 02 §11.2; return the status that results."""
        to, payload = verdict(pulse, beat, starts_agents=self._starts_agents)
        if to is None:
            return pulse.status
        moved = await transitions.move(
            tx, self._events, pulse.id, to, only_from={pulse.status}, payload=payload
        )
        if moved is not None and to is Status.ONLINE:
            await self._arrivals.announce(tx, moved)
        return to

    async def _tell(self, tx: Connection, pulses: Sequence[Pulse]) -> None:
        frames: list[tuple[Event, UUID, dict[str, Any]]] = []
        for pulse in pulses:
            if pulse.current_task != pulse.task_before:
                task = {"current_task": pulse.current_task, "active_tasks": pulse.active_tasks}
                frames.append((Event.TASK_UPDATED, pulse.id, task))
            alive = {"active_tasks": pulse.active_tasks, "uptime_seconds": pulse.uptime_seconds}
            frames.append((Event.WORKSPACE_HEARTBEAT, pulse.id, alive))
        await self._events.broadcast_many(frames, tx=tx)
        freed = [pulse.id for pulse in pulses if pulse.active_tasks < pulse.tasks_before]
        await self._arrivals.wake_mailbox(tx, freed)


def verdict(pulse: Pulse, beat: Beat, *, starts_agents: bool) -> tuple[Status | None, dict[str, Any] | None]:
    """The transition that a beat causes, if any, and the payload of its event."""
    wedged = beat.runtime_state == WEDGED
    match pulse.status:
        case Status.ONLINE if wedged:
            return Status.DEGRADED, {"runtime_state": WEDGED, "sample_error": pulse.sample_error}
        case Status.ONLINE if not pulse.is_push and _fails(pulse, beat):
            return Status.DEGRADED, {"error_rate": _rate(beat), "sample_error": pulse.sample_error}
        case Status.DEGRADED if not pulse.is_push and not wedged and _recovers(pulse, beat):
            return Status.ONLINE, {}
        case Status.OFFLINE:
            return Status.ONLINE, {}
        case Status.PROVISIONING if starts_agents and pulse.is_managed and not pulse.is_launched:
            return None, None  # the agent that is about to be replaced
        case status if status in _LOST and pulse.is_reachable:
            return Status.ONLINE, {"recovered_from": str(status)}
        case _:
            return None, None


def _rate(beat: Beat) -> float:
    return min(max(beat.error_rate or 0.0, 0.0), 1.0)


def _fails(pulse: Pulse, beat: Beat) -> bool:
    return beat.error_rate is not None and beat.error_rate >= DEGRADED_AT and not pulse.has_native_status


def _recovers(pulse: Pulse, beat: Beat) -> bool:
    if pulse.has_native_status:
        return beat.runtime_state is not None  # it said by itself that it was wedged, and now that it is not
    return beat.error_rate is not None and beat.error_rate < RECOVERED_BELOW


def columns(beats: Sequence[Beat]) -> list[list[Any]]:
    """The arguments of the batch statement; out-of-range numbers are clamped."""
    return [
        [beat.workspace_id for beat in beats],
        [None if beat.error_rate is None else _rate(beat) for beat in beats],
        [None if beat.sample_error is None else beat.sample_error[:MAX_TEXT] for beat in beats],
        [_count(beat.active_tasks) for beat in beats],
        [None if beat.current_task is None else beat.current_task[:MAX_TEXT] for beat in beats],
        [_count(beat.uptime_seconds) for beat in beats],
        [_count(beat.monthly_spend, MAX_SPEND) for beat in beats],
        [beat.runtime_metadata is not None for beat in beats],
        [_capabilities(beat) for beat in beats],
        [_idle_timeout(beat) for beat in beats],
    ]


def _count(value: int | None, most: int = MAX_INT) -> int | None:
    return None if value is None else min(max(value, 0), most)


def _idle_timeout(beat: Beat) -> int | None:
    return None if beat.runtime_metadata is None else _count(beat.runtime_metadata.idle_timeout_seconds)


def _capabilities(beat: Beat) -> str | None:
    metadata = beat.runtime_metadata
    if metadata is None or metadata.capabilities is None:
        return None
    return msgspec.json.encode(metadata.capabilities).decode()


def _answer(
    batch: dict[UUID, tuple[Beat, asyncio.Future[Outcome]]],
    results: dict[UUID, Outcome | ApiError] | Exception,
) -> None:
    for workspace_id, (_, future) in batch.items():
        if future.done():
            continue
        result = results if isinstance(results, Exception) else results[workspace_id]
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
