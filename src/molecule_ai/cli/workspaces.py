"""`molecule workspace`: the org chart and each workspace's life."""

from __future__ import annotations

import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from .session import Session

app = typer.Typer(help="Create, watch and steer workspaces.", no_args_is_help=True)

_COLUMNS = {
    "ID": "id",
    "NAME": "name",
    "STATUS": "status",
    "ROLE": "role",
    "RUNTIME": "runtime",
    "CREATED AT": "created_at",
}
_SETTLED = {"online", "degraded", "failed", "paused", "hibernated", "awaiting_agent", "removed"}
Id = Annotated[str, typer.Argument(help="Workspace id.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the new state is reached.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]


@app.command("list")
def list_workspaces(
    context: typer.Context, status: Annotated[str | None, typer.Option(help="Only this status.")] = None
) -> None:
    """List the organization's workspaces."""
    session: Session = context.obj
    rows = session.call("GET", "/workspaces", status=status)
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
    roots = [row for row in rows if row["parent_id"] not in known]

    def draw(row: dict[str, Any], indent: str) -> None:
        typer.echo(f"{indent}{row['name']}  [{row['status']}]")
        for child in children.get(row["id"], []):
            draw(child, indent + "  ")

    for root in roots:
        draw(root, "")
    if not rows:
        typer.echo("No workspaces found.")


@app.command("get")
@app.command("inspect", hidden=True)
def get_workspace(context: typer.Context, workspace: Id) -> None:
    """Show one workspace with every field."""
    session: Session = context.obj
    session.show(session.call("GET", f"/workspaces/{workspace}"))


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the role.")],
    role: Annotated[str | None, typer.Option(help="What the role is for.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime, such as langgraph, command, echo.")] = None,
    model: Annotated[str | None, typer.Option(help="provider:model, or offline:demo.")] = None,
    template: Annotated[str | None, typer.Option(help="Workspace template.")] = None,
    parent_id: Annotated[str | None, typer.Option(help="Id of the workspace above.")] = None,
    workspace_dir: Annotated[str | None, typer.Option(help="Host folder to work in.")] = None,
    tier: Annotated[int | None, typer.Option(min=1, max=4, help="Resources, 1 to 4.")] = None,
    external: Annotated[bool, typer.Option(help="The agent runs elsewhere.")] = False,
    wait: Wait = False,
    timeout: Timeout = 120,
) -> None:
    """Create a workspace."""
    session: Session = context.obj
    given = {
        "name": name,
        "role": role,
        "runtime": runtime,
        "model": model,
        "template": template,
        "parent_id": parent_id,
        "workspace_dir": workspace_dir,
        "tier": tier,
        "external": external or None,
    }
    made = session.call("POST", "/workspaces", body={k: v for k, v in given.items() if v is not None})
    if wait:
        made = _wait(session, made["id"], timeout)
    session.show(made, f"Workspace created: {made.get('name', name)} ({made['id']}), {made['status']}")


@app.command()
def delete(
    context: typer.Context,
    workspace: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    confirm_name: Annotated[str, typer.Option(help="The workspace's name, instead of typing it.")] = "",
    purge: Annotated[bool, typer.Option(help="Remove rows and files at once.")] = False,
) -> None:
    """Delete a workspace and everything below it."""
    session: Session = context.obj
    name = session.call("GET", f"/workspaces/{workspace}")["name"]
    typed = confirm_name or (
        name if yes else typer.prompt(f"Type the name of the workspace to delete it ({name})")
    )
    answer = session.request(
        "DELETE",
        f"/workspaces/{workspace}",
        params={"confirm": "true", "purge": "true" if purge else None},
        headers={"X-Confirm-Name": typed if typed.isascii() else quote(typed)},
    ).json()
    session.show(answer, f'Workspace "{workspace}" deleted.')


def _verb(path: str, settled: set[str], done: str) -> Any:
    def run(context: typer.Context, workspace: Id, wait: Wait = False, timeout: Timeout = 120) -> None:
        session: Session = context.obj
        answer = session.call("POST", f"/workspaces/{workspace}/{path}")
        if wait:
            answer = _wait(session, workspace, timeout, settled)
        session.show(answer, f"{done}: {answer['status']}")

    return run


for _name, _states, _done, _help in (
    ("restart", _SETTLED, "Restarting", "Restart a workspace's agent."),
    ("pause", {"paused"}, "Pausing", "Stop a workspace and everything below it."),
    ("resume", _SETTLED - {"paused"}, "Resuming", "Start a paused workspace again."),
    ("hibernate", {"hibernated"}, "Hibernating", "Stop an idle workspace; a message wakes it."),
    ("wake", {"online", "failed"}, "Waking", "Start a hibernated workspace."),
):
    app.command(_name, help=_help)(_verb(_name, _states, _done))


@app.command()
def ask(
    context: typer.Context,
    workspace: Id,
    message: Annotated[str, typer.Argument(help="What to say.")],
    timeout: Timeout = 300,
) -> None:
    """Send a message and print the reply."""
    from molecule_ai.client.messages import envelope, reply_text

    session: Session = context.obj
    answer = session.call("POST", f"/workspaces/{workspace}/a2a", body=envelope(message), timeout=timeout)
    session.show(answer, reply_text(answer) or str(answer))


@app.command()
def delegate(
    context: typer.Context,
    source: Id,
    target: Annotated[str, typer.Argument(help="Workspace that does the work.")],
    task: Annotated[list[str], typer.Argument(help="The task.")],
) -> None:
    """Give a task from one workspace to another."""
    session: Session = context.obj
    body = {"target_id": target, "task": " ".join(task)}
    session.show(session.call("POST", f"/workspaces/{source}/delegate", body=body))


@app.command()
def logs(
    context: typer.Context,
    workspace: Id,
    tail: Annotated[int, typer.Option(help="Bytes from the end.")] = 65536,
) -> None:
    """Print the agent's own log."""
    session: Session = context.obj
    answer = session.call("GET", f"/workspaces/{workspace}/console", tail=tail)
    session.show(answer, answer["output"].rstrip())


def _wait(session: Session, workspace: str, timeout: float, states: set[str] = _SETTLED) -> dict[str, Any]:
    """Poll until the workspace is in one of `states`, telling people each change."""
    deadline = time.monotonic() + timeout
    last = ""
    while True:
        row: dict[str, Any] = session.call("GET", f"/workspaces/{workspace}")
        if row["status"] != last and not session.as_json:
            typer.echo(f"{row['name']}: {row['status']}", err=True)
        last = row["status"]
        if last in states:
            return row
        if time.monotonic() > deadline:
            typer.echo(f"Error: still {last} after {timeout:.0f} s", err=True)
            raise typer.Exit(1)
        time.sleep(0.2)
