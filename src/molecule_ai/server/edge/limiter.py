"""How many requests a caller may make in a minute (contract 01 §16.1)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from molecule_ai.kernel.errors import RateLimited

from .buckets import Buckets
from .facts import Facts
from .headers import Pairs

EXEMPT = frozenset({"/health", "/metrics", "/buildinfo"})
_PER_ADDRESS = 10  # times the limit of one caller: invented bearers do not evade it
# Agents of this machine, or an unlisted proxy on it: either way everybody at once.
_LOCAL = ("127.", "::1")
_COOKIE = b"mcp_session="


class Limiter:
    """Counts per credential, and per address over all credentials. `limit` None limits nothing.

    The counts are shared by the workers of a server; each machine counts for itself.
    """

    def __init__(
        self, buckets: Buckets, limit: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = buckets
        self._limit = limit
        self._clock = clock

    def admit(self, facts: Facts) -> tuple[Pairs, RateLimited | None]:
        """Count the request; the headers that its response carries, and the refusal if it is one too many."""
        limit = self._limit
        if limit is None:
            return ((b"x-ratelimit-limit", b"unlimited"),), None
        now = self._clock()
        address = facts.address.encode()
        credential = _credential(facts)
        count, reset = self._buckets.take(_key(b"c", credential or address), now)
        is_over = count > limit
        if credential and not facts.address.startswith(_LOCAL):
            of_address, address_reset = self._buckets.take(_key(b"a", address), now)
            if of_address > limit * _PER_ADDRESS:
                is_over, count, reset = True, limit, address_reset
        headers = (
            (b"x-ratelimit-limit", b"%d" % limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, limit - count)),
            (b"x-ratelimit-reset", b"%d" % reset),
        )
        return headers, RateLimited(retry_after=reset) if is_over else None


def _credential(facts: Facts) -> bytes:
    authorization = facts.found.get(b"authorization", b"")
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    for cookie in facts.found.get(b"cookie", b"").split(b";"):
        if cookie.strip().startswith(_COOKIE):
            return cookie.strip()
    return b""


def _key(kind: bytes, value: bytes) -> int:
    """A digest: the table never holds a credential."""
    return int.from_bytes(hashlib.sha256(kind + value).digest()[:8], "little") or 1
