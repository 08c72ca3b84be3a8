"""The `molecule` command: one module per group of verbs, imported only when it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from molecule_ai import __version__

app = typer.Typer(
    name="molecule",
    help="Run and steer an organization of AI agents.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"molecule {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    api_url: Annotated[str, typer.Option(help="Server to talk to; default: the one running here.")] = "",
    token: Annotated[
        str, typer.Option(help="Bearer; default: MOLECULE_API_KEY, or the local admin token.")
    ] = "",
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output json.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say each request.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run and steer an organization of AI agents. Options of this level may stand anywhere."""
    from .session import settle

    context.obj = settle(
        api_url=api_url, token=token, output="json" if as_json else output, verbose=verbose, config=config
    )


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


# Each verb or group of verbs and its module: loading all of them would take longer than most verbs do.
_GROUPS = {
    "workspace": "workspaces",
    "org": "orgs",
    "token": "tokens",
    "events": "events",
    "db": "database",
}
_VERBS = ("demo", "doctor", "api", "openapi")


def _add(verb: str) -> None:
    if verb in _GROUPS:
        app.add_typer(import_module(f".{_GROUPS[verb]}", __package__).app, name=verb)
    elif verb in _VERBS:
        app.command(verb)(getattr(import_module(f".{verb}", __package__), verb))


_FLAGS = {"--json", "--verbose", "-v"}
_OPTIONS = {"--api-url", "--token", "--output", "-o", "--config"}


def hoist(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options of the first level, wherever they stand before `--`, and all the rest."""
    first, rest = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in _FLAGS or (argument.split("=", 1)[0] in _OPTIONS and "=" in argument):
            first.append(argument)
        elif argument in _OPTIONS:
            first += [argument, *([value] if (value := next(waiting, None)) is not None else [])]
        else:
            rest.append(argument)
    return first, rest


def main() -> None:
    """Entry point. `molecule agent` loads nothing that the agent does not need."""
    if sys.argv[1:] == ["agent"]:
        agent()
        return
    import httpx

    from .session import Refused, fail

    options, rest = hoist(sys.argv[1:])
    known = rest[:1] if rest[:1] and rest[0] in {*_GROUPS, *_VERBS} else [*_GROUPS, *_VERBS]
    for verb in known:
        _add(verb)
    try:
        app(options + rest)
    except (Refused, httpx.TransportError) as problem:
        fail(problem)
