"""`molecule workspace`: the org chart, and each workspace's fields."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any
from urllib.parse import quote

import typer

from . import workspace_agents, workspace_lifecycle, workspace_settings, workspace_talk
from .naming import Workspace, complete, workspace_id, workspace_row
from .session import Session
from .waiting import RUNNING, Timeout, Wait, watch

app = typer.Typer(help="Create, watch and steer workspaces.", no_args_is_help=True)

_COLUMNS = {
    "ID": "id",
    "NAME": "name",
    "STATUS": "status",
    "ROLE": "role",
    "RUNTIME": "runtime",
    "CREATED AT": "created_at",
}
Tier = Annotated[int | None, typer.Option(min=1, max=4, help="Resources, 1 to 4.")]
Parent = Annotated[
    str | None,
    typer.Option("--parent", "--parent-id", help="Workspace above, by name or id.", autocompletion=complete),
]
Directory = Annotated[str | None, typer.Option("--workspace-dir", help="Host folder to work in.")]
Access = Annotated[
    str | None, typer.Option("--workspace-access", help="To that folder: none, read_only, read_write.")
]
Tasks = Annotated[int | None, typer.Option("--max-tasks", min=1, help="Tasks it may have at once.")]
Idle = Annotated[
    int | None, typer.Option("--hibernate-after", min=0, help="Idle minutes until it sleeps; 0: never.")
]


@app.command("list")
def list_workspaces(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Only this runtime.")] = None,
    parent: Parent = None,
    roots: Annotated[bool, typer.Option(help="Only those without a parent.")] = False,
    search: Annotated[str | None, typer.Option("--search", "-q", help="Part of the name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=1000, help="At most so many.")] = None,
) -> None:
    """List the organization's workspaces, oldest first."""
    session: Session = context.obj
    above = "null" if roots else workspace_id(session, parent) if parent else None
    rows = session.call(
        "GET", "/workspaces", status=status, runtime=runtime, parent_id=above, q=search, limit=limit
    )
    session.table(rows, _COLUMNS, empty="No workspaces found.")


@app.command()
def tree(context: typer.Context) -> None:
    """Draw the org chart with each role's status."""
    session: Session = context.obj
    rows = session.call("GET", "/workspaces")
    if session.output != "table":
        session.show(rows)
        return
    children: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows:
        children.setdefault(row["parent_id"], []).append(row)
    known = {row["id"] for row in rows}

    def draw(row: dict[str, Any], indent: str) -> None:
        typer.echo(f"{indent}{row['name']}  [{row['status']}]")
        for child in children.get(row["id"], []):
            draw(child, indent + "  ")

    for root in (row for row in rows if row["parent_id"] not in known):
        draw(root, "")
    if not rows:
        typer.echo("No workspaces found.")


@app.command()
def audit(context: typer.Context) -> None:
    """Count workspaces by status, and the agents that occupy them."""
    session: Session = context.obj
    rows, agents = session.call("GET", "/workspaces"), session.call("GET", "/agents")
    by_status = dict(Counter(row["status"] for row in rows))
    told = {
        "workspaces": len(rows),
        "agents": len(agents),
        "by_status": by_status,
        "workspaces_list": rows,
        "agents_list": agents,
    }
    lines = [f"{len(rows)} workspaces, {len(agents)} agents"]
    session.show(told, "\n".join([*lines, *(f"  {name}: {count}" for name, count in by_status.items())]))


@app.command("get")
@app.command("inspect", hidden=True)
def get_workspace(context: typer.Context, workspace: Workspace) -> None:
    """Show one workspace with every field."""
    session: Session = context.obj
    session.show(workspace_row(session, workspace))


