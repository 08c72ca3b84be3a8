"""The one command of the README: an organization comes up, works, is stopped, and nothing is left."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import processes
from tests.e2e.programs import run, start
from tests.support import free_port

pytestmark = [pytest.mark.slow, pytest.mark.processes]
DEMO_SECONDS = 240
KEYS = {
    "workspaces",
    "online",
    "messages",
    "delegations_completed",
    "schedule_runs",
    "approvals_decided",
    "woken",
    "seconds",
}


@pytest.fixture
def home() -> Iterator[Path]:
    """A place with a space in its name, which PostgreSQL's own user can reach."""
    with tempfile.TemporaryDirectory(prefix="molecule demo ", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "a home"
        home.mkdir()
        try:
            yield home
        finally:
            processes.end_all(home / "demo")


async def test_the_demo_does_what_it_says_twice_and_leaves_nothing(home: Path) -> None:
    once = await run(
        *(home, "demo", "--once", "--json", "--port", str(free_port())),
        seconds=DEMO_SECONDS,
        PATH="/usr/bin:/bin",
    )
    assert once.status == 0, once.err
    assert _all_happened(once.json())
    assert "offline demo model" in once.err
    assert _left(home) == []

    process = await start(home, "demo", "--json", "--port", str(free_port()))
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(DEMO_SECONDS):
        summary = await process.stdout.readline()
        assert summary, (await process.stderr.read()).decode()
        assert _all_happened(msgspec.json.decode(summary))
        while b"Ctrl-C" not in await process.stderr.readline():
            pass
        assert _left(home) != []
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert _left(home) == []


def _all_happened(summary: dict[str, Any]) -> bool:
    assert summary.keys() == KEYS
    assert summary["workspaces"] >= 6
    assert summary["online"] == summary["workspaces"]
    return all(value > 0 for value in summary.values())


def _left(home: Path) -> list[bytes]:
    """Command lines of what still lives of the demo."""
    return [processes.command(pid) for pid in processes.of_home(home / "demo")]
