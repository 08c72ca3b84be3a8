from datetime import UTC, datetime, timedelta

from molecule_ai.server.workspaces.backoff import plan

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ago(**values: float) -> datetime:
    return NOW - timedelta(**values)


def test_each_restart_in_a_row_waits_longer() -> None:
    delays = [plan(NOW, [], attempts, None).delay.total_seconds() for attempts in range(7)]
    assert delays == [0, 30, 60, 120, 300, 300, 300]


def test_the_sixth_restart_within_fifteen_minutes_is_not_made() -> None:
    times = [ago(minutes=m) for m in (14, 12, 9, 6, 1)]
    assert plan(NOW, times, 5, None).gives_up
    assert not plan(NOW, times[1:], 5, None).gives_up
    older = [ago(minutes=15, seconds=1), *times[1:]]
    assert plan(NOW, older, 5, None).times == [*times[1:], NOW]


def test_ten_minutes_online_forgive_everything() -> None:
    times = [ago(minutes=m) for m in (14, 13, 13, 12, 11)]
    forgiven = plan(NOW, times, 5, ago(minutes=10))
    assert (forgiven.delay, forgiven.attempts, forgiven.times) == (timedelta(), 1, [NOW])
    assert plan(NOW, times, 5, ago(minutes=9, seconds=59)).gives_up
