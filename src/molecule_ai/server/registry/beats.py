"""Heartbeats: gathered for a moment, written in one statement, and what they mean for the status.

While a batch is under way the next one gathers, so that a crowd of agents costs few statements and a
single agent waits for nobody. A beat that changes nothing but figures is one autonomous statement; what
it means for the status follows in a guarded transaction of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from molecule_ai.kernel import log
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.kernel.errors import ApiError, DatastoreUnavailable
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Cleaner, Events
from molecule_ai.server.traffic.service import Traffic
from molecule_ai.server.workspaces import transitions
from molecule_ai.server.workspaces.arrivals import Arrivals
from molecule_ai.server.workspaces.errors import WorkspaceRemoved
from molecule_ai.server.workspaces.status import Status

from . import store
from .schemas import Beat
from .store import Pulse

GATHER_SECONDS = 0.01  # below what an agent notices; a larger batch costs less for each of its beats
MAX_BATCH = 500
MAX_WRITERS = 2  # while one batch is in PostgreSQL the next one is prepared
TELL_SECONDS = 0.05
MAX_TEXT = 4096
MAX_INT = 2**31 - 1
MAX_SPEND = 10**12  # contract 02 §11.2
DEGRADED_AT, RECOVERED_BELOW = 0.5, 0.1
WEDGED = "wedged"
_LOST = frozenset({Status.PROVISIONING, Status.FAILED, Status.AWAITING_AGENT})


class Outcome(Struct, frozen=True):
    """What the sender of a beat learns, and with which token it proved who it is."""

    status: Status
    at: datetime
    token_id: UUID | None = None
    rotates: bool = False


Sender = tuple[UUID, bytes | None]  # whom a beat is of, and the digest of the token that shall prove it
Waiting = tuple[Beat, "asyncio.Future[Outcome | None]"]
Results = dict[Sender, Outcome | ApiError | None]


class Beats:
    """Takes heartbeats from the routes and writes them in batches."""

    def __init__(
        self, db: Database, events: Events, arrivals: Arrivals, traffic: Traffic, *, starts_agents: bool
    ) -> None:
        self._db = db
        self._events = events
        self._arrivals = arrivals
        self._traffic = traffic
        self._starts_agents = starts_agents
        self._waiting: list[tuple[Sender, Waiting]] = []
        self._in_flight: set[Sender] = set()
        self._writers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._untold: dict[tuple[Event, UUID], dict[str, Any]] = {}
        self._teller: asyncio.Task[None] | None = None
        self._log = log.get()
        self.cleaner: Cleaner | None = None

    async def put(self, beat: Beat) -> Outcome:
        """Return when the beat is written. Raises `WorkspaceNotFound` or `WorkspaceRemoved`."""
        outcome = await self._put(beat, None)
        if outcome is None:
            raise WorkspaceNotFound
        return outcome

    async def put_proven(self, beat: Beat, token_hash: bytes) -> Outcome | None:
        """The same, if this is a token of the workspace; else nothing is written and None is returned.

        The statement that writes the beat is the one that looks for the token.
        """
        return await self._put(beat, token_hash)

    async def _put(self, beat: Beat, token_hash: bytes | None) -> Outcome | None:
        if (beat.sample_error or beat.current_task) and self.cleaner is not None:
            said = {"sample_error": beat.sample_error, "current_task": beat.current_task}
            beat = msgspec.structs.replace(beat, **await self.cleaner.clean([beat.workspace_id], said))
        future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((beat.workspace_id, token_hash), (beat, future)))
        if self._writers < MAX_WRITERS:
            self._writers += 1
            writer = asyncio.create_task(self._write())
            self._tasks.add(writer)  # the loop itself keeps no task alive
            writer.add_done_callback(self._tasks.discard)
        return await future

    async def _write(self) -> None:
        try:
            await self._write_all()
        finally:
            self._writers -= 1

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            batch = self._take()
            if not batch:
                return  # all that wait follow a beat in flight, whose writer takes them next
            self._in_flight |= batch.keys()
            try:
                results = await self._settle({sender: beat for sender, (beat, _) in batch.items()})
            except Exception as error:
                _answer(batch, error)
            else:
                _answer(batch, results)
            finally:
                self._in_flight -= batch.keys()

    def _take(self) -> dict[Sender, Waiting]:
        """The next beat of each sender that has none under way; the others keep their place."""
        batch: dict[Sender, Waiting] = {}
        left = []
        for item in self._waiting:
            sender, waiting = item
            if len(batch) >= MAX_BATCH or sender in batch or sender in self._in_flight:
                left.append(item)
            else:
                batch[sender] = waiting
        self._waiting = left
        return batch

    async def _settle(self, beats: Mapping[Sender, Beat]) -> Results:
        """One statement for the beats; a second transaction for the few that mean more than a beat."""
        async with self._db.connection() as connection:
            pulses = await store.beat(connection, columns(beats))
        results: Results = {
            (p.id, p.token_hash): Outcome(p.status, p.at, p.token_id, p.rotates) for p in pulses
        }
        verdicts = [
            (pulse, *verdict(pulse, beats[pulse.id, pulse.token_hash], starts_agents=self._starts_agents))
            for pulse in pulses
        ]
        moving = [(pulse, to, payload) for pulse, to, payload in verdicts if to is not None]
        unregistered = [p.id for p in pulses if p.status in _LOST and not (p.is_reachable or p.is_noted)]
        if moving or unregistered:
            async with self._db.transaction() as tx:
                for pulse, to, payload in moving:
                    if await self._move(tx, pulse, to, payload):
                        results[pulse.id, pulse.token_hash] = Outcome(
                            to, pulse.at, pulse.token_id, pulse.rotates
                        )
                await store.note_unregistered(tx, unregistered)
        await self._traffic.tell_of_room([p.id for p in pulses if p.active_tasks < p.tasks_before])
        await self._explain(beats.keys() - results.keys(), results)
        self._tell(pulses)
        return results

    async def _explain(self, missing: Collection[Sender], results: Results) -> None:
        """Say of beats that were not written why; of those without proof, only that they were not."""
        results.update((sender, None) for sender in missing if sender[1] is not None)
        absent = [workspace_id for workspace_id, token_hash in missing if token_hash is None]
        if not absent:
            return
        async with self._db.connection() as connection:
            known = await store.statuses(connection, absent)
        for workspace_id in absent:
            removed = workspace_id in known
            results[workspace_id, None] = WorkspaceRemoved() if removed else WorkspaceNotFound()

    async def _move(self, tx: Connection, pulse: Pulse, to: Status, payload: dict[str, Any] | None) -> bool:
        moved = await transitions.move(
            tx, self._events, pulse.id, to, only_from={pulse.status}, payload=payload
        )
        if moved is not None and to is Status.ONLINE:
            await self._arrivals.announce(tx, moved)
        return moved is not None

    def _tell(self, pulses: Sequence[Pulse]) -> None:
        """Have the figures broadcast a moment later, the newest of each workspace."""
        for pulse in pulses:
            if pulse.current_task != pulse.task_before:
                task = {"current_task": pulse.current_task, "active_tasks": pulse.active_tasks}
                self._untold[Event.TASK_UPDATED, pulse.id] = task
            alive = {"active_tasks": pulse.active_tasks, "uptime_seconds": pulse.uptime_seconds}
            self._untold[Event.WORKSPACE_HEARTBEAT, pulse.id] = alive
        if self._untold and self._teller is None:
            self._teller = asyncio.create_task(self._broadcast())

    async def _broadcast(self) -> None:
        try:
            while self._untold:
                await asyncio.sleep(TELL_SECONDS)
                frames = [(event, about, facts) for (event, about), facts in self._untold.items()]
                self._untold.clear()
                async with self._db.connection() as connection:
                    await self._events.broadcast_many(frames, tx=connection)
        except DatastoreUnavailable as away:
            self._log.debug("heartbeats_untold", error=str(away))  # whoever watches sees the next ones
        finally:
            self._teller = None


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


def columns(beats_by_sender: Mapping[Sender, Beat]) -> list[list[Any]]:
    """The arguments of the batch statement; out-of-range numbers are clamped."""
    beats = beats_by_sender.values()
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
        [token_hash for _, token_hash in beats_by_sender],
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


def _answer(batch: Mapping[Sender, Waiting], results: Results | Exception) -> None:
    for sender, (_, future) in batch.items():
        if future.done():
            continue
        result = results if isinstance(results, Exception) else results[sender]
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
