"""Which request makes a change: what the audit trail says beside the actor (contract 01 §24 row 11)."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from litestar.handlers import BaseRouteHandler
from msgspec import Struct

from molecule_ai.kernel.http import route_pattern

from .presented import Request
from .principal import Principal


class Act(Struct, frozen=True, omit_defaults=True):
    """One request as the trail tells it. A row exists only if the change does: its status is a success."""

    id: str
    method: str
    route: str
    status: int
    target: str = ""
    key_prefix: str = ""


_current: ContextVar[tuple[Principal, Any, int] | None] = ContextVar("act", default=None)


def begin(caller: Principal, connection: Request, handler: BaseRouteHandler) -> None:
    """Remember the request for whatever it changes."""
    _current.set((caller, connection.scope, getattr(handler, "status_code", 200)))


def of(actor: str | None) -> Act | None:
    """The request under way, if it is this actor's: what engines do on the way is not."""
    current = _current.get()
    if current is None or current[0].label != actor:
        return None
    caller, scope, status = current
    return Act(
        id=scope.get("request_id", ""),
        method=scope.get("method", "GET"),
        route=route_pattern(scope.get("path_template", "")),
        status=status,
        target=str(next(reversed(scope["path_params"].values()), "")),
        key_prefix=caller.prefix,
    )
