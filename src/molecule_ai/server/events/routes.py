"""Routes of the event log and its streams."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from molecule_ai.kernel.http import FromPath, Here, get, post
from molecule_ai.server.auth.errors import InvalidWorkspaceId, OriginNotAllowed
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from . import errors
from .history import History
from .schemas import RecordedEvent, Ticket
from .streams import Streams
from .tickets import Tickets

_TAGS = ["events"]
_LIMIT = Annotated[str | None, QueryParameter(description="At most 500; default 100.")]
_TYPE = Annotated[str | None, QueryParameter(name="type", description="Event types, divided by commas.")]
_BEFORE = Annotated[str | None, QueryParameter(description="RFC 3339; strictly earlier events.")]
_SINCE = Annotated[str | None, QueryParameter(description="Events after this one, oldest first.")]


@get("/events", Tier.ADMIN, errors=[errors.InvalidBefore, errors.CursorNotFound], tags=_TAGS)
async def list_events(
    history: Here[History],
    limit: _LIMIT = None,
    event_type: _TYPE = None,
    before_ts: _BEFORE = None,
    since_id: _SINCE = None,
) -> list[RecordedEvent]:
    """List what happened in the organization, newest first; with `since_id` oldest first."""
    return await history.page(None, limit, event_type, before_ts, since_id)


@get(
    "/events/{workspace_id:str}",
    Tier.ADMIN,
    errors=[InvalidWorkspaceId, errors.InvalidBefore, errors.CursorNotFound],
    missing={"workspace_id": InvalidWorkspaceId},
    tags=_TAGS,
)
async def list_workspace_events(
    history: Here[History],
    workspace_id: FromPath[UUID],
    limit: _LIMIT = None,
    event_type: _TYPE = None,
    before_ts: _BEFORE = None,
    since_id: _SINCE = None,
) -> list[RecordedEvent]:
    """List what happened to one workspace, newest first; with `since_id` oldest first."""
    return await history.page(workspace_id, limit, event_type, before_ts, since_id)


_STREAM_HEADERS = {
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
}


@get(
    "/workspaces/{workspace_id:str}/events/stream",
    Tier.WORKSPACE,
    errors=[errors.NotListening],
    tags=_TAGS,
    takes_ticket=True,
    media_type="text/event-stream",
)
async def stream_workspace_events(
    streams: Here[Streams],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    types: Annotated[str | None, QueryParameter(description="Only these events, divided by commas.")] = None,
    since_id: Annotated[str | None, QueryParameter(description="As `Last-Event-ID`.")] = None,
    last_event_id: Annotated[
        str | None, HeaderParameter(name="Last-Event-ID", description="Replay what came after this event.")
    ] = None,
    token: Annotated[str | None, QueryParameter(description="A ticket instead of a header.")] = None,
) -> Stream:
    """Follow the events of one workspace as server-sent events."""
    wanted = frozenset(filter(None, (types or "").split(",")))
    stream: Any = await streams.open(caller, workspace_id, wanted, last_event_id or since_id or "")
    return Stream(stream, media_type="text/event-stream", headers=_STREAM_HEADERS)


@post("/ws/ticket", Tier.ADMIN, status=201, tags=_TAGS, response_headers={"Cache-Control": "no-store"})
async def create_ticket(tickets: Here[Tickets], caller: Here[Principal]) -> Ticket:
    """Issue a ticket that opens one socket or event stream within a minute, as `?token=`."""
    return await tickets.issue(caller)


@get("/ws", Tier.SOCKET, errors=[errors.UpgradeRequired, OriginNotAllowed], tags=_TAGS)
async def open_socket() -> None:
    """Receive events over a WebSocket; each message is one event, or with `molecule.batch.v1` an array."""
    raise errors.UpgradeRequired


handlers = [list_events, list_workspace_events, stream_workspace_events, create_ticket, open_socket]
