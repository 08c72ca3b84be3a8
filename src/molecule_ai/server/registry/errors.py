"""What the registry refuses with, in the words of contract 02 §11."""

from __future__ import annotations

from molecule_ai.kernel.errors import Conflict, InvalidRequest, NotPermitted, TooLarge, Unavailable


class UrlRejected(InvalidRequest):
    """invalid request body"""

    code = "URL_REJECTED"


class CardTooLarge(TooLarge):
    """agent card too large"""

    code = "agent_card_too_large"


class PlatformExists(Conflict):
    """another workspace is the platform agent already"""

    code = "PLATFORM_EXISTS"


class NotAuthorizedToDiscover(NotPermitted):
    """not authorized to discover this workspace"""

    code = "not_authorized"


class WorkspaceNotAvailable(Unavailable):
    """workspace not available"""

    code = "workspace_not_available"


class UnsafeUrl(Unavailable):
    """workspace URL failed safety check"""

    code = "url_unsafe"
