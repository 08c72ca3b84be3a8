"""`molecule workspace agent`: which model occupies a role."""

from __future__ import annotations

from typing import Annotated

import typer

from .naming import Workspace, complete, workspace_id
from .session import Session

agents = typer.Typer(help="Which model occupies a role.", no_args_is_help=True)

Model = Annotated[str, typer.Argument(help="provider:model.")]
Restart = Annotated[bool, typer.Option("--restart/--no-restart", help="Let it take effect at once.")]


@agents.command("list")
def list_agents(
    context: typer.Context,
    workspace: Annotated[
        str | None, typer.Argument(help="Name, path or id; nothing: everybody.", autocompletion=complete)
    ] = None,
) -> None:
    """List who occupies the roles."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/agents" if workspace else "/agents"
    columns = {"ID": "id", "NAME": "name", "STATUS": "status", "MODEL": "model", "RUNTIME": "runtime"}
    session.table(session.call("GET", path), columns, empty="No agents.")


@agents.command()
def assign(context: typer.Context, workspace: Workspace, model: Model, restart: Restart = True) -> None:
    """Give an empty role to a model."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/agent"
    answer = session.call("POST", path, body={"model": model}, restart=None if restart else "false")
    session.show(answer, f"Assigned: {answer['model']}.")


@agents.command()
def replace(context: typer.Context, workspace: Workspace, model: Model, restart: Restart = True) -> None:
    """Give an occupied role to another model."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/agent"
    answer = session.call("PATCH", path, body={"model": model}, restart=None if restart else "false")
    session.show(answer, f"{answer['old_model']} was replaced by {answer['model']}.")


@agents.command()
def remove(context: typer.Context, workspace: Workspace) -> None:
    """End the occupancy in the ledger; what runs goes on running."""
    session: Session = context.obj
    answer = session.call("DELETE", f"/workspaces/{workspace_id(session, workspace)}/agent")
    session.show(answer, f"Removed agent {answer['agent_id']}.")


@agents.command()
def move(
    context: typer.Context,
    workspace: Workspace,
    target: Annotated[str, typer.Argument(help="The empty role.", autocompletion=complete)],
) -> None:
    """Hand the occupant of one role to another, empty one."""
    session: Session = context.obj
    body = {"target_workspace_id": workspace_id(session, target)}
    answer = session.call("POST", f"/workspaces/{workspace_id(session, workspace)}/agent/move", body=body)
    session.show(answer, f"{answer['model']} moved.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(agents, name="agent")
