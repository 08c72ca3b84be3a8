"""One installation with all that can be killed in it: a server, its workers, its database, its agents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from molecule_ai.host.postgres import EmbeddedPostgres
from tests import processes
from tests.support import bearer, free_port, wait_for

START_SECONDS = 60.0
PATIENCE_SECONDS = 60.0  # for one request, however often the server is killed meanwhile
ADMIN_TOKEN = "chaos-admin-token-0123456789abcdef"
_AWAY = (
    *(OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError),
    *(
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
    ),
)
_RETRIED = {502, 503, 504}


class Unanswered(Exception):
    """Nobody knows whether the question was heard."""


class House:
    """`molecule serve` with two workers and the embedded database on a home folder of its own."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.port = free_port()
        self.armed = home / "failpoints"
        self.log_file = home / "server.log"
        self.armed.mkdir(parents=True)
        self._settings = {name.upper(): str(value) for name, value in settings.items()}
        self._database = EmbeddedPostgres(home)
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._main: asyncio.subprocess.Process | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = bearer(str(settings.get("admin_token", ADMIN_TOKEN)))
        self._http = httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=30)

    @property
    def pid(self) -> int:
        assert self._main is not None
        return self._main.pid

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "RATE_LIMIT": "1000000",
            "CHAIN_PAIR_RATE": "100000",
            "MOLECULE_FAILPOINTS_DIR": str(self.armed),
            **self._settings,
        }
        serve = ["serve", "--workers", "2", "--port", str(self.port), "--home", str(self.home)]
        with self.log_file.open("ab") as output:
            self._main = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "molecule_ai.cli", *serve),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        await self.until_healthy()

    async def until_healthy(self) -> None:
        """Wait until the server and its database answer."""
        await self.ask("GET", "/workspaces", patience=START_SECONDS)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        done: frozenset[int] = frozenset(),
        refusals: frozenset[int] = frozenset(),
        patience: float = PATIENCE_SECONDS,
        repeats: bool = True,
        **options: Any,
    ) -> httpx.Response:
        """Ask until there is an answer, as a stubborn client does.

        A repeated question may be refused with a status in `done` because the first one was heard;
        `refusals` are answers at any time. One that must not be repeated raises `Unanswered`.
        """
        deadline = asyncio.get_running_loop().time() + patience
        is_repeated = False
        while True:
            try:
                answer = await self._http.request(method, path, json=body, **options)
                status = answer.status_code
                if status < 300 or status in refusals or (is_repeated and status in done):
                    return answer
                assert answer.status_code in _RETRIED, f"{method} {path}: {answer.text}"
            except httpx.TransportError as lost:
                if not repeats:
                    raise Unanswered from lost
                assert self._main is None or self._main.returncode in (None, -signal.SIGKILL), self.log()
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"{method} {path} got no answer: {self.log()}") from lost
            else:
                if not repeats:
                    raise Unanswered(answer.text)
                assert asyncio.get_running_loop().time() < deadline, f"{method} {path}: {answer.text}"
            is_repeated = True
            await asyncio.sleep(0.1)

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of the database, past the server; it may be on its way up again."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            try:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(self._database.dsn, min_size=0, max_size=4)
                return await self._pool.fetch(sql, *arguments)
            except _AWAY:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def worker_pids(self) -> list[int]:
        """Processes that answer requests."""
        return [
            pid for pid in processes.children(self.pid) if b"resource_tracker" not in processes.command(pid)
        ]

    def kill_server(self) -> None:
        """SIGKILL for the main process, its workers and whatever else is in their session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_main(self) -> None:
        """SIGKILL for the main process alone; its workers have to notice."""
        os.kill(self.pid, signal.SIGKILL)

    def kill_database(self) -> None:
        """SIGKILL for the postmaster."""
        pid = int((self.home / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def until_gone(self) -> None:
        """Wait until the killed server is buried: its port is free again."""
        assert self._main is not None
        await self._main.wait()
        try:
            await wait_for(lambda: not processes.servers(self.home), 60)
        except TimeoutError as late:
            left = {pid: processes.describe(pid) for pid in processes.servers(self.home)}
            raise AssertionError(f"still there: {left}") from late

    async def let_leases_end(self) -> None:
        """What the clock does to the leases of a dead server, without waiting for it.

        Only while no server runs: whoever lives renews its own.
        """
        assert not processes.servers(self.home)
        await self.fetch("UPDATE mailbox_messages SET lease_until = now() WHERE status = 'dispatched'")
        await self.fetch("UPDATE workspace_slots SET until = now() WHERE until > now()")
        await self.fetch("UPDATE workspaces SET lease_until = now() WHERE lease_until > now()")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")[-6000:]

    async def close(self) -> None:
        """Leave nothing behind."""
        await self._http.aclose()
        if self._pool is not None:
            self._pool.terminate()
        if self._main is not None:
            self.kill_server()
            await self._main.wait()
        self._database.stop()
        await wait_for(lambda: processes.end_all(self.home), 20)


@asynccontextmanager
async def house(**settings: object) -> AsyncIterator[House]:
    """A house in a path with a space."""
    with tempfile.TemporaryDirectory(prefix="molecule chaos ", ignore_cleanup_errors=True) as folder:
        built = House(Path(folder) / "home", **settings)
        try:
            await built.start()
            yield built
        finally:
            await built.close()
