"""The main process of `molecule serve`: database, migrations, then the workers until a signal."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings

from molecule_ai.kernel import log, migrations
from molecule_ai.kernel.db import AWAY
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.kernel.parent import PARENT
from molecule_ai.server.environment import load_dotenv, read
from molecule_ai.server.settings import Settings

from .lock import HomeLock
from .postgres import EmbeddedPostgres
from .workers import Workers, WorkersFailed

_SHUTDOWN_SECONDS = 30
# Bounds slow headers and idle connections alike, so it is more than agents pause between two heartbeats.
_HEADERS_MILLISECONDS = 45_000
_DATABASE_SECONDS = 30.0
_RETRY_SECONDS = 0.2


def prepare(overrides: Mapping[str, str]) -> Settings:
    """Settle the environment of this process and its workers: overrides, the existing one, then `.env`."""
    for name, value in load_dotenv(Path.cwd()).items():
        os.environ.setdefault(name, value)
    os.environ.update(overrides)
    settings = read()
    settings.home.mkdir(parents=True, exist_ok=True)
    log.configure(level=settings.log_level)
    return settings


def run(settings: Settings, *, with_agents: bool = False) -> None:
    """Serve until SIGINT or SIGTERM. Raises `AlreadyRunning`, `ChangedMigration`, `WorkersFailed`.

    `with_agents` also ends the local agents then; otherwise they live on and the next server adopts them.
    """
    with ExitStack() as stack:
        if not settings.database_url:
            lock = HomeLock(settings.home)
            stack.callback(lock.release)
            lock.describe(f"http://{reachable(settings.address)}:{settings.port}")
            postgres = EmbeddedPostgres(settings.home)
            stack.callback(postgres.stop)
            os.environ["DATABASE_URL"] = postgres.start()
            postgres.watch()
        if with_agents:
            stack.callback(_end_agents, settings)
        os.environ["PORT"] = str(settings.port)
        os.environ["WORKERS"] = str(settings.workers)
        os.environ[PARENT] = str(os.getpid())
        asyncio.run(_migrate(os.environ["DATABASE_URL"]))
        _load_what_workers_share()
        _serve(settings)


async def _migrate(dsn: str) -> None:
    """Bring the schema up to date; a database that is on its way up, or up again, is waited for."""
    deadline = time.monotonic() + _DATABASE_SECONDS
    while True:
        try:
            await migrations.upgrade(dsn, migrations.load())
        except AWAY as away:
            if time.monotonic() > deadline:
                raise DatastoreUnavailable from away
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


def _serve(settings: Settings) -> None:
    """Serve until a signal. Raises `WorkersFailed`."""
    server = Workers(
        "molecule_ai.server.app:create",
        factory=True,
        address=settings.address,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        respawn_interval=0.5,
        workers_kill_timeout=_SHUTDOWN_SECONDS,
        backlog=2048,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADERS_MILLISECONDS),
        # Open sockets and streams count as requests under way.
        backpressure=settings.websocket_limit + 2048,
        log_enabled=settings.log_level == "debug",
    )
    server.serve()
    if server.is_hopeless:
        raise WorkersFailed("the workers ended as soon as they were started; the log says why")


def free_port(wanted: int, address: str) -> int:
    """`wanted`, or the next port that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {wanted} and {wanted + 99}")


def reachable(address: str) -> str:
    """The address under which this machine reaches what was bound to `address`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)


def _load_what_workers_share() -> None:
    """Import the server before the workers are forked from this process.

    Frozen objects are never visited by a collection, whose marks would copy every shared page.
    """
    import molecule_ai.server.app  # noqa: F401 imported for the workers

    gc.collect()
    gc.freeze()


def _end_agents(settings: Settings) -> None:
    from molecule_ai.provisioners.process import ProcessProvisioner  # the main process is lean without it

    asyncio.run(ProcessProvisioner(settings.home, settings.agent_platform_url).end_all())
