"""The demo's own server process and its connection to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from molecule_ai.host.serve import free_port
from molecule_ai.server.tokens.bootstrap import admin_token

_START_SECONDS = 60
_STOP_SECONDS = 30


class DemoFailed(Exception):
    """A step of the demo did not happen; the text says which and why."""


class Platform:
    """Calls to the server with the admin token."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def call(self, method: str, path: str, body: Any = None, *, timeout: float = 60) -> Any:
        """One request; the decoded body. Raises `DemoFailed` with what the server said."""
        async with self.raw(method, path, body, timeout=timeout) as answer:
            if answer.status >= 400:
                raise DemoFailed(f"{method} {path}: HTTP {answer.status} — {(await answer.text())[:500]}")
            return await answer.json()

    def raw(self, method: str, path: str, body: Any = None, *, timeout: float = 60) -> Any:
        return self._http.request(
            method, self.url + path, json=body, timeout=aiohttp.ClientTimeout(total=timeout)
        )

    async def follow(self, take: Callable[[dict[str, Any]], None]) -> None:
        """Hand every event frame to `take` until cancelled."""
        async with self._http.ws_connect(f"{self.url}/ws", heartbeat=30) as socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    take(message.json())


@asynccontextmanager
async def server(home: Path, port: int, environment: Mapping[str, str]) -> AsyncIterator[Platform]:
    """A server on `home` for the time of the block; ends with its agents when the block does."""
    token, _ = admin_token(home)
    chosen = free_port(port, "127.0.0.1")
    log = (home / "server.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "molecule_ai.cli",
        "up",
        "--home",
        str(home),
        "--port",
        str(chosen),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches us alone; we end the server in order
    )
    log.close()
    try:
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(limit=0)
        ) as http:
            platform = Platform(http, f"http://127.0.0.1:{chosen}")
            await _until_healthy(platform, process, home)
            yield platform
    finally:
        await _end(process)


async def _until_healthy(platform: Platform, process: asyncio.subprocess.Process, home: Path) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            break
        try:
            await platform.call("GET", "/health?ready=true", timeout=2)
        except (aiohttp.ClientError, TimeoutError, DemoFailed):
            await asyncio.sleep(0.05)
        else:
            return
    tail = (home / "server.log").read_text(errors="replace")[-1500:]
    raise DemoFailed(f"the server did not come up; its log ends with:\n{tail}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
