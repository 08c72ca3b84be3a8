"""The `molecule` command: one module per group of verbs, imported only when it is used."""

from __future__ import annotations

import os
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


# Each verb or group of verbs, its module and its line in the overview: loading all of them would take
# longer than most verbs do. A test compares the lines with what the modules say.
GROUPS = {
    "workspace": ("workspaces", "Create, watch and steer workspaces."),
    "org": ("orgs", "Import organizations and manage org API keys."),
    "token": ("tokens", "Mint, list and revoke workspace tokens."),
    "events": ("events", "Read the event log."),
    "db": ("database", "Show and change the schema version."),
}
VERBS = {
    "demo": "Bring up an organization of agents, give it work, and show what happens.",
    "doctor": "Check this machine; exit status 1 when something needed is missing.",
    "api": "Call any route and print what it answers.",
    "openapi": "Print the OpenAPI document of the tenant server.",
}


def _add(verb: str) -> None:
    if verb in GROUPS:
        app.add_typer(import_module(f".{GROUPS[verb][0]}", __package__).app, name=verb)
    elif verb in VERBS:
        app.command(verb)(getattr(import_module(f".{verb}", __package__), verb))


def _outline() -> None:
    """Name every verb without loading it: enough for the overview, and for what is not known."""
    for verb, (_, line) in GROUPS.items():
        app.add_typer(typer.Typer(help=line), name=verb)
    for verb, line in VERBS.items():
        app.command(verb, help=line)(_nothing)


def _nothing() -> None:
    """Stand in for a verb in the overview."""


def _words() -> list[str]:
    """The words after the program's name, also when a shell asks how they might go on."""
    if any(name.endswith("_COMPLETE") and name.startswith("_") for name in os.environ):
        line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
        return line.split()[1:]
    return sys.argv[1:]


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
    from .naming import NoSuchName
    from .session import Refused, fail
    from .transport import Unreachable
    from .waiting import NotReached

    options, rest = hoist(_words())
    verb = rest[0] if rest else ""
    if verb in GROUPS or verb in VERBS:
        _add(verb)
    else:
        _outline()
    options, rest = hoist(sys.argv[1:])
    try:
        app(options + rest)
    except (Refused, Unreachable, NoSuchName, NotReached) as problem:
        fail(problem)
