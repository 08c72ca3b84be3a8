"""`molecule api`: any route of the server."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from .session import Session


def api(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="GET, POST, PUT, PATCH or DELETE.")],
    path: Annotated[str, typer.Argument(help="Path, such as /workspaces.")],
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="JSON body; `-` reads standard input.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", help="`Name: value`, repeatable.")
    ] = None,
) -> None:
    """Call any route and print what it answers."""
    session: Session = context.obj
    text = sys.stdin.read() if data == "-" else data
    try:
        body = None if text is None else json.loads(text)
    except ValueError as problem:
        raise typer.BadParameter(f"not JSON: {problem}", param_hint="--data") from problem
    headers = dict(_split(line) for line in header or [])
    answer = session.request(method.upper(), "/" + path.lstrip("/"), body=body, headers=headers)
    if "json" in answer.headers.get("content-type", ""):
        typer.echo(json.dumps(answer.json(), indent=2, ensure_ascii=False))
    else:
        typer.echo(answer.text, nl=False)


def _split(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise typer.BadParameter(f"not `Name: value`: {line}", param_hint="--header")
    return name.strip(), value.strip()
