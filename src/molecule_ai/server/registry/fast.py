"""The bare way of an ordinary heartbeat.

Thousands of agents beat at once, and what a framework does for a request costs more than the beat. The
ordinary one is taken here: a bearer, a body that is a beat, an answer. Whatever is out of the ordinary
goes on to the route, whose answer is the only one there is for it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Send

from molecule_ai.kernel.errors import ApiError
from molecule_ai.server.auth.identities import Identities, digest

from .beats import Beats
from .schemas import Beat, Heartbeaten

PATH = "/registry/heartbeat"
MAX_BYTES = 64 * 1024
_BEARER = b"bearer "
_decoder = msgspec.json.Decoder(Beat)
_encoder = msgspec.json.Encoder()


class FastBeats:
    """Wraps the application; sees `POST /registry/heartbeat` and passes everything else on."""

    def __init__(self, app: ASGIApp, identities: Identities, beats: Beats) -> None:
        self._app = app
        self._identities = identities
        self._beats = beats

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        first: Any = await receive()
        answer = await self._answer(scope, first)
        if answer is None:
            await self._app(scope, _replay(first, receive), send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        start: Any = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": answer, "more_body": False})

    async def _answer(self, scope: Any, message: HTTPReceiveMessage) -> bytes | None:
        """The answer to an ordinary beat; None for anything else."""
        if message["type"] != "http.request":
            return None
        body = message.get("body", b"")
        token, length = _token_and_length(scope)
        # Servers may promise more although all that was announced is here.
        is_whole = len(body) == length or not message.get("more_body")
        if not token or not is_whole or len(body) > MAX_BYTES or b"\\u0000" in body:
            return None
        try:
            beat = _decoder.decode(body)
            outcome = await self._beats.put_proven(beat, digest(token))
            if outcome is None:
                return None
            if outcome.token_id is not None:
                await self._identities.note_use(outcome.token_id, rotates=outcome.rotates)
        except (msgspec.DecodeError, ApiError):
            return None
        return _encoder.encode(Heartbeaten("ok", outcome.status, outcome.at))


def _token_and_length(scope: Any) -> tuple[str, int]:
    token, length = "", -1
    for name, value in scope["headers"]:
        if name == b"authorization" and not token:
            token = value[7:].strip().decode("latin-1") if value[:7].lower() == _BEARER else ""
        elif name == b"content-length" and value.isdigit():
            length = int(value)
    return token, length


def _replay(first: Any, receive: Receive) -> Receive:
    """A `receive` that begins with the message that was looked at."""
    pending = [first]

    async def again() -> Any:
        return pending.pop() if pending else await receive()

    return again
