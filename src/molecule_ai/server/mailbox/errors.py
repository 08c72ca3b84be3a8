"""What can go wrong with a message in the mailbox."""

from __future__ import annotations

from molecule_ai.kernel.errors import InvalidRequest, NotFound, NotPermitted, Unauthenticated, Unavailable


class MailboxFull(Unavailable):
    """workspace agent busy — retry after a short backoff"""

    code = "mailbox_full"


class QueueItemNotFound(NotFound):
    """queue item not found"""

    code = "queue_item_not_found"


class QueueItemHidden(NotPermitted):
    """only the caller and the target of a message may look at it"""

    code = "not_yours"


class QueueCredentialRequired(Unauthenticated):
    """missing workspace auth token"""

    code = "missing_workspace_token"


class BadMaxAge(InvalidRequest):
    """max_age_minutes must be a positive integer"""

    code = "invalid_max_age"


class BadWorkspaceFilter(InvalidRequest):
    """workspace_id must be a valid UUID"""

    code = "invalid_workspace_id"
