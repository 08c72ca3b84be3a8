"""500 events a second to 1,000 sockets: canvases, which see all of them, and agents, which see their own."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from bench.measure import percentiles
from bench.target import Target

from .workspaces import registered

CLIENTS = 1000
EVENTS_PER_SECOND = 500
_AGENTS = 500  # each beats once a second
_SECONDS = 15
_SETTLE_SECONDS = 2
_SAMPLED = 20  # every so many clients reads the time stamps, the others only count
_MARK = b'"event":"WORKSPACE_HEARTBEAT"'
_STAMP = b'"timestamp":"'


class Client(asyncio.Protocol):
    """A WebSocket client that does as little as it can: it counts, and some look at the clock."""

    def __init__(self, request: bytes, *, is_sampled: bool) -> None:
        self._request = request
        self._is_sampled = is_sampled
        self._head = b""
        self.upgraded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.received = 0
        self.bytes = 0
        self.latencies: list[float] = []
        self.is_lost = False
        self._tail = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.upgraded.done():
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self.upgraded.set_result(b" 101 " in head)
        data = self._tail + data
        self.received += data.count(_MARK)
        self.bytes += len(data) - len(self._tail)
        if self._is_sampled:
            self._look(data)
        # A mark that was cut in two is whole in the next read, and never counted twice.
        self._tail = data[-(len(_MARK) - 1) :]

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True
        if not self.upgraded.done():
            self.upgraded.set_result(False)

    def _look(self, data: bytes) -> None:
        now = time.time()
        at = data.find(_STAMP)
        while at >= 0:
            text = data[at + len(_STAMP) : at + len(_STAMP) + 40].partition(b'"')
            if text[1]:
                self.latencies.append(now - datetime.fromisoformat(text[0].decode()).timestamp())
            at = data.find(_STAMP, at + 1)


@asynccontextmanager
async def _connected(target: Target, headers: Sequence[dict[str, str]]) -> AsyncIterator[list[Client]]:
    host = urlsplit(target.url)
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    try:
        for number, more in enumerate(headers):
            request = _upgrade(host.netloc, more)
            _, client = await loop.create_connection(
                lambda request=request, number=number: Client(request, is_sampled=number % _SAMPLED == 0),
                host.hostname,
                host.port,
            )
            clients.append(client)
            if not await client.upgraded:
                raise RuntimeError("a socket was refused")
        yield clients
    finally:
        for client in clients:
            client.transport.close()


def _upgrade(host: str, headers: dict[str, str]) -> bytes:
    lines = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **headers,
    }
    return ("GET /ws HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n").encode()


async def _beat(target: Target, agents: Sequence[tuple[str, str]], rate: int, seconds: float) -> int:
    """Heartbeats at a steady rate; returns how many were sent."""
    started, sent = time.monotonic(), 0
    pending: set[asyncio.Task[Any]] = set()
    while (elapsed := time.monotonic() - started) < seconds:
        while sent < elapsed * rate:
            workspace_id, token = agents[sent % len(agents)]
            body = {"workspace_id": workspace_id, "error_rate": 0, "active_tasks": 0, "uptime_seconds": sent}
            task = asyncio.ensure_future(target.call("POST", "/registry/heartbeat", body, token))
            pending.add(task)
            task.add_done_callback(pending.discard)
            sent += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*pending)
    return sent


async def _measure(
    target: Target,
    agents: Sequence[tuple[str, str]],
    headers: Sequence[dict[str, str]],
    rate: int,
    *,
    own: bool,
) -> dict[str, Any]:
    async with _connected(target, headers) as clients:
        before = _cpu(target)
        sent = await _beat(target, agents, rate, _SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        received = sum(client.received for client in clients)
        expected = sent if own else sent * len(clients)
        latencies = [latency for client in clients for latency in client.latencies]
        return {
            "clients": len(clients),
            "events_per_second": round(sent / _SECONDS),
            "deliveries_per_second": round(received / _SECONDS),
            "delivered_percent": round(100 * received / expected, 1),
            "closed_for_slowness": sum(client.is_lost for client in clients),
            "megabytes_per_second": round(sum(client.bytes for client in clients) / _SECONDS / 1e6, 1),
            "latency": percentiles(latencies),
            "server_cpu_cores": round((_cpu(target) - before) / (_SECONDS + _SETTLE_SECONDS), 2),
        }


def _cpu(target: Target) -> float:
    if target.process is None:
        return 0.0
    return sum(sum(process.cpu_times()[:2]) for process in target.server_processes())


async def run(target: Target) -> dict[str, Any]:
    """Canvases that take arrays, canvases that take one event a message, and agents."""
    agents = await registered(target, CLIENTS, "fan")
    admin = {"Authorization": f"Bearer {target.token}"}
    arrays = {**admin, "Sec-WebSocket-Protocol": "molecule.batch.v1"}
    own = [{"Authorization": f"Bearer {token}", "X-Workspace-ID": name} for name, token in agents]
    beating = agents[:_AGENTS]
    return {
        "canvases_with_arrays": await _measure(
            target, beating, [arrays] * CLIENTS, EVENTS_PER_SECOND, own=False
        ),
        "canvases_one_by_one": await _measure(target, beating, [admin] * 50, 200, own=False),
        "agents": await _measure(target, agents, own, EVENTS_PER_SECOND, own=True),
    }
