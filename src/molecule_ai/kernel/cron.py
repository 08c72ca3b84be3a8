"""The cron grammar that every schedule speaks, and when an expression fires (contract 03 §2.3).

A wall clock is not a line: it jumps and repeats. The expression is matched on wall time, and each
match is then mapped to the instants at which a clock in the zone really shows it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
HORIZON = timedelta(days=5 * 366)  # a fire further away than five years counts as never
_LONGEST_OVERLAP = timedelta(hours=3)  # more than any zone ever sets its clocks back
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)  # whether an expression ever fires is asked from here
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)


class InvalidCron(ValueError):
    """The text is no cron expression that we accept; the message says which part."""


class NeverFires(InvalidCron):
    """cron expression never fires"""

    def __init__(self) -> None:
        super().__init__(NeverFires.__doc__)


class UnknownZone(ValueError):
    """No IANA time zone has this name."""


class _Kind(Struct, frozen=True):
    """One of the five fields: its range and the names its values may have."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_name: int = 0
    # The largest value that may be written; day 7 of the week is Sunday too.
    highest_written: int | None = None

    def value(self, text: str) -> int:
        if text.upper() in self.names:
            return self.names.index(text.upper()) + self.first_name
        number = int(text) if re.fullmatch(r"[0-9]{1,3}", text) else -1
        if not self.low <= number <= (self.highest_written or self.high):
            raise InvalidCron(f"bad {self.name} '{text[:40]}'")
        return number


_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_KINDS = (
    _Kind("minute", 0, 59),
    _Kind("hour", 0, 23),
    _Kind("day-of-month", 1, 31),
    _Kind("month", 1, 12, _MONTHS, 1),
    _Kind("day-of-week", 0, 6, _DAYS, 0, 7),
)


class _Field(Struct, frozen=True):
    """The values of one field; `is_any` for a bare star, `is_plain` without stars and steps."""

    values: tuple[int, ...]
    is_any: bool
    is_plain: bool

    @property
    def spelled(self) -> str:
        return "*" if self.is_any else ",".join(map(str, self.values))


def normalize(expression: str) -> str:
    """The expression in five fields, single-spaced. Raises `InvalidCron`."""
    return parse(expression).expression


@lru_cache(maxsize=4096)
def parse(expression: str) -> Cron:
    """Read an expression. Raises `InvalidCron`, and `NeverFires` when no date can match."""
    fields = _split(expression)
    return Cron(" ".join(fields), [_parse_field(*pair) for pair in zip(_KINDS, fields, strict=True)])


def _split(expression: str) -> list[str]:
    text = expression.strip()
    if text.startswith("@"):
        if text.lower() not in SHORTHANDS:
            raise InvalidCron(f"{text.split()[0][:40]} is not supported")
        return SHORTHANDS[text.lower()].split()
    if re.match(r"(CRON_)?TZ=", text):
        raise InvalidCron("set the time zone in the field timezone")
    fields = text.split()
    if len(fields) != len(_KINDS):
        raise InvalidCron(f"five fields are needed, not {len(fields)}")
    return fields


def _parse_field(kind: _Kind, text: str) -> _Field:
    parts = text.split(",")
    values = {value % 7 if kind.highest_written else value for part in parts for value in _range(kind, part)}
    return _Field(
        tuple(sorted(values)),
        is_any=any(part in {"*", "?"} for part in parts),
        is_plain=not any(mark in text for mark in "*?/"),
    )


def _range(kind: _Kind, part: str) -> range:
    body, slash, step_text = part.partition("/")
    step = int(step_text) if re.fullmatch(r"[0-9]{1,3}", step_text) else 0
    if slash and step == 0:
        raise InvalidCron(f"bad {kind.name} '{part[:40]}'")
    start_text, dash, end_text = body.partition("-")
    if body in {"*", "?"}:
        start, end = kind.low, kind.high
    else:
        start = kind.value(start_text)
        end = kind.value(end_text) if dash else (max(start, kind.high) if slash else start)
    if end < start:
        raise InvalidCron(f"bad {kind.name} '{part[:40]}'")
    return range(start, end + 1, step or 1)