@app.command()
def state(context: typer.Context, workspace: Workspace) -> None:
    """Show what an agent that polls is told: may it go on?"""
    session: Session = context.obj
    answer = session.call("GET", f"/workspaces/{workspace_id(session, workspace)}/state")
    session.show(answer, f"{answer['status']}{'  (paused)' if answer['paused'] else ''}")


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the role.")],
    role: Annotated[str | None, typer.Option(help="What the role is for.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime, such as langgraph, command, echo.")] = None,
    model: Annotated[str | None, typer.Option(help="provider:model, or offline:demo.")] = None,
    template: Annotated[str | None, typer.Option(help="Workspace template.")] = None,
    parent: Parent = None,
    workspace_dir: Directory = None,
    workspace_access: Access = None,
    tier: Tier = None,
    max_tasks: Tasks = None,
    hibernate_after: Idle = None,
    secret: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")] = None,
    external: Annotated[bool, typer.Option(help="The agent runs elsewhere.")] = False,
    url: Annotated[str | None, typer.Option(help="Where an external agent answers.")] = None,
    poll: Annotated[bool, typer.Option(help="An external agent fetches its messages itself.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Create a workspace; of an external one, print how its agent connects."""
    session: Session = context.obj
    given = {
        "name": name,
        "role": role,
        "runtime": runtime,
        "model": model,
        "template": template,
        "parent_id": workspace_id(session, parent) if parent else None,
        "workspace_dir": workspace_dir,
        "workspace_access": workspace_access,
        "tier": tier,
        "max_concurrent_tasks": max_tasks,
        "hibernation_idle_minutes": hibernate_after,
        "secrets": dict(workspace_settings.pair(text) for text in secret) if secret else None,
        "external": external or bool(url) or poll or None,
        "url": url,
        "delivery_mode": "poll" if poll else None,
    }
    made = session.call("POST", "/workspaces", body={k: v for k, v in given.items() if v is not None})
    for warning in made.get("warnings", []):
        typer.echo(f"Warning: {warning['message']}", err=True)
    if wait:
        made |= watch(session, made["id"], RUNNING, timeout)
    lines = [f"Workspace created: {made.get('name', name)} ({made['id']}), {made['status']}"]
    if connection := made.get("connection"):
        lines += workspace_settings.connection_lines(connection)
    session.show(made, "\n".join(lines))


@app.command()
def update(
    context: typer.Context,
    workspace: Workspace,
    name: Annotated[str | None, typer.Option("--name", "-n", help="New name.")] = None,
    role: Annotated[str | None, typer.Option(help="What the role is for.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime of the next start.")] = None,
    parent: Parent = None,
    root: Annotated[bool, typer.Option("--root", help="Let it stand below nobody.")] = False,
    workspace_dir: Directory = None,
    workspace_access: Access = None,
    tier: Tier = None,
    max_tasks: Tasks = None,
    hibernate_after: Idle = None,
    x: Annotated[float | None, typer.Option(help="Place on the canvas.")] = None,
    y: Annotated[float | None, typer.Option(help="Place on the canvas.")] = None,
    collapsed: Annotated[bool | None, typer.Option("--collapsed/--unfolded", help="On the canvas.")] = None,
) -> None:
    """Change fields: all that are given, or none of them."""
    session: Session = context.obj
    given: dict[str, Any] = {
        "name": name,
        "role": role,
        "runtime": runtime,
        "parent_id": workspace_id(session, parent) if parent else None,
        "workspace_dir": workspace_dir,
        "workspace_access": workspace_access,
        "tier": tier,
        "max_concurrent_tasks": max_tasks,
        "hibernation_idle_minutes": hibernate_after,
        "x": x,
        "y": y,
        "collapsed": collapsed,
    }
    body = {key: value for key, value in given.items() if value is not None}
    if root:
        body["parent_id"] = None
    if not body:
        raise typer.BadParameter("say what to change; see --help")
    answer = session.call("PATCH", f"/workspaces/{workspace_id(session, workspace)}", body=body)
    note = "; restart it, so that its agent knows" if answer.get("needs_restart") else ""
    session.show(answer, f"Updated{note}.")


@app.command()
def delete(
    context: typer.Context,
    workspace: Workspace,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    confirm_name: Annotated[str, typer.Option(help="The workspace's name, instead of typing it.")] = "",
    purge: Annotated[bool, typer.Option(help="Remove rows and files at once.")] = False,
) -> None:
    """Delete a workspace and everything below it; files are kept for a week unless --purge."""
    session: Session = context.obj
    row = workspace_row(session, workspace)
    name = row["name"]
    typed = confirm_name or (
        name if yes else typer.prompt(f"Type the name of the workspace to delete it ({name})")
    )
    answer = session.request(
        "DELETE",
        f"/workspaces/{row['id']}",
        params={"confirm": "true", "purge": "true" if purge else None},
        headers={"X-Confirm-Name": typed if typed.isascii() else quote(typed)},
    ).json()
    below = f" with {answer['cascade_deleted']} below it" if answer["cascade_deleted"] else ""
    session.show(answer, f'Workspace "{name}" deleted{below}.')


for part in (workspace_lifecycle, workspace_talk, workspace_settings, workspace_agents):
    part.add_to(app)
