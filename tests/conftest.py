"""Real PostgreSQL for every test: a template made by the migrations, cloned for each test that needs it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import asyncpg
import httpx
import msgspec
import pytest

from molecule_ai.host.postgres import EmbeddedPostgres, program
from molecule_ai.kernel import migrations
from molecule_ai.server.app import Server, running
from molecule_ai.server.settings import Settings
from tests.containers.podman import NoEngine, Podman, engine

ADMIN_TOKEN = "test-admin-token-0123456789abcdef"

MakeServer = Callable[..., Awaitable[Server]]


class _NoParameters:
    params: ClassVar[dict[str, object]] = {}


_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Keep random ids out of test names: parallel workers must collect the same ones."""
    text = str(val) if isinstance(val, str | uuid.UUID) else ""
    return _UUID.sub("uuid", text) if _UUID.search(text) else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "settings(**values): settings of the server under test")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands on SQL, so that it can be run on another PostgreSQL without the rest.

    What needs containers goes to one worker, because there is one engine.
    """
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "containers" in names or "docker" in getattr(item, "callspec", _NoParameters).params.values():
            item.add_marker(pytest.mark.xdist_group("containers"))
            item.add_marker("containers")
            if item.path.name == "test_files.py":
                item.add_marker("exhaustive")
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server-level DSN: `TEST_DATABASE_URL` if given, else an embedded PostgreSQL of this test process."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    # Not below pytest's own folder: every session that starts closes that one to other users, and the
    # database may run as one of them.
    with tempfile.TemporaryDirectory(prefix="molecule-pg-", ignore_cleanup_errors=True) as name:
        server = EmbeddedPostgres(Path(name))
        dsn = server.start()
        try:
            _forget_durability(dsn)
            yield dsn
        finally:
            server.stop()


def _forget_durability(dsn: str) -> None:
    """Nothing outlives the tests, so nothing has to reach the disk."""
    commands = ["ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off"]
    arguments = [part for command in [*commands, "SELECT pg_reload_conf()"] for part in ("-c", command)]
    subprocess.run([program("psql"), "-q", "-d", dsn, *arguments], check=True, stdout=subprocess.DEVNULL)


def _named(dsn: str, database: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


@pytest.fixture(scope="session")
def containers() -> Iterator[Podman]:
    """A container engine of the tests' own. Where none can run, the test is skipped and says why."""
    with ExitStack() as stack:
        try:
            podman = stack.enter_context(engine())
        except (NoEngine, OSError, subprocess.SubprocessError) as reason:
            pytest.skip(f"no container engine: {reason}")
        yield podman


@pytest.fixture(scope="session")
async def template(postgres: str) -> AsyncIterator[str]:
    """The name of a database with all migrations applied."""
    name = f"template_{uuid.uuid4().hex[:8]}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f'CREATE DATABASE "{name}"')
    await migrations.upgrade(_named(postgres, name), migrations.load())
    yield name
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


@pytest.fixture
async def dsn(postgres: str, template: str) -> AsyncIterator[str]:
    """A fresh migrated database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres)
    try:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        yield _named(postgres, name)
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@pytest.fixture
async def make_server(dsn: str, tmp_path: Path) -> AsyncIterator[MakeServer]:
    """Start replicas on one database; engines only when asked for (`engines=True`)."""
    async with AsyncExitStack() as stack:

        async def make(*, engines: bool = False, **values: Any) -> Server:
            defaults = {
                "database_url": dsn,
                "molecule_home": str(tmp_path / "home"),
                "admin_token": ADMIN_TOKEN,
                "provisioner": "none",
                "rate_limit": 1_000_000,
            }
            settings = msgspec.convert(defaults | values, Settings)
            return await stack.enter_async_context(running(Server(settings), engines=engines))

        yield make


@pytest.fixture
async def server(make_server: MakeServer, request: pytest.FixtureRequest) -> Server:
    """One replica without running engines; settings from `@pytest.mark.settings(...)`."""
    marker = request.node.get_closest_marker("settings")
    return await make_server(**(marker.kwargs if marker else {}))


def connect(server: Server, token: str = "") -> httpx.AsyncClient:
    """A client of `server` in this process; `token` goes into the Authorization header."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=server.app, raise_app_exceptions=False),
        base_url="http://molecule.test",
        headers={"authorization": f"Bearer {token}"} if token else {},
    )


@pytest.fixture
async def anonymous(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a credential."""
    async with connect(server) as client:
        yield client


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the admin token."""
    async with connect(server, ADMIN_TOKEN) as client:
        yield client
