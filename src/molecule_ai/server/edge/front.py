"""The order in which a request passes the edge (contract 01 §1.1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import structlog

from molecule_ai.kernel import log
from molecule_ai.kernel.errors import ApiError, InvalidRequest

from .answers import JSON, Answer, failure
from .cors import Cors
from .etags import remembering
from .facts import MAX_HEADER_BYTES, Facts, Network
from .headers import Pairs, security
from .limiter import EXEMPT, Limiter
from .recorder import Recorder
from .tenant import TenantGuard

_BODY_SECONDS = 60.0
_UPLOAD_SECONDS = 300.0
_REMEMBERED = frozenset({"GET", "HEAD"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class HeadersTooLarge(ApiError):
    """request headers too large"""

    status: ClassVar[int] = 431
    code: ClassVar[str] = "headers_too_large"


class SlowBody(InvalidRequest):
    """request body timed out"""

    status: ClassVar[int] = 408
    code: ClassVar[str] = "request_timeout"


class Front:
    """Wraps the application. One object rather than one per concern: each costs on every request."""

    def __init__(
        self,
        app: Any,
        *,
        cors: Cors,
        limiter: Limiter,
        tenant: TenantGuard,
        recorder: Recorder,
        proxies: Sequence[Network],
    ) -> None:
        self._app = app
        self._cors = cors
        self._limiter = limiter
        self._tenant = tenant
        self._recorder = recorder
        self._proxies = proxies
        self._log = log.get()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        facts = Facts(scope, self._proxies)
        scope["request_id"] = facts.request_id
        structlog.contextvars.bind_contextvars(request_id=facts.request_id)
        path = scope["path"]
        started = time.perf_counter()
        method = scope["method"] if kind == "http" else "GET"
        preflight = self._cors.preflight(method, facts)
        if preflight is not None:
            await preflight.send(scope, _finishing(send, facts, security(path)))
            return
        limits, refusal = self._admit(path, facts)
        finish = _finishing(
            send, facts, (*security(path), *self._cors.headers(facts), *limits), is_get_of_head=facts.is_head
        )
        if method in _REMEMBERED and path not in EXEMPT:
            finish = remembering(finish, facts)
        try:
            if refusal is not None:
                if kind == "websocket":
                    await receive()
                await refusal.send(scope, finish)
            else:
                await self._pass_on(scope, receive, finish, facts)
        finally:
            if kind == "http":
                self._recorder.request(scope, method, facts.status, time.perf_counter() - started)

    def _admit(self, path: str, facts: Facts) -> tuple[Pairs, Answer | None]:
        if facts.header_bytes > MAX_HEADER_BYTES:
            return (), failure(HeadersTooLarge(), facts.request_id)
        limits: Pairs = ()
        if path not in EXEMPT:
            limits, refused = self._limiter.admit(facts)
            if refused is not None:
                self._recorder.count("molecule_rate_limited_total", "global")
                return limits, failure(refused, facts.request_id)
        if not self._tenant.admits(path, facts):
            self._recorder.count("molecule_tenant_guard_rejections_total")
            self._log.info("tenant_guard_rejected", path=path, missing="X-Molecule-Org-Id")
            return limits, Answer(404)
        return limits, None

    async def _pass_on(self, scope: Any, receive: Any, send: Any, facts: Facts) -> None:
        if facts.is_head:
            scope["method"] = "GET"
            receive = _until_started(receive, facts)
        elif scope["type"] == "http" and scope["method"] in _WITH_BODY:
            receive = _hurried(receive, scope["path"])
        try:
            await self._app(scope, receive, send)
        except ApiError as known:
            if facts.status:
                raise
            await failure(known, facts.request_id).send(scope, send)
        except Exception as bug:
            self._log.error("request_crashed", path=scope["path"], exc_info=bug)
            if not facts.status:
                await failure(ApiError(), facts.request_id).send(scope, send)


def _finishing(send: Any, facts: Facts, more: Pairs, *, is_get_of_head: bool = False) -> Any:
    """A `send` that completes the headers, and drops the body of a HEAD."""
    more = (*more, (b"x-request-id", facts.request_id.encode()))

    async def finish(message: Any) -> None:
        kind = message["type"]
        if kind.endswith(".response.start"):
            facts.status = message["status"]
            if facts.started is not None:
                facts.started.set()
            message["headers"] = _completed(message["headers"], more, b"origin" in facts.found)
        elif is_get_of_head and kind == "http.response.body":
            message = {"type": kind, "body": b"", "more_body": message.get("more_body", False)}
        await send(message)

    return finish


def _completed(headers: Any, more: Pairs, is_cross_origin: bool) -> list[tuple[bytes, bytes]]:
    """The headers of the response and those of the edge; what a handler set itself stays."""
    given = [
        JSON if name == b"content-type" and value == b"application/json" else (name, value)
        for name, value in headers
    ]
    names = {name for name, _ in given}
    given += [pair for pair in more if pair[0] not in names]
    if is_cross_origin and b"vary" not in names:
        given.append((b"vary", b"Origin"))
    return given


def _hurried(receive: Any, path: str) -> Any:
    """A `receive` that does not wait forever for a body (contract 01 §15)."""
    seconds = _UPLOAD_SECONDS if path.endswith("/uploads") else _BODY_SECONDS
    is_complete = False

    async def hurried() -> Any:
        nonlocal is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError as late:
            raise SlowBody from late
        is_complete = not message.get("more_body", False)
        return message

    return hurried


def _until_started(receive: Any, facts: Facts) -> Any:
    """A `receive` for HEAD: an endless stream ends once its headers are out."""
    is_read = False

    async def once() -> Any:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if facts.started is not None:
            await facts.started.wait()
        return {"type": "http.disconnect"}

    return once
