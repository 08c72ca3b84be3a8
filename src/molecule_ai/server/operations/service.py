"""Health with a cached look at the database; liveness from the supervisor."""

from __future__ import annotations

import asyncio
from datetime import datetime

from molecule_ai import __version__
from molecule_ai.kernel.clock import Clock
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.engine import Pulse, Supervisor
from molecule_ai.kernel.errors import DatastoreUnavailable, Unavailable

from .schemas import Health, Liveness, Subsystem

_PROBE_MAX_AGE_SECONDS = 5.0
_PROBE_TIMEOUT_SECONDS = 0.5


class NotReady(Unavailable):
    """unavailable"""

    code = "not_ready"


class Operations:
    """What load balancers and operators ask."""

    def __init__(self, db: Database, clock: Clock, supervisor: Supervisor) -> None:
        self._db = db
        self._clock = clock
        self._supervisor = supervisor
        self._started = clock.now()
        self._probed_at: datetime | None = None
        self._database_ok = False
        self.stopping = False

    async def health(self, *, ready: bool) -> Health:
        """Answer while the process serves; with `ready` raise `NotReady` when it should get no traffic."""
        reachable = await self._database_reachable()
        if ready and (self.stopping or not reachable):
            raise NotReady(status="unavailable", database="ok" if reachable else "unreachable")
        uptime = _duration((self._clock.now() - self._started).total_seconds())
        return Health("ok", __version__, uptime, "ok" if reachable else "unreachable")

    def liveness(self) -> Liveness:
        return Liveness(
            {name: self._subsystem(pulse) for name, pulse in sorted(self._supervisor.pulses.items())}
        )

    def _subsystem(self, pulse: Pulse) -> Subsystem:
        now = self._clock.now()
        ago = None if pulse.last_tick_at is None else int((now - pulse.last_tick_at).total_seconds())
        return Subsystem(
            last_tick_at=pulse.last_tick_at,
            seconds_ago=ago,
            last_pulse_at=pulse.last_pulse_at,
            interval_seconds=pulse.interval_seconds,
            stale=ago is not None and pulse.interval_seconds > 0 and ago > 2 * pulse.interval_seconds + 1,
            restarts=pulse.restarts,
            last_error=pulse.last_error,
            state=pulse.state,
            last_result=pulse.last_result,
        )

    async def _database_reachable(self) -> bool:
        now = self._clock.now()
        if self._probed_at is None or (now - self._probed_at).total_seconds() > _PROBE_MAX_AGE_SECONDS:
            self._probed_at = now
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS), self._db.connection() as connection:
                    self._database_ok = await connection.fetchval("SELECT true")
            except (DatastoreUnavailable, TimeoutError):
                self._database_ok = False
        return self._database_ok


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
