"""`molecule serve` and `molecule up`."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import typer

from molecule_ai.host import serve as host
from molecule_ai.host.lock import AlreadyRunning
from molecule_ai.host.postgres import PostgresFailed
from molecule_ai.host.workers import WorkersFailed
from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.kernel.migrations import ChangedMigration
from molecule_ai.server.openings import announce
from molecule_ai.server.refresh import refreshed
from molecule_ai.server.settings import BadSetting
from molecule_ai.server.tokens.bootstrap import admin_token

_TOLD = (AlreadyRunning, BadSetting, ChangedMigration, DatastoreUnavailable, PostgresFailed, WorkersFailed)


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
    lines = [f"Molecule on http://{address}:{chosen}  (API browser: /docs, data: {folder})"]
    if is_new:
        lines.append(f"Admin token, shown once: {token}")
    lines.append(f"The admin token is kept in {folder / 'admin-token'}. Ctrl-C stops everything.")
    typer.echo("Starting …")
    _once_it_answers(host.reachable(address), chosen, "\n".join(lines))
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
        settings = host.prepare(overrides)
        told = asyncio.run(refreshed(settings))
        if told:
            os.environ.update(told)
            settings = host.prepare(overrides)
        announce(settings)
        host.run(settings, with_agents=with_agents)
    except _TOLD as problem:
        typer.echo(f"Error: {problem}", err=True)
        raise typer.Exit(1) from problem


def _once_it_answers(address: str, port: int, text: str) -> None:
    """Print the text when the server answers, so that what it says is true for whoever reads it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def watch() -> None:
        while True:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.connect((address.strip("[]"), port))
                    probe.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                    if probe.recv(16):
                        break
            except OSError:
                pass
            time.sleep(0.05)
        typer.echo(text)

    threading.Thread(target=watch, name="announce", daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _absolute(home: str) -> str:
    return str(Path(home).expanduser().absolute())
