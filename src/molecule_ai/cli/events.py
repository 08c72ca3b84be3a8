"""`molecule events`: what happened, and what happens now."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated, Any

import typer

from .naming import complete, workspace_id
from .session import Session

app = typer.Typer(help="Read the event log.", no_args_is_help=True)
Workspace = Annotated[
    str | None, typer.Option("--workspace", help="Only this workspace's.", autocompletion=complete)
]


@app.command("list")
def list_events(
    context: typer.Context,
    workspace: Workspace = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 50,
    kind: Annotated[str | None, typer.Option("--type", help="Event names, comma-separated.")] = None,
) -> None:
    """List recorded events, newest first."""
    session: Session = context.obj
    path = f"/events/{workspace_id(session, workspace)}" if workspace else "/events"
    rows = session.call("GET", path, limit=limit, type=kind)
    session.table(
        rows, {"AT": "created_at", "EVENT": "event_type", "WORKSPACE": "workspace_id"}, empty="No events yet."
    )


@app.command()
def tail(context: typer.Context, workspace: Workspace = None) -> None:
    """Print events as they happen, until Ctrl-C. With --json one object per line."""
    session: Session = context.obj
    one = workspace_id(session, workspace) if workspace else None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_follow(session, one))


async def _follow(session: Session, workspace: str | None) -> None:
    import aiohttp

    pause = 1.0
    while True:
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"{session.api_url}/ws", headers=session.headers(), heartbeat=30) as socket,
            ):
                pause = 1.0
                async for message in socket:
                    _print(session, json.loads(message.data), workspace)
        except aiohttp.WSServerHandshakeError as refused:
            typer.echo(f"Error: GET {session.api_url}/ws: HTTP {refused.status}", err=True)
            raise typer.Exit(1) from refused
        except aiohttp.ClientError as lost:
            typer.echo(f"connection lost ({lost}), trying again in {pause:.0f} s", err=True)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 30)


def _print(session: Session, frame: dict[str, Any], workspace: str | None) -> None:
    if workspace and frame.get("workspace_id") != workspace:
        return
    if session.as_json:
        typer.echo(json.dumps(frame, separators=(",", ":")))
    else:
        payload = json.dumps(frame.get("payload", {}), ensure_ascii=False)
        typer.echo(
            f"{frame['timestamp']}  {frame['event']:28} {frame.get('workspace_id') or '-'}  {payload[:200]}"
        )
