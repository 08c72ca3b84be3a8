import asyncio
import ctypes
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from molecule_ai.host.postgres import EmbeddedPostgres
from molecule_ai.kernel.db import Database
from molecule_ai.kernel.errors import DatastoreUnavailable
from tests.support import wait_for

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a space in its name, in a place that PostgreSQL's own user can reach."""
    with tempfile.TemporaryDirectory(prefix="molecule test ", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "a home"
        home.mkdir()
        yield home


@pytest.fixture
def postgres(home: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home)
    yield server
    server.stop()


async def answer(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


def kill(home: Path) -> int:
    """SIGKILL for the postmaster, whose number is returned."""
    pid = int((home / "postgres" / "postmaster.pid").read_text().split("\n")[0])
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def nobody_buries() -> Iterator[None]:
    """Orphans become children of this process, which does not wait for them: they stay zombies."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


async def test_it_starts_in_a_folder_with_a_space_and_nobody_else_can_reach_its_socket(
    postgres: EmbeddedPostgres, home: Path
) -> None:
    assert await answer(postgres.start()) == 1
    assert (home / "run").stat().st_mode & 0o077 == 0


async def test_a_first_start_that_was_cut_short_is_made_anew(postgres: EmbeddedPostgres, home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "PG_VERSION").write_text("18\n")
    assert await answer(postgres.start()) == 1


async def test_a_killed_server_is_started_again_with_its_data(postgres: EmbeddedPostgres, home: Path) -> None:
    dsn = postgres.start()
    postgres.watch()
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)")
    await connection.close()
    kill(home)

    async def data() -> bool:
        try:
            connection = await asyncpg.connect(dsn)
        except (OSError, asyncpg.PostgresError):
            return False
        try:
            return bool(await connection.fetchval("SELECT x FROM kept") == 7)
        finally:
            await connection.close()

    await wait_for(data, timeout=30)


async def test_a_second_start_finds_the_running_server(postgres: EmbeddedPostgres, home: Path) -> None:
    first = postgres.start()
    again = await asyncio.to_thread(EmbeddedPostgres(home).start)
    assert first == again
    assert await answer(again) == 1


async def test_a_database_on_its_way_up_is_waited_for(postgres: EmbeddedPostgres) -> None:
    dsn = postgres.start()
    postgres.stop()
    database = Database(dsn)
    with pytest.raises(DatastoreUnavailable):
        await database.open(patience_seconds=0)
    opening = asyncio.create_task(database.open())
    await asyncio.to_thread(postgres.start)
    await opening
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await database.close()


async def test_stopping_a_killed_server_is_no_failure(postgres: EmbeddedPostgres, home: Path) -> None:
    postgres.start()
    kill(home)
    postgres.stop()
    assert not postgres.is_running()


async def test_a_killed_server_that_nobody_buries_is_started_again(
    postgres: EmbeddedPostgres, home: Path
) -> None:
    """As in a container whose first process waits for nobody."""
    with nobody_buries():
        postgres.start()
        pid = kill(home)
        await wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        assert not postgres.is_running()
        assert await answer(await asyncio.to_thread(postgres.start)) == 1
    await asyncio.to_thread(os.waitpid, pid, 0)


async def test_a_process_that_got_the_number_of_a_killed_server_is_not_taken_for_it(
    postgres: EmbeddedPostgres, home: Path
) -> None:
    postgres.start()
    pid = kill(home)
    other = await asyncio.create_subprocess_exec("sleep", "1000")
    for lock in (home / "postgres" / "postmaster.pid", home / "run" / ".s.PGSQL.5432.lock"):
        lock.write_text(lock.read_text().replace(str(pid), str(other.pid), 1))
    try:
        assert not postgres.is_running()
        assert await answer(await asyncio.to_thread(postgres.start)) == 1
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_a_start_that_a_killed_server_began_is_waited_for(
    postgres: EmbeddedPostgres, home: Path
) -> None:
    postgres.start()
    await asyncio.to_thread(postgres.stop)
    rival = asyncio.create_task(asyncio.to_thread(EmbeddedPostgres(home).start))
    assert await answer(await asyncio.to_thread(postgres.start)) == 1
    assert await answer(await rival) == 1
