"""Numbered pairs of SQL files, applied under an advisory lock and recorded with a checksum.

`NNN_name.up.sql` and `NNN_name.down.sql` lie in the package `molecule_ai.migrations.<server>`. Each file
is idempotent and runs in one transaction. A recorded file whose text changed stops the boot:
history is never edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources

import asyncpg

_LOCK = 0x4D4F4C45  # "MOLE": one migrator at a time per database
_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        filename text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"""


class ChangedMigration(Exception):
    """An applied migration file was edited."""


@dataclass(frozen=True)
class Migration:
    """One step: its name without suffix, the SQL of both directions, the checksum of `up`."""

    name: str
    up: str
    down: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.up.encode()).hexdigest()


def load(server: str = "tenant") -> list[Migration]:
    """Read the migrations of a server in order of their number."""
    folder = resources.files("molecule_ai.migrations") / server
    names = sorted(f.name.removesuffix(".up.sql") for f in folder.iterdir() if f.name.endswith(".up.sql"))
    return [
        Migration(name, (folder / f"{name}.up.sql").read_text(), (folder / f"{name}.down.sql").read_text())
        for name in names
    ]


@asynccontextmanager
async def _locked(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_TABLE)
        yield connection
    finally:
        await connection.close()


async def _recorded(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    rows = await connection.fetch("SELECT filename, checksum FROM schema_migrations")
    return {row["filename"]: row["checksum"] for row in rows}


async def status(dsn: str, migrations: list[Migration]) -> list[tuple[Migration, bool]]:
    """Each migration and whether it is applied."""
    async with _locked(dsn) as connection:
        recorded = await _recorded(connection)
    return [(migration, migration.name in recorded) for migration in migrations]


async def upgrade(dsn: str, migrations: list[Migration]) -> list[str]:
    """Apply what is missing, in order; return the names applied. Raises `ChangedMigration`."""
    applied = []
    async with _locked(dsn) as connection:
        recorded = await _recorded(connection)
        for migration in migrations:
            if migration.name in recorded:
                if recorded[migration.name] != migration.checksum:
                    raise ChangedMigration(f"{migration.name}.up.sql differs from the one applied")
                continue
            async with connection.transaction():
                await connection.execute(migration.up)
                await connection.execute(
                    "INSERT INTO schema_migrations (filename, checksum) VALUES ($1, $2)",
                    migration.name,
                    migration.checksum,
                )
            applied.append(migration.name)
    return applied


async def downgrade(dsn: str, migrations: list[Migration], steps: int) -> list[str]:
    """Revert the newest `steps` applied migrations; return their names."""
    reverted = []
    async with _locked(dsn) as connection:
        recorded = await _recorded(connection)
        applied = [migration for migration in migrations if migration.name in recorded]
        for migration in reversed(applied[-steps:] if steps else []):
            async with connection.transaction():
                await connection.execute(migration.down)
                await connection.execute("DELETE FROM schema_migrations WHERE filename = $1", migration.name)
            reverted.append(migration.name)
    return reverted
