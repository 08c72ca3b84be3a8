"""What can go wrong at the doors of the event bus (contract 03 §7, §8, §10)."""

from __future__ import annotations

from molecule_ai.kernel.errors import Gone, InvalidRequest, Unavailable


class UpgradeRequired(InvalidRequest):
    """websocket upgrade required"""

    code = "websocket_upgrade_required"


class InvalidSince(InvalidRequest):
    """since_seq must be a number"""

    code = "invalid_since_seq"


class InvalidBefore(InvalidRequest):
    """before_ts must be an RFC 3339 timestamp"""

    code = "invalid_before_ts"


class TooManySockets(Unavailable):
    """too many connections"""

    code = "too_many_connections"


class NotListening(Unavailable):
    """event stream unavailable — retry shortly"""

    code = "events_unavailable"


class CursorNotFound(Gone):
    """cursor not found"""

    code = "cursor_not_found"
