"""When cron expressions fire, against a slow and obvious reading of the rules, minute by minute."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molecule_ai.kernel.cron import NeverFires, UnknownZone, parse, zone

MINUTE = timedelta(minutes=1)
# Zones with every kind of change: one hour, half an hour, two hours, midnight, none, south, date line.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Santiago",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Beirut",
]
LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]


@st.composite
def crons(draw: st.DrawFn) -> str:
    """Valid expressions, the shapes people write more often than the odd ones."""

    def part(low: int, high: int) -> str:
        a = draw(st.integers(low, high))
        b = draw(st.integers(a, high))
        step = draw(st.integers(1, 20))
        return draw(st.sampled_from(["*", f"*/{step}", str(a), f"{a}-{b}", f"{a}-{b}/{step}", f"{a}/{step}"]))

    fields = []
    for low, high in LIMITS:
        count = draw(st.integers(0, 2))
        fields.append(",".join(part(low, high) for _ in range(count)) or "*")
    return " ".join(fields)


def values(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        if body == "*":
            span = range(low, high + 1)
        elif "-" in body:
            a, b = map(int, body.split("-"))
            span = range(a, b + 1)
        else:
            span = range(int(body), (max(high, int(body)) if step else int(body)) + 1)
        found |= set(span[:: int(step or 1)])
    return found


def oracle(expression: str, tz: ZoneInfo, start: datetime, until: datetime) -> list[datetime]:
    """Walk through every minute; apply the rules of daylight saving one by one."""
    minute, hour, day, month, weekday = expression.split()
    minutes, hours = values(minute, 0, 59), values(hour, 0, 23)
    days, months = values(day, 1, 31), values(month, 1, 12)
    weekdays = {value % 7 for value in values(weekday, 0, 6)}
    any_day, any_weekday = "*" in day.split(","), "*" in weekday.split(",")
    hour_is_fixed = not re.search(r"[*/]", hour)
    time_is_fixed = hour_is_fixed and not re.search(r"[*/]", minute)

    def matches(wall: datetime) -> bool:
        on_day, on_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        day_matches = (on_day and on_weekday) if any_day or any_weekday else (on_day or on_weekday)
        return wall.minute in minutes and wall.hour in hours and wall.month in months and day_matches

    found = []
    previous = (start - MINUTE).astimezone(tz).replace(tzinfo=None)
    instant = start
    while instant <= until:
        local = instant.astimezone(tz)
        wall = local.replace(tzinfo=None)
        is_again = bool(local.fold)
        due = matches(wall) and not (is_again and hour_is_fixed)
        skipped = previous + MINUTE
        while not due and time_is_fixed and skipped < wall:
            due = matches(skipped)
            skipped += MINUTE
        if due:
            found.append(instant)
        previous, instant = wall, instant + MINUTE
    return found


@settings(max_examples=150, deadline=None)
@given(
    expression=crons(),
    name=st.sampled_from(ZONES),
    near=st.sampled_from(
        [(3, 8), (3, 29), (4, 5), (4, 6), (9, 6), (10, 4), (10, 25), (11, 1), (2, 15), (6, 3)]
    ),
    offset_minutes=st.integers(-3000, 0),
)
def test_fires_equal_a_walk_through_every_minute(
    expression: str, name: str, near: tuple[int, int], offset_minutes: int
) -> None:
    tz = zone(name)
    start = datetime(2026, *near, tzinfo=UTC) + timedelta(minutes=offset_minutes)
    until = start + timedelta(hours=72)
    try:
        cron = parse(expression)
    except NeverFires:
        assert oracle(expression, tz, start, until) == []
        return
    expected = oracle(expression, tz, start + MINUTE, until)
    assert list(cron.fires(start, until, tz)) == expected
    assert cron.latest(until, tz, since=start) == (expected[-1] if expected else None)


BERLIN_SPRING = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)  # 01:00; at 02:00 clocks go to 03:00
BERLIN_AUTUMN = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)  # 01:00; at 03:00 clocks go back to 02:00


@pytest.mark.parametrize(
    ("expression", "start", "fires"),
    [
        ("30 2 * * *", BERLIN_SPRING, ["2026-03-29T01:00", "2026-03-30T00:30"]),
        ("*/30 2 * * *", BERLIN_SPRING, ["2026-03-30T00:00", "2026-03-30T00:30"]),
        ("30 * * * *", BERLIN_SPRING, ["2026-03-29T00:30", "2026-03-29T01:30"]),
        ("30 2 * * *", BERLIN_AUTUMN, ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 * * * *", BERLIN_AUTUMN, ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T01:30"]),
        ("*/30 2 * * *", BERLIN_AUTUMN, ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-26T01:00"]),
    ],
)
def test_when_clocks_change(expression: str, start: datetime, fires: list[str]) -> None:
    cron, tz, instant = parse(expression), zone("Europe/Berlin"), start
    for expected in fires:
        instant = cron.after(instant, tz)
        assert instant.strftime("%Y-%m-%dT%H:%M") == expected


def test_a_stepped_star_restricts_its_field() -> None:
    first = parse("0 0 */10 * 1").after(datetime(2026, 6, 1, tzinfo=UTC), zone("UTC"))
    assert first == datetime(2026, 6, 8, tzinfo=UTC)  # a Monday, although no tenth day


def test_the_29th_of_february_is_near_enough() -> None:
    assert parse("0 0 29 2 *").after(datetime(2026, 1, 1, tzinfo=UTC), zone("UTC")).year == 2028


def test_a_seconds_fraction_never_repeats_a_fire() -> None:
    fire = parse("* * * * *").after(datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), zone("UTC"))
    assert fire == datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["Mars/Base", "", "../../etc/passwd", "America", "europe/berlin", "localtime"]
)
def test_only_iana_names_are_zones(name: str) -> None:
    with pytest.raises(UnknownZone):
        zone(name)
