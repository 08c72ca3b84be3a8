"""The server under load: one that runs already, or one of our own in a temporary home."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from molecule_ai.host.postgres import EmbeddedPostgres

_RATE_LIMIT = "100000000"  # the load comes from one address


class Target:
    """A server and the admin token; `process` is ours when we started it."""

    def __init__(
        self, url: str, token: str, http: aiohttp.ClientSession, process: Any = None, home: Path | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.http = http
        self.process = process
        self.home = home
        self.cold_start_seconds = 0.0

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """One request; the decoded body. Raises on any failure."""
        sent = {"Authorization": f"Bearer {token or self.token}", **(headers or {})}
        async with self.http.request(method, self.url + path, json=body, headers=sent) as answer:
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: HTTP {answer.status} {await answer.text()}")
            return await answer.json()

    async def database(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to the database of our own server; the caller closes it."""
        if self.home is None:
            raise RuntimeError("this scenario starts its own server; leave out --base-url")
        return await asyncpg.connect(EmbeddedPostgres(self.home).dsn)

    def server_processes(self) -> list[psutil.Process]:
        """The main process and its workers; neither PostgreSQL nor agents."""
        main = psutil.Process(self.process.pid)
        return [main, *(child for child in main.children(recursive=True) if _is_worker(child))]

    def agent_processes(self) -> list[psutil.Process]:
        """The agents, not what they were forked from."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if _is_agent(p)]


def _is_agent(process: psutil.Process) -> bool:
    return _line(process).startswith("molecule agent")


def _is_worker(process: psutil.Process) -> bool:
    others = ("postgres", "molecule agent", "molecule_ai.provisioners")
    return not any(word in _line(process) for word in others)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""


@asynccontextmanager
async def existing(url: str, token: str) -> AsyncIterator[Target]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Target(url, token, http)


@asynccontextmanager
async def own(*, workers: int = 2, environment: dict[str, str] | None = None) -> AsyncIterator[Target]:
    """A fresh server, its cold start timed from the start of the process to its first 200."""
    home = Path(tempfile.mkdtemp(prefix="molecule-bench-"))
    home.chmod(0o711)
    port = _free_port()
    token = "bench-" + os.urandom(16).hex()
    settings = {
        "ADMIN_TOKEN": token,
        "RATE_LIMIT": _RATE_LIMIT,
        "BIND_ADDR": "127.0.0.1",
        **(environment or {}),
    }
    log = (home / "server.log").open("wb")
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "molecule_ai.cli", "up", "--home", str(home), "--port", str(port)),
        *("--workers", str(workers)),
        stdout=log,
        stderr=log,
        env={**os.environ, **settings},
        start_new_session=True,
    )
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            target = Target(f"http://127.0.0.1:{port}", token, http, process, home)
            await _until_healthy(target, home)
            target.cold_start_seconds = time.monotonic() - started
            yield target
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.wait_for(process.wait(), 60)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


async def _until_healthy(target: Target, home: Path) -> None:
    for _ in range(6000):
        try:
            async with target.http.get(target.url + "/health") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        if target.process.returncode is not None:
            break
        await asyncio.sleep(0.01)
    raise RuntimeError("the server did not start:\n" + (home / "server.log").read_text()[-2000:])


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
