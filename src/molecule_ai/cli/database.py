"""`molecule db`: the schema's history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from molecule_ai.host.lock import AlreadyRunning, HomeLock
from molecule_ai.host.postgres import EmbeddedPostgres
from molecule_ai.host.serve import prepare
from molecule_ai.kernel import migrations

from .session import Session

app = typer.Typer(help="Show and change the schema version.", no_args_is_help=True)


@contextmanager
def _database() -> Iterator[str]:
    """The configured database; the embedded one is started for the time of the command."""
    settings = prepare({})
    if settings.database_url:
        yield settings.database_url
        return
    postgres = EmbeddedPostgres(settings.home)
    try:
        lock = HomeLock(settings.home)
    except AlreadyRunning:
        yield postgres.dsn
        return
    try:
        yield postgres.start()
    finally:
        postgres.stop()
        lock.release()


@app.command()
def status(context: typer.Context) -> None:
    """List the migrations and whether each is applied."""
    with _database() as dsn:
        rows = asyncio.run(migrations.status(dsn, migrations.load()))
    session: Session = context.obj
    session.show(
        [{"name": m.name, "applied": done} for m, done in rows],
        "\n".join(f"{'applied' if done else 'missing':8} {migration.name}" for migration, done in rows),
    )


@app.command()
def upgrade(context: typer.Context) -> None:
    """Apply the missing migrations."""
    with _database() as dsn:
        names = asyncio.run(migrations.upgrade(dsn, migrations.load()))
    _report(context.obj, "applied", names)


@app.command()
def downgrade(
    context: typer.Context,
    steps: Annotated[int, typer.Option(help="How many migrations to revert.", min=1)] = 1,
) -> None:
    """Revert the newest migrations."""
    with _database() as dsn:
        names = asyncio.run(migrations.downgrade(dsn, migrations.load(), steps))
    _report(context.obj, "reverted", names)


def _report(session: Session, verb: str, names: list[str]) -> None:
    session.show({verb: names}, "\n".join(f"{verb} {name}" for name in names) or f"nothing {verb}")
