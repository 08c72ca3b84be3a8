"""The pool, transactions, and rows as typed structs. SQL itself lives in the rooms' `store.py`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, LiteralString, TypeAlias, TypeVar

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from .errors import DatastoreUnavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
T = TypeVar("T")

# What a lost or starting PostgreSQL raises while a statement runs; anything else is our bug.
LOST = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DeadlockDetectedError,  # undone by PostgreSQL to let the other one through; safe to repeat
    asyncpg.SerializationError,
    asyncpg.InternalClientError,  # a connection that got PostgreSQL's last word and is not closed yet
)
# Connecting and waiting for a free connection fail in these ways too.
AWAY = (*LOST, OSError, asyncio.TimeoutError)

_RETRY_SECONDS = 0.2

_committed: dict[int, list[Callable[[], None]]] = {}  # by the connection of each open transaction

_encoder = msgspec.json.Encoder()


def encode_json(value: Any) -> str:
    """JSON that PostgreSQL takes: without NUL characters."""
    return _encoder.encode(value).decode().replace("\\u0000", "")


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=encode_json, decoder=msgspec.json.decode, schema="pg_catalog", format="text"
    )


async def _keep(_: Connection) -> None:
    """Nothing to reset: pooled connections hold no locks, listeners or settings beyond a transaction.

    The driver's own reset is a round trip, and costs as much as the statement before it.
    """


class Database:
    """One pool. Every read and write goes through `connection` or `transaction`."""

    def __init__(self, dsn: str, *, max_connections: int = 8, acquire_timeout_seconds: float = 10.0) -> None:
        self.dsn = dsn
        self._max_connections = max_connections
        self._acquire_timeout = acquire_timeout_seconds
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self, *, patience_seconds: float = 30.0) -> None:
        """Connect; a PostgreSQL that is on its way up is waited for. Raises `DatastoreUnavailable`."""
        deadline = time.monotonic() + patience_seconds
        while self._pool is None:
            try:
                self._pool = await self._connect_all()
            except AWAY as away:
                if time.monotonic() > deadline:
                    raise DatastoreUnavailable from away
                await asyncio.sleep(_RETRY_SECONDS)

    async def _connect_all(self) -> asyncpg.Pool[asyncpg.Record]:
        return await asyncpg.create_pool(
            self.dsn,
            min_size=1,
            max_size=self._max_connections,
            init=_prepare,
            reset=_keep,
            max_queries=10_000_000,  # a renewed connection would plan every statement afresh
            max_inactive_connection_lifetime=60,
            command_timeout=60,
            # Our statements are short: compiling one costs more than running it.
            server_settings={"application_name": "molecule", "timezone": "UTC", "jit": "off"},
        )

    async def close(self) -> None:
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout=5)
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    @property
    def in_use(self) -> int:
        """Connections handed out right now."""
        return 0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reads. Raises `DatastoreUnavailable` when PostgreSQL is away."""
        if self._pool is None:
            raise DatastoreUnavailable
        try:
            connection = await self._pool.acquire(timeout=self._acquire_timeout)
        except AWAY as away:
            raise DatastoreUnavailable from away
        try:
            yield connection
        except LOST as lost:
            raise DatastoreUnavailable from lost
        finally:
            with contextlib.suppress(*AWAY):  # it broke when its work was done
                await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        async with self.connection() as connection:
            callbacks = _committed.setdefault(id(connection), [])
            try:
                async with connection.transaction():
                    yield connection
            finally:
                _committed.pop(id(connection), None)
        for callback in callbacks:
            callback()

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, for LISTEN and advisory locks; the caller closes it."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self.dsn, server_settings={"application_name": "molecule-listen", "timezone": "UTC"}
        )
        await _prepare(connection)
        return connection


def after_commit(tx: Connection, callback: Callable[[], None]) -> None:
    """Call back once the `transaction` that gave `tx` is committed, never when it is rolled back.

    In a transaction that the caller opened by other means it is called at once.
    """
    callbacks = _committed.get(id(tx))
    if callbacks is None:
        callback()
    else:
        callbacks.append(callback)


def to_struct(kind: type[T], row: Iterable[tuple[str, Any]]) -> T:
    """Turn a row into a struct; columns the struct does not name are ignored, so that an older
    replica survives a new column."""
    return msgspec.convert(dict(row), kind, strict=False)


async def first(connection: Connection, kind: type[T], sql: LiteralString, *args: Any) -> T | None:
    """The first row as `kind`, or None."""
    row = await connection.fetchrow(sql, *args)
    return None if row is None else to_struct(kind, row.items())


async def one(connection: Connection, kind: type[T], sql: LiteralString, *args: Any) -> T:
    """The only row as `kind`; a statement that returns none is a bug."""
    found = await first(connection, kind, sql, *args)
    if found is None:
        raise LookupError("the statement returned no row")
    return found


async def many(connection: Connection, kind: type[T], sql: LiteralString, *args: Any) -> list[T]:
    """All rows as `kind`."""
    return [to_struct(kind, row.items()) for row in await connection.fetch(sql, *args)]


def affected(status: str) -> int:
    """Rows touched, from the status line of `execute` ("UPDATE 3")."""
    return int(status.rsplit(" ", 1)[-1])


async def now(connection: Connection) -> datetime:
    """The database's clock: the one that decides between processes."""
    instant: datetime = await connection.fetchval("SELECT now()")
    return instant
