"""`molecule token`: bearers of single workspaces."""

from __future__ import annotations

from typing import Annotated

import typer

from .naming import Workspace, workspace_id
from .session import Session

app = typer.Typer(help="Mint, list and revoke workspace tokens.", no_args_is_help=True)


@app.command("list")
def list_tokens(context: typer.Context, workspace: Workspace) -> None:
    """List a workspace's live tokens."""
    session: Session = context.obj
    session.table(
        session.call("GET", f"/workspaces/{workspace_id(session, workspace)}/tokens")["tokens"],
        {"ID": "id", "PREFIX": "prefix", "KIND": "kind", "NAME": "name", "LAST USED": "last_used_at"},
        empty="No live tokens.",
    )


@app.command()
def mint(
    context: typer.Context,
    workspace: Workspace,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Mint a token for a workspace; it is shown this once."""
    session: Session = context.obj
    path = f"/admin/workspaces/{workspace_id(session, workspace)}/tokens"
    made = session.call("POST", path, body={"name": name} if name else {})
    typer.echo(made["message"], err=True)
    session.show(made, made["auth_token"])


@app.command()
def revoke(
    context: typer.Context,
    workspace: Workspace,
    token: Annotated[str, typer.Argument(help="Id of the token.")],
) -> None:
    """Revoke a token at once."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/tokens/{token}"
    session.show(session.call("DELETE", path), f"Revoked {token}.")
