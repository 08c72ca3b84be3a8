from typing import Any

import pytest

from molecule_ai.demo.tally import Tally

ROW = {"id": "w1", "name": "Lead", "status": "provisioning", "parent_id": None}


def frame(event: str, **payload: Any) -> dict[str, Any]:
    return {"event": event, "workspace_id": "w1", "timestamp": "2026-01-01T00:00:00Z", "payload": payload}


@pytest.fixture
def tally() -> Tally:
    return Tally(workspaces={"w1": dict(ROW)})


def test_only_a_fire_of_the_clock_counts_as_a_schedule_run(tally: Tally) -> None:
    tally.take(frame("CRON_EXECUTED", schedule_name="x", status="ok", trigger="manual"), 0)
    tally.take(frame("CRON_EXECUTED", schedule_name="x", status="error", trigger="cron"), 0)
    assert tally.schedule_runs == 0
    tally.take(frame("CRON_EXECUTED", schedule_name="x", status="ok", trigger="cron"), 0)
    assert tally.schedule_runs == 1


def test_waking_is_being_online_after_having_slept(tally: Tally) -> None:
    tally.take(frame("WORKSPACE_ONLINE"), 0)
    assert not tally.woken
    tally.take(frame("WORKSPACE_HIBERNATED"), 1)
    tally.take(frame("WORKSPACE_ONLINE"), 2)
    assert tally.woken == {"w1"}


def test_a_failed_message_is_not_counted(tally: Tally) -> None:
    tally.take(frame("ACTIVITY_LOGGED", activity_type="a2a_receive", status="error", duration_ms=3), 0)
    tally.take(frame("ACTIVITY_LOGGED", activity_type="a2a_receive", status="ok", duration_ms=3), 0)
    assert tally.messages == 1
