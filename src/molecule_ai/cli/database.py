"""`molecule db`: the schema's history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from molecule_ai.host.lock import AlreadyRunning, HomeLock
from molecule_ai.host.postgres import EmbeddedPostgres
from molecule_ai.host.serve import prepare
from molecule_ai.kernel import migrations

app = typer.Typer(help="Show and change the schema version.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
def status(as_json: Json = False) -> None:
    """List the migrations and whether each is applied."""
    with _database() as dsn:
        rows = asyncio.run(migrations.status(dsn, migrations.load()))
    if as_json:
        typer.echo(json.dumps([{"name": m.name, "applied": done} for m, done in rows]))
        return
    for migration, done in rows:
        typer.echo(f"{'applied' if done else 'missing':8} {migration.name}")


@app.command()
def upgrade(as_json: Json = False) -> None:
    """Apply the missing migrations."""
    with _database() as dsn:
        names = asyncio.run(migrations.upgrade(dsn, migrations.load()))
    _report("applied", names, as_json)


@app.command()
def downgrade(
    steps: Annotated[int, typer.Option(help="How many migrations to revert.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Revert the newest migrations."""
    with _database() as dsn:
        names = asyncio.run(migrations.downgrade(dsn, migrations.load(), steps))
    _report("reverted", names, as_json)


def _report(verb: str, names: list[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({verb: names}))
    else:
        typer.echo("\n".join(f"{verb} {name}" for name in names) or f"nothing {verb}")
