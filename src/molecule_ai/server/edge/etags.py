"""What has not changed is not sent again: `ETag` and `If-None-Match` for JSON (contract 01 §24 row 15)."""

from __future__ import annotations

import hashlib
from typing import Any

from .answers import JSON
from .facts import Facts

_UNSENT = frozenset({b"content-length", b"content-type"})


def remembering(send: Any, facts: Facts) -> Any:
    """A `send` that answers 304 to a client that has this very body already.

    Only whole JSON bodies of 200 are looked at: streams, and what a handler tagged itself, pass by.
    """
    held: Any = None

    async def remember(message: Any) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and _is_tagged(message):
            held = message
            return
        start, held = held, None
        if start is None:
            await send(message)
        elif message.get("more_body", False):
            await send(start)
            await send(message)
        else:
            tag = b'"' + hashlib.blake2b(message.get("body", b""), digest_size=16).hexdigest().encode() + b'"'
            is_known = _knows(facts.found.get(b"if-none-match", b""), tag)
            headers = [pair for pair in start["headers"] if not (is_known and pair[0] in _UNSENT)]
            await send({**start, "status": 304 if is_known else 200, "headers": [*headers, (b"etag", tag)]})
            await send({**message, "body": b""} if is_known else message)

    return remember


def _is_tagged(message: Any) -> bool:
    if message["status"] != 200:
        return False
    headers = dict(message["headers"])
    is_json = headers.get(b"content-type", b"").startswith(JSON[1].partition(b";")[0])
    return is_json and b"etag" not in headers and b"cache-control" not in headers


def _knows(header: bytes, tag: bytes) -> bool:
    """Weak comparison, as RFC 9110 §13.1.2 asks for."""
    given = {one.strip().removeprefix(b"W/") for one in header.split(b",")}
    return tag in given or b"*" in given
