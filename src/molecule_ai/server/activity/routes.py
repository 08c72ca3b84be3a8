"""Routes of the activity room."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar.di import Provide
from litestar.params import QueryParameter

from molecule_ai.kernel.http import ApiRequest, FromPath, FromQuery, Here, JSONBody, get, post
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier

from . import errors
from .query import Query
from .schemas import ActivityLogged, ActivityReport, ActivityRow, Notice, NoticeSent
from .service import Activity

_TAGS = ["activity"]
_MISREADS = [
    errors.UnknownSource,
    errors.InvalidSince,
    errors.InvalidPeer,
    errors.InvalidBefore,
    errors.InvalidOrder,
]


def _asked(
    kinds: Annotated[
        str | None, QueryParameter(name="type", description="Activity types, divided by commas.")
    ] = None,
    source: Annotated[
        str | None,
        QueryParameter(description="`canvas`, `agent`, `channel`, `webhook` or `scheduler`."),
    ] = None,
    limit: Annotated[str | None, QueryParameter(description="At most 500; default 100.")] = None,
    since_secs: Annotated[str | None, QueryParameter(description="Rows of the last seconds only.")] = None,
    since_id: Annotated[
        str | None, QueryParameter(description="Rows after this one, oldest first, without `notify` rows.")
    ] = None,
    peer_id: Annotated[str | None, QueryParameter(description="Source or target of the row.")] = None,
    before_ts: Annotated[str | None, QueryParameter(description="RFC 3339; strictly earlier rows.")] = None,
    order: Annotated[str | None, QueryParameter(description="`asc` or `desc`.")] = None,
    wait_secs: Annotated[
        str | None,
        QueryParameter(description="With `since_id`: wait so long, at most 25, when there is nothing yet."),
    ] = None,
) -> Query:
    return Query(
        type=kinds,
        source=source,
        limit=limit,
        since_secs=since_secs,
        since_id=since_id,
        peer_id=peer_id,
        before_ts=before_ts,
        order=order,
        wait_secs=wait_secs,
    )


_READS = {"asked": Provide(_asked, sync_to_thread=False)}


@get(
    "/workspaces/{workspace_id:str}/activity",
    Tier.WORKSPACE,
    errors=[*_MISREADS, errors.CursorNotFound],
    tags=_TAGS,
    dependencies=_READS,
)
async def list_activity(
    activity: Here[Activity], caller: Here[Principal], workspace_id: FromPath[UUID], asked: Here[Query]
) -> list[ActivityRow]:
    """List what a workspace did and heard, newest first; with `since_id` oldest first."""
    return await activity.page(caller, workspace_id, asked)


@post(
    "/workspaces/{workspace_id:str}/activity",
    Tier.WORKSPACE,
    errors=[
        errors.TypeRequired,
        errors.UnknownType,
        errors.InvalidTarget,
        errors.ForeignSource,
        WorkspaceNotFound,
    ],
    invalid_body=errors.TypeRequired.__doc__ or "",
    tags=_TAGS,
    request_max_body_size=1024 * 1024,  # contract 03 §11.3
)
async def report_activity(
    activity: Here[Activity],
    caller: Here[Principal],
    workspace_id: FromPath[UUID],
    data: JSONBody[ActivityReport],
) -> ActivityLogged:
    """Record something that an agent did."""
    return ActivityLogged(await activity.report(caller, workspace_id, data))


@get("/activity", Tier.ADMIN, errors=[*_MISREADS, errors.CursorNotFound], tags=_TAGS, dependencies=_READS)
async def list_all_activity(
    activity: Here[Activity],
    caller: Here[Principal],
    asked: Here[Query],
    workspace_id: FromQuery[UUID | None] = None,
) -> list[ActivityRow]:
    """List the activity of all workspaces, or of one, newest first."""
    return await activity.page(caller, workspace_id, asked)


@post(
    "/workspaces/{workspace_id:str}/notify",
    Tier.WORKSPACE,
    errors=[
        errors.MessageRequired,
        errors.MessageTooLong,
        errors.TooManyAttachments,
        errors.BadAttachment,
        errors.MayNotTalk,
        WorkspaceNotFound,
    ],
    invalid_body=errors.MessageRequired.__doc__ or "",
    tags=_TAGS,
)
async def notify_user(
    activity: Here[Activity], workspace_id: FromPath[UUID], request: ApiRequest, data: JSONBody[Notice]
) -> NoticeSent:
    """Send a message of an agent to its user."""
    body: dict[str, Any] = await request.json()
    return await activity.notify(workspace_id, data, body)


handlers = [list_activity, report_activity, list_all_activity, notify_user]
