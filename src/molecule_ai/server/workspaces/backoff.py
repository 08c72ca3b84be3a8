"""When an agent that died is started again, and when we give up (contract 02 §5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

DELAYS = tuple(timedelta(seconds=s) for s in (0, 30, 60, 120, 300))
WINDOW = timedelta(minutes=15)
MAX_IN_WINDOW = 5
HEALTHY_AFTER = timedelta(minutes=10)


class Plan(Struct, frozen=True):
    """The next restart; `times` is None when there is none."""

    delay: timedelta
    attempts: int
    times: list[datetime] | None

    @property
    def gives_up(self) -> bool:
        return self.times is None


def plan(now: datetime, times: Sequence[datetime], attempts: int, online_since: datetime | None) -> Plan:
    """Decide about one more automatic restart.

    `times` are the earlier ones, `attempts` how many followed each other without the agent having been
    up for ten minutes.
    """
    if online_since is not None and now - online_since >= HEALTHY_AFTER:
        times, attempts = [], 0
    recent = [at for at in times if now - at < WINDOW]
    if len(recent) >= MAX_IN_WINDOW:
        return Plan(timedelta(), attempts, None)
    delay = DELAYS[min(attempts, len(DELAYS) - 1)]
    return Plan(delay, attempts + 1, [*recent, now])
