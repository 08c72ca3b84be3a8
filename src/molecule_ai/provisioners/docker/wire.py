"""How the server and a call in a container talk: a header in JSON, then bytes, on stdin and stdout."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct, field

MAGIC = b"MOL1"
PREFIX = struct.Struct(">4sI")
MAX_HEADER_BYTES = 16 * 1024 * 1024  # a listing of ten thousand long names fits


class Request(Struct, frozen=True, kw_only=True):
    """A verb of `WorkspaceFiles`."""

    verb: str
    root: str
    path: str = ""
    size: int = 0
    """Bytes that follow."""
    seconds: float = 60
    """After which the call ends itself, whoever waits for it."""
    arguments: dict[str, Any] = field(default_factory=dict)


class Response(Struct, frozen=True, kw_only=True):
    """What became of it; with an `error` nothing else counts."""

    size: int = 0
    result: Any = None
    error: str = ""
    """The code of the error."""
    text: str = ""


class Broken(Exception):
    """The other side said something that is not of this protocol."""


def pack(header: Struct) -> bytes:
    content = msgspec.json.encode(header)
    return PREFIX.pack(MAGIC, len(content)) + content


def header_size(prefix: bytes) -> int:
    """Raises `Broken`."""
    magic, size = PREFIX.unpack(prefix)
    if magic != MAGIC or size > MAX_HEADER_BYTES:
        raise Broken("not a message of this protocol")
    return int(size)


def read_request(stream: BinaryIO) -> Request:
    """Read the header of a request; its bytes are next in the stream."""
    size = header_size(_exactly(stream, PREFIX.size))
    return msgspec.json.decode(_exactly(stream, size), type=Request)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise Broken("the stream ended early")
    return content
