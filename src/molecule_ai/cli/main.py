"""The `molecule` command: one module per group of verbs, imported only when it is used."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from molecule_ai import __version__

app = typer.Typer(
    name="molecule",
    help="Run and steer an organization of AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"molecule {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run and steer an organization of AI agents."""


Port = Annotated[int, typer.Option("--port", "-p", envvar="PORT", help="Listening port.")]
Workers = Annotated[
    int, typer.Option("--workers", "-w", envvar="WORKERS", min=0, help="Server processes; 0: one per core.")
]
Home = Annotated[str, typer.Option("--home", envvar="MOLECULE_HOME", help="Data folder.")]


@app.command()
def serve(port: Port = 8080, workers: Workers = 1, home: Home = "~/.molecule") -> None:
    """Run the tenant server, configured by the environment (see docs/configuration.md)."""
    from .serving import serve as run

    run(port=port, workers=workers, home=home)


@app.command()
def up(port: Port = 8080, workers: Workers = 0, home: Home = "~/.molecule") -> None:
    """Start everything a laptop needs: database, server, agents. Ctrl-C stops all of it."""
    from .serving import up as run

    run(port=port, workers=workers, home=home)


@app.command()
def agent() -> None:
    """Run one workspace's agent, configured by its environment (started by the server)."""
    from molecule_ai.runtime.main import main as run

    run()


def _add_groups() -> None:
    from . import database, document

    app.add_typer(database.app, name="db")
    app.command("openapi")(document.openapi)


def main() -> None:
    """Entry point. `molecule agent` loads nothing that the agent does not need."""
    if sys.argv[1:2] != ["agent"]:
        _add_groups()
    app()
