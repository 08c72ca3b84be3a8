"""`molecule org`: bring in whole organizations, and the keys of this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .session import Session

app = typer.Typer(help="Import organizations and manage org API keys.", no_args_is_help=True)
keys = typer.Typer(help="Org API keys: power over the whole organization.", no_args_is_help=True)
app.add_typer(keys, name="token")


@app.command("import")
def import_org(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="An org.yaml file, or the name of an org template.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the plan, change nothing.")
    ] = False,
    mode: Annotated[str, typer.Option(help="merge or reconcile.")] = "merge",
    force: Annotated[bool, typer.Option(help="Do not insist on required environment variables.")] = False,
) -> None:
    """Bring up one workspace per role of an organization."""
    session: Session = context.obj
    body: dict[str, Any] = {"mode": mode, "dry_run": dry_run, "force": force}
    file = Path(source)
    if file.is_file():
        body["yaml"] = file.read_text()
    elif file.is_dir():
        typer.echo(
            f"Error: {source} is a folder. A folder is imported by its name once it lies in the server's"
            " ORG_TEMPLATES_DIR; `molecule org templates` lists what the server offers.",
            err=True,
        )
        raise typer.Exit(2)
    else:
        body["dir"] = source
    answer = session.call("POST", "/org/import", body=body, timeout=120)
    lines = [f"{answer['org']}: {answer['count']} workspaces"]
    lines += [
        f"  {w['name']}{'  (was there already)' if w.get('skipped') else ''}" for w in answer["workspaces"]
    ]
    lines += [f"  warning: {warning}" for warning in answer.get("warnings", [])]
    session.show(answer, "\n".join(lines))
    if answer.get("error"):
        typer.echo(f"Error: {answer['error']}", err=True)
        raise typer.Exit(1)


@app.command()
def templates(context: typer.Context) -> None:
    """List the org templates that this server offers."""
    session: Session = context.obj
    rows = session.call("GET", "/org/templates")
    session.table(
        rows,
        {"DIR": "dir", "NAME": "name", "WORKSPACES": "workspaces", "DESCRIPTION": "description"},
        empty="No org templates found.",
    )


@keys.command("list")
def list_keys(context: typer.Context) -> None:
    """List the live org API keys."""
    session: Session = context.obj
    session.table(
        session.call("GET", "/org/tokens")["tokens"],
        {
            "ID": "id",
            "PREFIX": "prefix",
            "NAME": "name",
            "CREATED BY": "created_by",
            "CREATED AT": "created_at",
        },
        empty="No org API keys.",
    )


@keys.command("create")
def create_key(
    context: typer.Context, name: Annotated[str, typer.Option(help="What it is for.")] = ""
) -> None:
    """Mint an org API key; it is shown this once."""
    session: Session = context.obj
    made = session.call("POST", "/org/tokens", body={"name": name} if name else {})
    typer.echo(made["warning"], err=True)
    session.show(made, made["auth_token"])


@keys.command("revoke")
def revoke_key(context: typer.Context, key: Annotated[str, typer.Argument(help="Id of the key.")]) -> None:
    """Revoke an org API key at once."""
    session: Session = context.obj
    session.show(session.call("DELETE", f"/org/tokens/{key}"), f"Revoked {key}.")
