"""`molecule workspace ask` and its kin: what is said, printed and seen."""

from __future__ import annotations

from typing import Annotated

import typer

from .naming import Workspace, complete, workspace_id
from .session import Session
from .waiting import Timeout

Tail = Annotated[int, typer.Option(help="Bytes from the end.")]


def ask(
    context: typer.Context,
    workspace: Workspace,
    message: Annotated[str, typer.Argument(help="What to say.")],
    timeout: Timeout = 300,
) -> None:
    """Send a message and print the reply."""
    from molecule_ai.client.messages import envelope, reply_text

    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/a2a"
    answer = session.call("POST", path, body=envelope(message), timeout=timeout)
    session.show(answer, reply_text(answer) or str(answer))


def delegate(
    context: typer.Context,
    source: Workspace,
    target: Annotated[str, typer.Argument(help="Who does the work.", autocompletion=complete)],
    task: Annotated[list[str], typer.Argument(help="The task.")],
) -> None:
    """Give a task from one workspace to another."""
    session: Session = context.obj
    body = {"target_id": workspace_id(session, target), "task": " ".join(task)}
    session.show(session.call("POST", f"/workspaces/{workspace_id(session, source)}/delegate", body=body))


def broadcast(
    context: typer.Context,
    workspace: Workspace,
    message: Annotated[str, typer.Argument(help="What everybody else shall know.")],
) -> None:
    """Tell every other workspace something, in the name of this one."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/broadcast"
    answer = session.call("POST", path, body={"message": message})
    session.show(answer, f"Told {answer['delivered']} workspaces.")


def logs(context: typer.Context, workspace: Workspace, tail: Tail = 65536) -> None:
    """Print the agent's own log."""
    session: Session = context.obj
    answer = session.call("GET", f"/workspaces/{workspace_id(session, workspace)}/console", tail=tail)
    session.show(answer, answer["output"].rstrip())


def peers(
    context: typer.Context,
    workspace: Workspace,
    search: Annotated[str | None, typer.Option("--search", "-q", help="Part of a name or role.")] = None,
    reachable: Annotated[bool, typer.Option(help="Everybody it may talk to, however far.")] = False,
) -> None:
    """List whom a workspace works with: siblings, children, parent."""
    session: Session = context.obj
    rows = session.call(
        "GET",
        f"/registry/{workspace_id(session, workspace)}/peers",
        q=search,
        scope="reachable" if reachable else None,
    )
    columns = {"ID": "id", "NAME": "name", "STATUS": "status", "ROLE": "role", "TASKS": "active_tasks"}
    session.table(rows, columns, empty="No peers.")


def discover(
    context: typer.Context,
    workspace: Workspace,
    target: Annotated[str, typer.Argument(help="Whom it looks for.", autocompletion=complete)],
) -> None:
    """Show where one workspace reaches another."""
    session: Session = context.obj
    asker = {"X-Workspace-ID": workspace_id(session, workspace)}
    path = f"/registry/discover/{workspace_id(session, target)}"
    answer = session.request("GET", path, headers=asker).json()
    session.show(answer, answer["url"])


def add_to(app: typer.Typer) -> None:
    for verb in (ask, delegate, broadcast, logs, peers, discover):
        app.command()(verb)
    app.command("console", hidden=True)(logs)
