"""What a request presents: its bearer, its origin, the workspace that it names."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.exceptions import SerializationException

from molecule_ai.kernel.errors import InvalidRequest

from . import errors

Request = ASGIConnection[Any, Any, Any, Any]


def bearer_of(connection: Request) -> str:
    """The bearer token, or "" (contract 01 §3.1: any case of the scheme, the first header counts)."""
    scheme, _, token = (connection.headers.get("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookie_of(connection: Request, name: str) -> str:
    """The value of the first cookie of this name, or ""."""
    for header in connection.headers.getall("cookie", []):
        for pair in header.split(";"):
            found, _, value = pair.strip().partition("=")
            if found == name:
                return value.strip()
    return ""


def parse_uuid(text: str) -> UUID | None:
    """A UUID in its 36-character form, any case; None for anything else."""
    if len(text) != 36:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None


def subprotocol_token(connection: Request) -> str:
    """The token of a browser's socket, which can carry no header (contract 01 §4.8)."""
    offered = connection.headers.get("sec-websocket-protocol", "")
    for protocol in (p.strip() for p in offered.split(",")):
        if protocol.startswith("molecule.bearer."):
            return protocol.removeprefix("molecule.bearer.")
    return ""


def path_workspace(connection: Request) -> UUID:
    """The workspace named by the path. Raises `InvalidWorkspaceId`."""
    workspace_id = parse_uuid(connection.path_params["workspace_id"])
    if workspace_id is None:
        raise errors.InvalidWorkspaceId
    return workspace_id


async def body_workspace(connection: Request) -> UUID:
    """The workspace named by the body. Raises `InvalidRequest`."""
    try:
        body = await connection.json()  # type: ignore[attr-defined]  # guards of HTTP routes get a Request
    except SerializationException as problem:
        raise InvalidRequest from problem
    if not isinstance(body, dict):
        raise InvalidRequest
    named = body.get("id") or body.get("workspace_id")
    workspace_id = parse_uuid(named) if isinstance(named, str) else None
    if workspace_id is None:
        raise InvalidRequest
    return workspace_id


def is_own_origin(connection: Request) -> bool:
    """Whether the page that asks was served by this host (contract 01 §6)."""
    host = connection.headers.get("host", "")
    own = (f"http://{host}", f"https://{host}")
    referer = connection.headers.get("referer", "")
    return (
        connection.headers.get("origin") in own
        or referer in own
        or referer.startswith(tuple(f"{o}/" for o in own))
    )
