"""Calls to agents: through the guard, on kept connections, under timers, with every end named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from uuid import UUID

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from molecule_ai.kernel.errors import DatastoreUnavailable
from molecule_ai.kernel.ssrf import GuardedClient, UrlPolicy, UrlRefused
from molecule_ai.provisioners.base import Handle
from molecule_ai.server.traffic.schemas import Target
from molecule_ai.server.traffic.service import Traffic

from .passes import Passes

T = TypeVar("T")
MAX_ANSWER_BYTES = 10 * 1024 * 1024
CEILING_SECONDS = 30 * 60.0  # agents and internal callers; a person may wait as long as there is life
CONNECT_SECONDS = 10.0
_MAX_RETRY_AFTER = 300
_NOT_DELIVERED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class Outcome(StrEnum):
    """How a call to an agent ended."""

    ANSWERED = "answered"
    FAILED = "failed"  # the agent said so with its HTTP status
    BUSY = "busy"  # the agent said so, and took nothing
    INTERRUPTED = "interrupted"  # cut off; the agent may have the message
    TIMED_OUT = "timed_out"  # it had all the time that it may have
    UNREACHABLE = "unreachable"  # nobody took the connection
    RESTARTING = "restarting"  # the agent was dead and is started again
    NOT_ROUTABLE = "not_routable"  # the guard refuses its URL
    ANSWER_LOST = "answer_lost"
    TOO_LARGE = "too_large"


class Delivery(Struct, frozen=True, kw_only=True):
    """The end of a call."""

    outcome: Outcome
    duration_ms: int
    status: int = 0
    body: bytes = b""
    reason: str = ""
    retry_after: int | None = None


class Losses(Protocol):
    """Whoever finds out whether an agent is dead, and starts it again."""

    async def report_dead(self, workspace_id: UUID, handle: Handle | None = None) -> bool: ...


class _Silent(Exception):
    """The agent and all signs of it were silent for too long."""


class _TimedOut(Exception):
    """The agent was alive and did not answer in the time that it had."""


class _TooLarge(Exception):
    """The answer exceeds what we read."""


class Streaming:
    """An agent's event stream under way. It is read to its end, also when nobody listens any more."""

    def __init__(
        self, agents: Agents, target: Target, response: aiohttp.ClientResponse, stack: AsyncExitStack
    ) -> None:
        self._agents = agents
        self._target = target
        self._response = response
        self._stack = stack

    async def chunks(self, idle_seconds: float) -> AsyncIterator[bytes]:
        """The bytes as they come; each one is a sign of life."""
        try:
            while True:
                read = self._response.content.readany()
                chunk = await self._agents.watched(self._target, read, None, idle_seconds)
                if not chunk:
                    return
                yield chunk
        finally:
            await self._stack.aclose()


