"""Another server behind this one: requests, streams and sockets pass through as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
from yarl import URL

from molecule_ai.kernel import log
from molecule_ai.kernel.errors import ApiError, TooLarge

from .answers import Answer

Headers = list[tuple[bytes, bytes]]
_CONNECT_SECONDS = 10.0
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_SENT = _HOP_BY_HOP | {b"host", b"expect", b"x-request-id"}
# What this server says itself of every response.
_NOT_RETURNED = _HOP_BY_HOP | {b"server", b"date", b"x-request-id"}
_OWN_CORS = b"access-control-"
_NO_DEFAULTS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_AWAY = (aiohttp.ClientError, TimeoutError, OSError)


class Upstream:
    """One base URL. Redirects are the client's business, and so is what is encoded how."""

    def __init__(
        self, base: str, *, unavailable: str, total_seconds: float | None, max_body_bytes: int
    ) -> None:
        self._base = base.strip().rstrip("/")
        self._unavailable = Answer(
            502, unavailable.encode(), [(b"content-type", b"text/plain; charset=utf-8")]
        )
        self._timeout = aiohttp.ClientTimeout(total=total_seconds, connect=_CONNECT_SECONDS)
        self._max_body_bytes = max_body_bytes
        self._client: aiohttp.ClientSession | None = None

    @property
    def is_set(self) -> bool:
        return bool(self._base)

    async def open(self) -> None:
        if self.is_set and self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=self._timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def pass_on(self, scope: Any, receive: Any, send: Any, headers: Headers) -> None:
        """Hand the request over with these headers, and its answer back."""
        client = self._client
        if client is None:
            await self._unavailable.send(scope, send)
        elif scope["type"] == "websocket":
            await self._socket(client, scope, receive, send, headers)
        else:
            await self._request(client, scope, receive, send, headers)

    async def _request(
        self, client: aiohttp.ClientSession, scope: Any, receive: Any, send: Any, headers: Headers
    ) -> None:
        body = _Body(receive, headers, self._max_body_bytes)
        try:
            answer = await client.request(
                scope["method"],
                self._url(scope),
                headers=_decoded(_without(headers, _NOT_SENT)),
                data=body.chunks() if body.is_present else None,
                allow_redirects=False,
                skip_auto_headers=_NO_DEFAULTS,
            )
        except _AWAY as away:
            if body.problem is not None:
                raise body.problem from away
            log.get().warning("upstream_unavailable", upstream=self._base, error=type(away).__name__)
            await self._unavailable.send(scope, send)
            return
        async with answer:
            given = _without(answer.raw_headers, _NOT_RETURNED)
            returned = [pair for pair in given if not pair[0].startswith(_OWN_CORS)]
            await send({"type": "http.response.start", "status": answer.status, "headers": returned})
            await _until_gone(_copied(answer, send), receive if body.is_read else None)

    async def _socket(
        self, client: aiohttp.ClientSession, scope: Any, receive: Any, send: Any, headers: Headers
    ) -> None:
        await receive()
        skipped = _NOT_SENT | {name for name, _ in headers if name.startswith(b"sec-websocket-")}
        try:
            far = await client.ws_connect(
                self._url(scope),
                protocols=scope.get("subprotocols") or (),
                headers=_decoded(_without(headers, skipped)),
            )
        except _AWAY as away:
            log.get().warning("upstream_unavailable", upstream=self._base, error=type(away).__name__)
            await self._unavailable.send(scope, send)
            return
        async with far:
            accept = {"type": "websocket.accept", **({"subprotocol": far.protocol} if far.protocol else {})}
            await send(accept)
            await _first_of(_to_far(receive, far), _to_near(far, send))
        with contextlib.suppress(*_AWAY, RuntimeError):
            await send({"type": "websocket.close", "code": far.close_code or 1000})

    def _url(self, scope: Any) -> URL:
        query = scope["query_string"].decode("latin-1")
        return URL(f"{self._base}{raw_path(scope)}{'?' if query else ''}{query}", encoded=True)


def raw_path(scope: Any) -> str:
    """The path as the client wrote it."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return str(raw.partition(b"?")[0].decode("latin-1"))


class _Body:
    """The request's body on its way, and what became of it."""

    def __init__(self, receive: Any, headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
        self._receive = receive
        self._limit = limit
        named = dict(headers)
        length = named.get(b"content-length", b"0")
        self.is_present = b"transfer-encoding" in named or length != b"0"
        self.is_read = not self.is_present
        self.problem: ApiError | None = None
        if length.isdigit() and int(length) > limit:
            raise TooLarge(limit_bytes=limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        size = 0
        while not self.is_read:
            try:
                message = await self._receive()
            except ApiError as late:
                self.problem = late
                raise
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                self.problem = TooLarge(limit_bytes=self._limit)
                raise self.problem
            self.is_read = not message.get("more_body", False)
            if chunk:
                yield chunk


async def _copied(answer: aiohttp.ClientResponse, send: Any) -> None:
    try:
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except _AWAY as away:
        # Too late for another status; the client sees that the body is not whole.
        log.get().warning("upstream_broke_off", error=type(away).__name__)
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(copying: Any, receive: Any | None) -> None:
    """Copy, but not on and on for a client that has left."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":  # type: ignore[misc]  # only run when given
            pass

    if receive is None:
        await copying
    else:
        await _first_of(copying, gone())


async def _first_of(*ways: Any) -> None:
    """Run all until one ends. Raises what that one raised."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _to_far(receive: Any, far: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") is not None:
            await far.send_str(message["text"])
        else:
            await far.send_bytes(message.get("bytes") or b"")


async def _to_near(far: aiohttp.ClientWebSocketResponse, send: Any) -> None:
    async for message in far:
        if message.type is aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        elif message.type is aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})


def _without(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> Headers:
    """Without these, and without those that `Connection` names."""
    pairs = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in pairs if name == b"connection")
    dropped = names | {name.strip().lower() for name in listed.split(b",")}
    return [(name, value) for name, value in pairs if name not in dropped]


def _decoded(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
