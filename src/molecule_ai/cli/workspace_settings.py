"""`molecule workspace config` and its kin: what is kept with a workspace."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from . import tokens
from .naming import Workspace, workspace_id
from .session import Session

secrets = typer.Typer(help="Secrets of a workspace: names are shown, values never.", no_args_is_help=True)


def config(
    context: typer.Context,
    workspace: Workspace,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=JSON; a value that is no JSON is a text.")
    ] = None,
) -> None:
    """Show the free configuration object, or replace keys of it."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/config"
    if given:
        body = {key: _json_or_text(value) for key, value in map(pair, given)}
        session.call("PATCH", path, body=body)
    session.show(session.call("GET", path)["data"])


def model(
    context: typer.Context,
    workspace: Workspace,
    wanted: Annotated[
        str | None, typer.Argument(help="provider:model; nothing shows the present one.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Go back to the default.")] = False,
) -> None:
    """Show or choose the model; the agent restarts with a new one."""
    session: Session = context.obj
    path = f"/workspaces/{workspace_id(session, workspace)}/model"
    if wanted or clear:
        answer = session.call("PUT", path, body={"model": "" if clear else wanted})
        session.show(answer, f"Model {answer['status']}; the agent restarts.")
        return
    answer = session.call("GET", path)
    session.show(answer, f"{answer['model'] or '(default)'}  from {answer['source']}")


def abilities(
    context: typer.Context,
    workspace: Workspace,
    broadcast: Annotated[
        bool | None, typer.Option("--broadcast/--no-broadcast", help="May it tell everybody something?")
    ] = None,
    talk_to_user: Annotated[
        bool | None, typer.Option("--talk/--no-talk", help="May it talk to its user?")
    ] = None,
) -> None:
    """Allow or forbid a workspace to broadcast and to talk to its user."""
    session: Session = context.obj
    given = {"broadcast_enabled": broadcast, "talk_to_user_enabled": talk_to_user}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise typer.BadParameter("say what to change; see --help")
    path = f"/workspaces/{workspace_id(session, workspace)}/abilities"
    session.show(session.call("PATCH", path, body=body))


def connection(context: typer.Context, workspace: Workspace) -> None:
    """Show how an external agent connects, without its token."""
    session: Session = context.obj
    answer = session.call("GET", f"/workspaces/{workspace_id(session, workspace)}/external/connection")
    session.show(answer, "\n".join(connection_lines(answer["connection"])))


def rotate(context: typer.Context, workspace: Workspace) -> None:
    """Revoke every token of an external workspace and show a new one, once."""
    session: Session = context.obj
    answer = session.call("POST", f"/workspaces/{workspace_id(session, workspace)}/external/rotate")
    session.show(answer, "\n".join(connection_lines(answer["connection"])))


@secrets.command("list")
def list_secrets(context: typer.Context, workspace: Workspace) -> None:
    """List the names that the agent has a value for, and where each comes from."""
    session: Session = context.obj
    rows = session.call("GET", f"/workspaces/{workspace_id(session, workspace)}/secrets")
    columns = {"KEY": "key", "SCOPE": "scope", "DELIVERY": "delivery", "UPDATED AT": "updated_at"}
    session.table(rows, columns, empty="No secrets.")


@secrets.command("set")
def set_secrets(
    context: typer.Context,
    workspace: Workspace,
    pairs: Annotated[
        list[str], typer.Argument(help="KEY=VALUE, or KEY alone: its value is asked for or read from a pipe.")
    ],
) -> None:
    """Keep values; the agent restarts once with all of them."""
    session: Session = context.obj
    one = workspace_id(session, workspace)
    for text in pairs:
        key, value = pair(text) if "=" in text else (text, _asked(text))
        answer = session.call("POST", f"/workspaces/{one}/secrets", body={"key": key, "value": value})
        session.show(answer, f"{key}: {answer['status']}")


@secrets.command("delete")
def delete_secret(
    context: typer.Context, workspace: Workspace, key: Annotated[str, typer.Argument(help="Its name.")]
) -> None:
    """Forget a value; the agent restarts without it."""
    session: Session = context.obj
    answer = session.call("DELETE", f"/workspaces/{workspace_id(session, workspace)}/secrets/{key}")
    session.show(answer, f"{key}: {answer['status']}")


def connection_lines(told: dict[str, Any]) -> list[str]:
    """How to connect, for people; the token stands alone on its line, so that it can be copied."""
    lines = [f"  workspace: {told['workspace_id']}", f"  platform:  {told['platform_url']}"]
    if told["auth_token"]:
        lines += ["  token, shown this once:", told["auth_token"]]
    return [*lines, "", told["curl_register_template"].rstrip()]


def pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE` in two."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"not KEY=VALUE: {key or text}")
    return key, value


def _asked(key: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt(f"Value of {key}", hide_input=True))


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def add_to(app: typer.Typer) -> None:
    for verb in (config, model, abilities, connection, rotate):
        app.command()(verb)
    app.add_typer(secrets, name="secret")
    app.add_typer(tokens.app, name="token")
