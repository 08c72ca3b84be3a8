"""What many tests need: patience without sleeping, rows to talk about, and real server processes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx

from molecule_ai.server.app import Server

T = TypeVar("T")
START_SECONDS = 60.0
_LISTENERS = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'molecule-listen'"""


async def wait_for(
    condition: Callable[[], T | Awaitable[T]], timeout: float = 30.0, *, interval: float = 0.01
) -> T:
    """The first truthy value of `condition`, plain or async. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        value: Any = await result if inspect.isawaitable(result) else result
        if value:
            return value  # type: ignore[no-any-return]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(interval)


async def add_workspace(
    server: Server, name: str = "", *, parent_id: UUID | None = None, status: str = "online", **columns: Any
) -> UUID:
    """A workspace row, without going through the routes of its room."""
    workspace_id = uuid.uuid4()
    values = {
        "id": workspace_id,
        "name": name or f"w-{workspace_id.hex[:8]}",
        "parent_id": parent_id,
        "status": status,
        "observed_generation": 1,
        **columns,
    }
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    async with server.db.transaction() as tx:
        await tx.execute(f"INSERT INTO workspaces ({', '.join(values)}) VALUES ({places})", *values.values())
    return workspace_id


async def add_token(server: Server, workspace_id: UUID, *, kind: Any = "agent") -> str:
    """A live token of a workspace."""
    async with server.db.transaction() as tx:
        minted = await server.tokens.mint(tx, workspace_id, kind=kind, created_by="test")
    return minted.auth_token


def bearer(token: str) -> dict[str, str]:
    """The header that presents `token`."""
    return {"authorization": f"Bearer {token}"}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """Real workers of one server."""

    url: str
    port: int
    process: asyncio.subprocess.Process
    log_file: Path

    @property
    def pid(self) -> int:
        """The main process; its children are the workers."""
        return self.process.pid

    def worker_pids(self) -> list[int]:
        """Children of the main process that are not helpers of `multiprocessing`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_text()
                if parent == self.pid and "resource_tracker" not in command:
                    found.append(int(folder.name))
        return found

    def client(self, token: str = "") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=bearer(token) if token else {}, timeout=30)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal the main process and return its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), 40)


@asynccontextmanager
async def serve(
    dsn: str, workers: int = 2, *, port: int = 0, respawn: bool = True, **settings: object
) -> AsyncIterator[Served]:
    """Start real workers on `dsn` (already migrated), wait for /health, end all of them on exit.

    `settings` are environment variables in lower case. The process group dies with the block,
    whatever happened to the server in between. A second server that takes over the agents of a killed
    one gets its `port` and `molecule_home`; one that dies at a fail point is not to `respawn`.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="molecule-test-") as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "LC_ALL": "C.UTF-8",
            "DATABASE_URL": dsn,
            "MOLECULE_HOME": f"{folder}/home",
            "ADMIN_TOKEN": "test-admin-token-0123456789abcdef",
            "PROVISIONER": "none",
            "RATE_LIMIT": "1000000",
            "PORT": str(port),
            "WORKERS": str(workers),
        } | {name.upper(): str(value) for name, value in settings.items()}
        log_file = Path(folder) / "server.log"
        with log_file.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(_molecule(environment) if respawn else _granian(environment)),
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        served = Served(f"http://127.0.0.1:{port}", port, process, log_file)
        try:
            await _until_healthy(served)
            await _until_all_listen(dsn, workers)
            yield served
        finally:
            await _end_group(process)


def _molecule(environment: dict[str, str]) -> list[str]:
    named = {"--workers": "WORKERS", "--port": "PORT", "--home": "MOLECULE_HOME"}
    options = [word for option, name in named.items() for word in (option, environment[name])]
    return [sys.executable, "-m", "molecule_ai.cli", "serve", *options]


def _granian(environment: dict[str, str]) -> list[str]:
    """A main process that leaves its dead workers dead."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--factory"),
        *("molecule_ai.server.app:create", "--host", environment.get("BIND_ADDR", "127.0.0.1")),
        *("--port", environment["PORT"], "--workers", environment["WORKERS"], "--loop", "uvloop"),
        *("--log-level", "info", "--backlog", "2048", "--backpressure", "4096"),
        *("--workers-kill-timeout", "20"),
    ]


async def _until_healthy(served: Served) -> None:
    async def healthy() -> bool:
        if served.process.returncode is not None:
            raise RuntimeError(f"the server ended: {served.log()[-4000:]}")
        try:
            return (await client.get("/health")).status_code == 200
        except httpx.HTTPError:
            return False

    async with served.client() as client:
        try:
            await wait_for(healthy, START_SECONDS, interval=0.05)
        except TimeoutError as late:
            raise RuntimeError(f"the server did not start: {served.log()[-4000:]}") from late


async def _until_all_listen(dsn: str, workers: int) -> None:
    """One worker answers while another may still start: wait until each has its listening connection."""
    connection = await asyncpg.connect(dsn)
    try:

        async def all_listen() -> bool:
            return bool(await connection.fetchval(_LISTENERS) >= workers)

        await wait_for(all_listen, START_SECONDS, interval=0.05)
    finally:
        await connection.close()


async def _end_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
