"""The `molecule` command, run as people run it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct


class Ended(Struct, frozen=True):
    """What a command left behind."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return msgspec.json.decode(self.out)


def environment(home: Path, **more: str) -> dict[str, str]:
    """A bare environment: no locale, no credential, nothing of whoever runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "MOLECULE_HOME": str(home)} | more


async def start(home: Path, *arguments: str, **more: str) -> asyncio.subprocess.Process:
    """Begin a command in a session of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "molecule_ai.cli", *arguments),
        env=environment(home, **more),
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def run(home: Path, *arguments: str, seconds: float = 60, **more: str) -> Ended:
    """Run a command to its end."""
    process = await start(home, *arguments, **more)
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return Ended(process.returncode or 0, out.decode(), err.decode())
