"""What the edge needs to know of a request, gathered in one pass over its headers."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
from collections.abc import Sequence
from typing import Any

MAX_HEADER_BYTES = 32 * 1024  # contract 01 §15
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_WANTED = frozenset(
    {
        b"authorization",
        b"cookie",
        b"host",
        b"if-none-match",
        b"origin",
        b"access-control-request-method",
        b"x-request-id",
        b"x-molecule-org-id",
        b"x-molecule-org-slug",
        b"fly-replay-src",
        b"referer",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
    }
)
_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of CIDRs. Raises `ValueError`."""
    return tuple(ipaddress.ip_network(item.strip(), strict=False) for item in text.split(",") if item.strip())


class Facts:
    """One request. Making it also tidies the scope: see `__init__`."""

    __slots__ = ("address", "found", "header_bytes", "is_head", "request_id", "started", "status")

    def __init__(self, scope: Any, proxies: Sequence[Network]) -> None:
        """Read the headers; of two `Authorization` the first counts (contract 08 W15), and what a
        client claims to have been forwarded for counts only from a trusted proxy (01 §3.2)."""
        found: dict[bytes, bytes] = {}
        size = 0
        is_untidy = False
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in _WANTED:
                if name in found:
                    is_untidy = True
                    continue
                found[name] = value
        self.found = found
        self.header_bytes = size
        self.is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        self.status = 0
        self.request_id = _request_id(found.get(b"x-request-id", b""))
        self.started = asyncio.Event() if self.is_head else None
        client = scope.get("client")
        self.address = client[0] if client else ""
        if is_untidy or not _FORWARDED.isdisjoint(found):
            self._tidy(scope, proxies)

    def text(self, name: bytes) -> str:
        """A header's value, "" when absent."""
        return self.found.get(name, b"").decode("latin-1")

    def _tidy(self, scope: Any, proxies: Sequence[Network]) -> None:
        is_trusted = _within(self.address, proxies)
        if is_trusted:
            self.address = _client_behind(self.text(b"x-forwarded-for"), self.address, proxies)
            scope["client"] = (self.address, 0)
        seen = False
        kept = []
        for name, value in scope["headers"]:
            if name in _FORWARDED and not is_trusted:
                continue
            if name == b"authorization":
                if seen:
                    continue
                seen = True
            kept.append((name, value))
        scope["headers"] = kept


def _request_id(given: bytes) -> str:
    """The client's own, if it is one; else a new one, which names a request and guards nothing."""
    if given and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(64):016x}"


def _within(address: str, networks: Sequence[Network]) -> bool:
    if not networks:
        return False
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in network for network in networks)


def _client_behind(forwarded: str, peer: str, proxies: Sequence[Network]) -> str:
    """The right-most hop that is no proxy of ours."""
    for hop in reversed([hop.strip() for hop in forwarded.split(",")]):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            return peer
        if not _within(hop, proxies):
            return hop
        peer = hop
    return peer
