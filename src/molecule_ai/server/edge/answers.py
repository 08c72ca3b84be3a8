"""Answers of the edge itself, without the framework."""

from __future__ import annotations

from typing import Any

import msgspec

from molecule_ai.kernel.errors import ApiError

_encoder = msgspec.json.Encoder()
JSON = (b"content-type", b"application/json; charset=utf-8")


class Answer:
    """A whole response."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers or []

    async def send(self, scope: Any, send: Any) -> None:
        """Send it, to a WebSocket handshake as a refusal."""
        prefix = "http"
        if scope["type"] == "websocket":
            if "websocket.http.response" not in (scope.get("extensions") or {}):
                await send({"type": "websocket.close", "code": 1008})
                return
            prefix = "websocket.http"
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": f"{prefix}.response.start", "status": self.status, "headers": headers})
        await send({"type": f"{prefix}.response.body", "body": self.body, "more_body": False})


def failure(error: ApiError, request_id: str) -> Answer:
    """A known failure as JSON."""
    headers = [JSON, *((name.lower().encode(), value.encode()) for name, value in error.headers.items())]
    if "retry_after" in error.extra:
        headers.append((b"retry-after", str(error.extra["retry_after"]).encode()))
    body = error.body() | {"request_id": request_id}
    return Answer(error.status, _encoder.encode(body), headers)
