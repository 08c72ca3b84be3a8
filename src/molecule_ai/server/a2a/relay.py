"""Event streams of agents, passed on as they come and read to their end whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp

from .agents import Streaming
from .log import answer_json

_MAX_WAITING = 64  # chunks; a slow client slows the agent down, an absent one does not
_MAX_EVENT_BYTES = 1024 * 1024

Ended = Callable[[dict[str, Any] | None, str], Awaitable[None]]


class LastResult:
    """Remembers the last JSON-RPC message with a result or an error in an event stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data = bytearray()
        self._last = b""

    def feed(self, chunk: bytes) -> None:
        self._line += chunk
        *lines, rest = self._line.split(b"\n")
        self._line = bytearray(rest[-_MAX_EVENT_BYTES:])
        for line in lines:
            self._take(bytes(line).rstrip(b"\r"))

    def value(self) -> dict[str, Any] | None:
        """The last message; a final event without its empty line counts."""
        self._take(bytes(self._line).rstrip(b"\r"))
        self._take(b"")
        return answer_json(self._last) if self._last else None

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            if len(self._data) < _MAX_EVENT_BYTES:
                self._data += line[5:].strip() + b"\n"
        elif not line:
            if b'"result"' in self._data or b'"error"' in self._data:
                self._last = bytes(self._data)
            self._data.clear()


class Relay:
    """One stream under way from an agent to a client."""

    def __init__(self, source: Streaming, idle_seconds: float, ended: Ended) -> None:
        self._source = source
        self._idle_seconds = idle_seconds
        self._ended = ended
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_WAITING)
        self._is_abandoned = False

    async def pump(self) -> None:
        """Read the agent's stream to its end, then tell what it said last."""
        last, error = LastResult(), ""
        try:
            async for chunk in self._source.chunks(self._idle_seconds):
                last.feed(chunk)
                if not self._is_abandoned:
                    await self._chunks.put(chunk)
        except (aiohttp.ClientError, OSError, TimeoutError) as broken:
            error = str(broken) or type(broken).__name__
        finally:
            if not self._is_abandoned:
                await self._chunks.put(None)
            await self._ended(last.value(), error)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What the client gets; leaving early does not stop the agent."""
        try:
            while (chunk := await self._chunks.get()) is not None:
                yield chunk
        finally:
            self._is_abandoned = True
            while not self._chunks.empty():
                self._chunks.get_nowait()
