"""What can go wrong in the activity log (contract 03 §11, §12)."""

from __future__ import annotations

from molecule_ai.kernel.errors import Gone, InvalidRequest, NotPermitted

REPORTABLE = (
    "a2a_send",
    "a2a_receive",
    "task_update",
    "agent_log",
    "skill_promotion",
    "memory_write",
    "error",
)


class TypeRequired(InvalidRequest):
    """invalid request body: ActivityType (activity_type) is required"""


class UnknownType(InvalidRequest):
    __doc__ = f"invalid activity_type, must be one of: {', '.join(REPORTABLE)}"
    code = "unknown_activity_type"


class ForeignSource(NotPermitted):
    """source_id must match authenticated workspace"""

    code = "foreign_source"


class InvalidTarget(InvalidRequest):
    """target_id must be a UUID"""

    code = "invalid_target_id"


class UnknownSource(InvalidRequest):
    """source must be 'canvas' or 'agent'"""

    code = "unknown_source"


class InvalidPeer(InvalidRequest):
    """peer_id must be a UUID"""

    code = "invalid_peer_id"


class InvalidBefore(InvalidRequest):
    """before_ts must be an RFC 3339 timestamp"""

    code = "invalid_before_ts"


class InvalidSince(InvalidRequest):
    """since_secs must be between 1 and 2592000"""

    code = "invalid_since_secs"


class InvalidOrder(InvalidRequest):
    """order must be 'asc' or 'desc'"""

    code = "invalid_order"


class CursorNotFound(Gone):
    """cursor not found"""

    code = "cursor_not_found"


class MessageRequired(InvalidRequest):
    """message is required"""

    code = "message_required"


class MessageTooLong(InvalidRequest):
    """message too long (max 65536 bytes)"""

    code = "message_too_long"


class TooManyAttachments(InvalidRequest):
    """too many attachments (max 20)"""

    code = "too_many_attachments"


class BadAttachment(InvalidRequest):
    """attachment[0]: uri and name are required"""

    code = "bad_attachment"


class MayNotTalk(NotPermitted):
    """workspace may not send messages to the user"""

    code = "talk_to_user_disabled"
