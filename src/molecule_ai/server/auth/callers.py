"""Who a request comes from: its bearer, or else its session cookie."""

from __future__ import annotations

from molecule_ai.server.settings import Settings

from . import errors
from .identities import Identities
from .presented import Request, bearer_of, cookie_of, is_own_origin
from .principal import Principal
from .sessions import COOKIE, Sessions

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Callers:
    """Turns what a request presents into a principal."""

    def __init__(self, identities: Identities, sessions: Sessions, settings: Settings) -> None:
        self._identities = identities
        self._sessions = sessions
        self._origins = frozenset(settings.origins)

    async def find(self, connection: Request, token: str | None = None) -> Principal | None:
        """Whoever the bearer proves; a bad or absent one leaves the word to the cookie."""
        caller = await self._identities.identify(bearer_of(connection) if token is None else token)
        return caller or await self.session(connection)

    async def session(self, connection: Request) -> Principal | None:
        """The member whose cookie this is. Raises `OriginNotAllowed` when another site sent the browser."""
        caller = await self._sessions.find(cookie_of(connection, COOKIE))
        if caller is not None and connection.scope.get("method", "GET") not in _SAFE:
            origin = connection.headers.get("origin", "")
            if not origin or not (origin in self._origins or is_own_origin(connection)):
                raise errors.OriginNotAllowed
        return caller

    def presents_session(self, connection: Request) -> bool:
        """Whether there is a cookie that the control plane could have vouched for."""
        return self._sessions.is_enabled and bool(cookie_of(connection, COOKIE))
