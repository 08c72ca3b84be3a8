"""Which browsers may call from another origin (contract 01 §19.1)."""

from __future__ import annotations

from collections.abc import Collection

from molecule_ai.server.auth.errors import OriginNotAllowed

from .answers import Answer, failure
from .facts import Facts
from .headers import Pairs

_EXPOSED = b"Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id, ETag"
_METHODS = b"GET,POST,PUT,PATCH,DELETE,OPTIONS"
_ALLOWED = (
    b"Origin,Content-Type,X-Workspace-Id,Authorization,X-Molecule-Org-Slug,X-Molecule-Org-Id,X-Confirm-Name,"
    b"X-Request-Id,X-Timeout,Idempotency-Key,If-Match,If-None-Match"
)
_VARY_PREFLIGHT = (
    (b"vary", b"Origin"),
    (b"vary", b"Access-Control-Request-Method"),
    (b"vary", b"Access-Control-Request-Headers"),
)


class Cors:
    """Answers preflights and marks responses for listed origins."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, facts: Facts) -> Pairs:
        """What a response to a listed origin carries; nothing for anybody else."""
        origin = facts.found.get(b"origin")
        if origin is None or origin not in self._origins:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
        )

    def preflight(self, method: str, facts: Facts) -> Answer | None:
        """The answer to a browser that asks first; None for any other request."""
        origin = facts.found.get(b"origin")
        if method != "OPTIONS" or origin is None or b"access-control-request-method" not in facts.found:
            return None
        if origin not in self._origins and not self._is_own(origin, facts):
            return failure(OriginNotAllowed(), facts.request_id)
        return Answer(
            204,
            headers=[
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _ALLOWED),
                (b"access-control-max-age", b"600"),
                *_VARY_PREFLIGHT,
            ],
        )

    @staticmethod
    def _is_own(origin: bytes, facts: Facts) -> bool:
        return origin.partition(b"://")[2] == facts.found.get(b"host")
