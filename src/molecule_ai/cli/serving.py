"""`molecule serve` and `molecule up`."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from molecule_ai.host import serve as host
from molecule_ai.host.lock import AlreadyRunning
from molecule_ai.host.postgres import PostgresFailed
from molecule_ai.kernel.migrations import ChangedMigration
from molecule_ai.server.settings import BadSetting
from molecule_ai.server.tokens.bootstrap import admin_token


def serve(*, port: int, workers: int, home: str) -> None:
    """Serve with the settings of the environment, as contract 01 section 5 has them."""
    _run({"PORT": str(port), "WORKERS": str(workers or _cores()), "MOLECULE_HOME": _absolute(home)})


def up(*, port: int, workers: int, home: str) -> None:
    """Serve on loopback, strict, with an admin token made at the first start."""
    folder = Path(_absolute(home))
    token, is_new = admin_token(folder)
    address = os.environ.get("BIND_ADDR") or "127.0.0.1"
    chosen = host.free_port(port, address)
    if chosen != port:
        typer.echo(f"Port {port} is taken, using {chosen}.")
    typer.echo(f"Molecule on http://{address}:{chosen}  (API browser: /docs, data: {folder})")
    if is_new:
        typer.echo(f"Admin token, shown once: {token}")
    typer.echo(f"The admin token is kept in {folder / 'admin-token'}. Ctrl-C stops everything.")
    _run(
        {
            "PORT": str(chosen),
            "WORKERS": str(workers or _cores()),
            "MOLECULE_HOME": str(folder),
            "BIND_ADDR": address,
            "ADMIN_TOKEN": os.environ.get("ADMIN_TOKEN") or token,
            "MOLECULE_STRICT_AUTH": os.environ.get("MOLECULE_STRICT_AUTH") or "1",
        },
        with_agents=True,
    )


def _run(overrides: dict[str, str], *, with_agents: bool = False) -> None:
    try:
        host.run(host.prepare(overrides), with_agents=with_agents)
    except (AlreadyRunning, BadSetting, ChangedMigration, PostgresFailed, host.WorkersFailed) as problem:
        typer.echo(f"Error: {problem}", err=True)
        raise typer.Exit(1) from problem


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _absolute(home: str) -> str:
    return str(Path(home).expanduser().absolute())
