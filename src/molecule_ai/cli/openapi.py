"""`molecule openapi`: the contract, generated from the types."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import yaml

from molecule_ai.server import openapi as description
from molecule_ai.server.app import Server
from molecule_ai.server.settings import Settings


def openapi(
    context: typer.Context,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Print the OpenAPI document of the tenant server."""
    with TemporaryDirectory() as home:
        server = Server(Settings(molecule_home=home, provisioner="none"))
        document = description.document(server.litestar)
    if context.obj.as_json:
        text = json.dumps(document, indent=2) + "\n"
    else:
        text = yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=100)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
