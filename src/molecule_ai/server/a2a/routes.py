"""Messages to agents, and what agents say they did.

The proxy reads and writes bytes, so that what agents say stays as they said it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import MediaType, Response
from litestar.exceptions import ClientException
from litestar.response import Stream

from molecule_ai.kernel.http import ApiRequest, FromPath, FromQuery, Here, get, post
from molecule_ai.server.auth.principal import Principal
from molecule_ai.server.auth.tiers import Tier
from molecule_ai.server.traffic.errors import ChainLimit

from . import errors
from .openapi import MessageOperation
from .schemas import Transcript, Wish
from .service import Proxy
from .transcripts import MAX_LINES, Transcripts

MAX_BODY_BYTES = 1024 * 1024


@post(
    "/workspaces/{workspace_id:str}/a2a",
    Tier.CALLER,
    errors=[
        errors.UnreadableBody,
        errors.BodyTooLarge,
        errors.OutsideHierarchy,
        errors.OverBudget,
        errors.TargetNotFound,
        errors.TargetRemoved,
        errors.NoUrl,
        errors.Waking,
        errors.InvalidJson,
        errors.PartsRequired,
        ChainLimit,
        errors.NotRoutable,
        errors.AgentUnreachable,
        errors.AgentRestarting,
        errors.AgentBusy,
        errors.AnswerLost,
        errors.AnswerTooLarge,
        errors.CallerTimeout,
        errors.AgentTimeout,
    ],
    tags=["a2a"],
    operation_class=MessageOperation,
    request_max_body_size=None,
)
async def send_message(
    proxy: Here[Proxy], caller: Here[Principal], workspace_id: FromPath[UUID], request: ApiRequest
) -> Response[Any]:
    """Send an A2A message to a workspace and get its agent's answer."""
    raw = await _read(request)
    reply = await proxy.call(caller.acting_for, workspace_id, raw, _wish(request))
    headers = dict(reply.headers)
    if isinstance(reply.content, bytes | dict):
        return Response(reply.content, status_code=reply.status, headers=headers, media_type=MediaType.JSON)
    return Stream(reply.content, status_code=reply.status, headers=headers, media_type="text/event-stream")


@get(
    "/workspaces/{workspace_id:str}/transcript",
    Tier.WORKSPACE,
    errors=[errors.TargetNotFound, errors.NotRegistered, errors.UrlNotAllowed, errors.NoTranscript],
    tags=["a2a"],
)
async def read_transcript(
    transcripts: Here[Transcripts],
    workspace_id: FromPath[UUID],
    since: FromQuery[int] = 0,
    limit: FromQuery[int] = 100,
) -> Transcript:
    """Read what the workspace's agent says it has been doing; at most 1,000 lines at once."""
    return await transcripts.page(workspace_id, max(0, since), max(1, min(limit, MAX_LINES)))


async def _read(request: ApiRequest) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise errors.BodyTooLarge
    except ClientException as broken:
        raise errors.UnreadableBody from broken
    return bytes(body)


def _wish(request: ApiRequest) -> Wish:
    headers = request.headers
    timeout = headers.get("x-timeout", "").strip()
    preferences = (part.strip().lower() for part in headers.get("prefer", "").split(","))
    return Wish(
        timeout_seconds=int(timeout)
        if timeout.isascii() and timeout.isdigit() and len(timeout) < 8
        else None,
        wants_stream="text/event-stream" in headers.get("accept", ""),
        prefers_async="respond-async" in preferences,
        passed_on={name: value for name, value in headers.items() if name.startswith("a2a-")},
    )


handlers = [send_message, read_transcript]