class Cron:
    """A parsed expression."""

    def __init__(self, expression: str, fields: list[_Field]) -> None:
        self.expression = expression
        minute, hour, *_ = fields
        self._hour_is_fixed = hour.is_plain
        self._time_is_fixed = hour.is_plain and minute.is_plain
        try:
            # Values spelled out, so that only a bare star counts as unrestricted; no zone: wall time.
            self._sim = CronSim(" ".join(field.spelled for field in fields), _SOME_DAY.replace(tzinfo=None))
        except CronSimError as error:
            raise NeverFires from error
        self.after(_SOME_DAY, zone("UTC"))

    def after(self, instant: datetime, tz: ZoneInfo) -> datetime:
        """The first fire strictly later than `instant`, in UTC. Raises `NeverFires` past the horizon."""
        instant = instant.astimezone(UTC)
        found = self._next_on_new_wall_time(instant, tz)
        repeated = self._next_on_repeated_wall_time(instant, tz)
        return found if repeated is None else min(found, repeated)

    def fires(self, after: datetime, until: datetime, tz: ZoneInfo) -> Iterator[datetime]:
        """Every fire in (after, until], oldest first."""
        fire = self.after(after, tz)
        while fire <= until:
            yield fire
            fire = self.after(fire, tz)

    def latest(self, until: datetime, tz: ZoneInfo, *, since: datetime) -> datetime | None:
        """The last fire in (since, until], however many there are."""
        window = _MINUTE
        while True:
            start = max(since, until - window)
            last = None
            for fire in self.fires(start, until, tz):
                last = fire
            if last is not None or start <= since:
                return last
            window *= 4

    def _next_on_new_wall_time(self, instant: datetime, tz: ZoneInfo) -> datetime:
        local = instant.astimezone(tz).replace(tzinfo=None)
        for wall in self._walls(local):
            if wall > local + HORIZON:
                break
            for fire in self._instants(wall, tz):
                if fire > instant:
                    return fire
        raise NeverFires

    def _next_on_repeated_wall_time(self, instant: datetime, tz: ZoneInfo) -> datetime | None:
        """When clocks are set back soon: the first match of the times that are shown again."""
        if self._hour_is_fixed:
            return None
        before, after = _offset(instant, tz), _offset(instant + _LONGEST_OVERLAP, tz)
        if after >= before:
            return None
        change = _change(instant, instant + _LONGEST_OVERLAP, tz)
        again = (change + after).replace(tzinfo=None)
        wall = next(self._walls(again - _SECOND))
        return (wall - after).replace(tzinfo=UTC) if wall < again + (before - after) else None

    def _walls(self, after: datetime) -> Iterator[datetime]:
        """Matching wall times later than `after`."""
        sim = copy.copy(self._sim)
        sim.dt = after.replace(microsecond=0)
        return sim

    def _instants(self, wall: datetime, tz: ZoneInfo) -> tuple[datetime, ...]:
        """When a clock in the zone shows `wall`: once, twice when set back, never when set forward."""
        first = wall.replace(tzinfo=tz, fold=0).astimezone(UTC)
        second = wall.replace(tzinfo=tz, fold=1).astimezone(UTC)
        if first == second:
            return (first,)
        if first > second:
            return (_change(second, first, tz),) if self._time_is_fixed else ()
        return (first,) if self._hour_is_fixed else (first, second)


def _offset(instant: datetime, tz: ZoneInfo) -> timedelta:
    return instant.astimezone(tz).utcoffset() or timedelta()


def _change(low: datetime, high: datetime, tz: ZoneInfo) -> datetime:
    """The instant in (low, high] at which the zone's offset becomes that of `high`."""
    new = _offset(high, tz)
    low, high = low.replace(microsecond=0), high.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
        if _offset(middle, tz) == new:
            high = middle
        else:
            low = middle
    return high


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every IANA name; the data is shipped with the server, so that all replicas agree."""
    return frozenset((resources.files("tzdata") / "zones").read_text().split())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The time zone of that name. Raises `UnknownZone`."""
    if name not in zone_names():
        raise UnknownZone(name)
    with (resources.files("tzdata") / "zoneinfo" / name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)
