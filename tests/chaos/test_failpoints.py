"""A whole server killed at every durable boundary there is, in the middle of its work."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import molecule_ai
from tests.chaos.stage import Stage, Theatre
from tests.chaos.work import Work

pytestmark = [pytest.mark.slow, pytest.mark.processes]

# Points of provisioners that this house does not use.
ELSEWHERE = ("docker.",)
POINTS = sorted(
    {
        point
        for file in Path(molecule_ai.__file__).parent.rglob("*.py")
        for point in re.findall(r'failpoints\.reach\("([^"]+)"\)', file.read_text())
        if not point.startswith(ELSEWHERE)
    }
)
# What goes on besides messages and schedules, by the room of the point.
BESIDES = {
    "lifecycle": (Work.sleep_and_wake, Work.steer, Work.come_and_go),
    "orgs": (Work.import_org,),
    "process": (Work.come_and_go, Work.steer),
    "reconciler": (Work.sleep_and_wake, Work.come_and_go),
    "secrets": (Work.steer,),
    "workspaces": (Work.steer, Work.come_and_go),
}


@pytest.fixture(scope="module")
async def theatre() -> AsyncIterator[Theatre]:
    theatre = Theatre()
    yield theatre
    await theatre.close()


@pytest.fixture
async def stage(theatre: Theatre, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    stage = await theatre.stage()
    failures = request.session.testsfailed
    yield stage
    if request.session.testsfailed > failures:
        sys.stderr.write(stage.house.log())
        await theatre.close()


@pytest.mark.parametrize("point", POINTS)
async def test_a_server_killed_at_any_point_loses_and_doubles_nothing(stage: Stage, point: str) -> None:
    besides = BESIDES.get(point.partition(".")[0], ())
    async with asyncio.TaskGroup() as group:
        crash = group.create_task(stage.die_at(point))
        while not crash.done():
            await stage.work.talk(3, *(work(stage.work) for work in besides))
    await stage.check()