class Agents:
    """The one place from where agents are called."""

    def __init__(
        self, policy: UrlPolicy, traffic: Traffic, losses: Losses, passes: Passes, *, idle_seconds: float
    ) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._http = GuardedClient(policy, timeout=timeout, connections=0)
        self._traffic = traffic
        self._losses = losses
        self._passes = passes
        self._idle_seconds = idle_seconds

    async def open(self) -> None:
        await self._http.__aenter__()

    async def close(self) -> None:
        await self._http.close()

    def idle_seconds(self, target: Target) -> float:
        """How long a target may be silent; its runtime may ask for more or less."""
        return float(target.idle_timeout_seconds or self._idle_seconds)

    async def deliver(
        self,
        target: Target,
        body: bytes,
        *,
        ceiling_seconds: float | None = CEILING_SECONDS,
        headers: Mapping[str, str] | None = None,
        streams: bool = False,
    ) -> Delivery | Streaming:
        """Call an agent and say how it went. An event stream is returned open, when it is wanted."""
        began = time.perf_counter()
        call = self._exchange(target, body, headers or {}, streams=streams)
        try:
            answer = await self.watched(target, call, ceiling_seconds, self.idle_seconds(target))
        except UrlRefused as refused:
            outcome, reason = Outcome.NOT_ROUTABLE, str(refused)
        except _NOT_DELIVERED as error:
            outcome, reason = await self._judge(target, Outcome.UNREACHABLE), str(error)
        except _TimedOut as late:
            outcome, reason = Outcome.TIMED_OUT, str(late)
        except (aiohttp.ClientError, OSError, _Silent) as error:
            outcome, reason = await self._judge(target, Outcome.INTERRUPTED), _reason(error)
        else:
            if isinstance(answer, Streaming):
                return answer
            return msgspec.structs.replace(answer, duration_ms=_since(began))
        return Delivery(outcome=outcome, reason=reason, duration_ms=_since(began))

    async def watched(
        self, target: Target, call: Coroutine[Any, Any, T], ceiling: float | None, idle: float
    ) -> T:
        """Await `call` for as long as its target shows signs of life, at most `ceiling` seconds."""
        task = asyncio.ensure_future(call)
        began = time.monotonic()
        patience = idle
        try:
            while True:
                left = None if ceiling is None else ceiling - (time.monotonic() - began)
                done, _ = await asyncio.wait(
                    {task}, timeout=patience if left is None else min(patience, left)
                )
                if done:
                    return task.result()
                if left is not None and time.monotonic() - began >= (ceiling or 0):
                    raise _TimedOut(f"timed out after {ceiling:.0f}s")
                quiet = min(await self._quiet_seconds(target.id), time.monotonic() - began)
                if quiet >= idle:
                    raise _Silent(f"no sign of life for {idle:.0f} s")
                patience = idle - quiet
        finally:
            if not task.done():
                task.cancel()

    async def look(self, target: Target, path: str, *, seconds: float, max_bytes: int) -> Delivery:
        """Read one of an agent's own pages, such as its transcript."""
        shown = await self._passes.headers(target.id)
        url = f"{URL(target.url).origin()}{path}"
        try:
            async with asyncio.timeout(seconds):
                request = self._http.request("GET", url, trusted=target.trusted_url, headers=shown)
                async with request as response:
                    return await _read(response, max_bytes)
        except UrlRefused as refused:
            return Delivery(outcome=Outcome.NOT_ROUTABLE, reason=str(refused), duration_ms=0)
        except (aiohttp.ClientError, OSError) as error:
            return Delivery(outcome=Outcome.UNREACHABLE, reason=_reason(error), duration_ms=0)

    async def _quiet_seconds(self, workspace_id: UUID) -> float:
        """How long the target has been silent; who cannot be asked about is not given up."""
        try:
            return await self._traffic.quiet_seconds(workspace_id)
        except DatastoreUnavailable:
            return 0.0

    async def _exchange(
        self, target: Target, body: bytes, headers: Mapping[str, str], *, streams: bool
    ) -> Delivery | Streaming:
        accept = "text/event-stream, application/json" if streams else "application/json"
        shown = {**headers, **await self._passes.headers(target.id)}
        shown |= {"Content-Type": "application/json", "Accept": accept}
        async with AsyncExitStack() as stack:
            response = await stack.enter_async_context(
                self._http.request("POST", target.url, trusted=target.trusted_url, data=body, headers=shown)
            )
            if response.status == HTTPStatus.UNAUTHORIZED:
                self._passes.forget(target.id)
            if streams and response.status < 300 and response.content_type == "text/event-stream":
                return Streaming(self, target, response, stack.pop_all())
            return await _read(response, MAX_ANSWER_BYTES)

    async def _judge(self, target: Target, outcome: Outcome) -> Outcome:
        """Whether the agent is dead; who cannot be judged counts as alive."""
        try:
            handle = msgspec.convert(target.handle, Handle) if target.handle else None
        except msgspec.ValidationError:
            handle = None
        is_dead = await self._losses.report_dead(target.id, handle)
        return Outcome.RESTARTING if is_dead else outcome


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> Delivery:
    status = response.status
    try:
        body = await _body(response, max_bytes)
    except _TooLarge:
        return Delivery(outcome=Outcome.TOO_LARGE, status=status, reason="answer too large", duration_ms=0)
    except (aiohttp.ClientError, OSError) as error:
        return Delivery(outcome=Outcome.ANSWER_LOST, status=status, reason=_reason(error), duration_ms=0)
    retry_after = _retry_after(response)
    if status < 300:
        outcome = Outcome.ANSWERED
    elif status in (429, 503) and retry_after is not None:
        outcome = Outcome.BUSY
    else:
        outcome = Outcome.FAILED
    return Delivery(
        outcome=outcome,
        status=status,
        body=body,
        reason="" if outcome is Outcome.ANSWERED else f"agent answered HTTP {status}",
        retry_after=retry_after,
        duration_ms=0,
    )


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise _TooLarge
    if response.content_length is not None:
        return await response.read()
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > max_bytes:
            raise _TooLarge
    return bytes(content)


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    text = response.headers.get("Retry-After", "").strip()
    if not text:
        return None
    return min(max(int(text), 1), _MAX_RETRY_AFTER) if text.isascii() and text.isdigit() else 30


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _since(began: float) -> int:
    return max(1, round((time.perf_counter() - began) * 1000))
