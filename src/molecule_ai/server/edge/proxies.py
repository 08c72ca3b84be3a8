"""What this server passes on: `/cp/*` to the control plane, pages to the canvas (contract 01 §17)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from .answers import Answer
from .headers import is_api
from .upstream import Headers, Upstream, raw_path

_PREFIXES = ("/cp/auth/", "/cp/billing/", "/cp/legal/")
_TREES = ("/cp/orgs", "/cp/templates")
# Encoded: a dot, a slash, a backslash, a per cent sign that hides one of them from a single decoding.
_HIDING = ("%2e", "%2f", "%5c", "%25", "%00")
_OWN_PAGES = "/docs"
_BEARER = b"bearer "

IsOurs = Callable[[str], Awaitable[bool]]


def is_allowed(path: str) -> bool:
    """Whether the control plane may be asked for this path, as the client wrote it."""
    lowered = path.lower()
    if "\\" in path or any(sign in lowered for sign in _HIDING):
        return False
    segments = [segment.partition(";")[0] for segment in unquote(path).split("/")]
    if any(segment in {".", ".."} for segment in segments) or "" in segments[1:-1]:
        return False
    return any(path.startswith(prefix) and len(path) > len(prefix) for prefix in _PREFIXES) or any(
        path == tree or path.startswith(f"{tree}/") for tree in _TREES
    )


class Proxies:
    """Passes on what belongs elsewhere; everything else goes to the application.

    `is_ours` tells whether a bearer is a credential of this organization: the canvas sends it with
    every call, and it is none of the control plane's business.
    """

    def __init__(self, app: Any, control_plane: Upstream, canvas: Upstream, is_ours: IsOurs) -> None:
        self._app = app
        self._control_plane = control_plane
        self._canvas = canvas
        self._is_ours = is_ours

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if self._control_plane.is_set and (path == "/cp" or path.startswith("/cp/")):
            await self._to_control_plane(scope, receive, send)
        elif self._canvas.is_set and not is_api(path) and not _is_own_page(path):
            headers = [
                pair for pair in scope["headers"] if pair[0].lower() not in (b"authorization", b"cookie")
            ]
            await self._canvas.pass_on(scope, receive, send, headers)
        else:
            await self._app(scope, receive, send)

    async def _to_control_plane(self, scope: Any, receive: Any, send: Any) -> None:
        scope["path_template"] = "/cp/*path"
        if scope["type"] != "http" or not is_allowed(raw_path(scope)):
            await Answer(404).send(scope, send)
            return
        await self._control_plane.pass_on(scope, receive, send, await self._for_control_plane(scope))

    async def _for_control_plane(self, scope: Any) -> Headers:
        kept, forwarded = [], []
        for name, value in scope["headers"]:
            lowered = name.lower()
            if lowered == b"x-forwarded-for":
                forwarded.append(value)
            elif lowered != b"authorization" or not await self._is_own_bearer(value):
                kept.append((lowered, value))
        client = scope.get("client")
        forwarded += [str(client[0]).encode()] if client else []
        return [*kept, (b"x-forwarded-for", b", ".join(forwarded))]

    async def _is_own_bearer(self, value: bytes) -> bool:
        if value[: len(_BEARER)].lower() != _BEARER:
            return False
        return await self._is_ours(value[len(_BEARER) :].strip().decode("latin-1"))


def _is_own_page(path: str) -> bool:
    return path == _OWN_PAGES or path.startswith(f"{_OWN_PAGES}/")
