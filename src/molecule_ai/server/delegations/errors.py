"""What can be wrong with a delegation, in the words of contract 05 §2."""

from __future__ import annotations

from molecule_ai.kernel.errors import InvalidRequest, NotFound, TooLarge
from molecule_ai.server.a2a.errors import OutsideHierarchy

__all__ = [
    "BadLimit",
    "BadStatus",
    "BadTargetId",
    "DelegationNotFound",
    "OutsideHierarchy",
    "SelfDelegation",
    "TargetUnknown",
    "TaskTooLarge",
]


class BadTargetId(InvalidRequest):
    """target_id must be a valid UUID"""

    code = "invalid_target_id"


class SelfDelegation(InvalidRequest):
    """self-delegation not permitted"""

    code = "self_delegation"


class TaskTooLarge(TooLarge):
    """task exceeds 256 KiB"""


class TargetUnknown(NotFound):
    """target workspace not found"""

    code = "target_not_found"


class DelegationNotFound(NotFound):
    """delegation not found"""

    code = "delegation_not_found"


class BadStatus(InvalidRequest):
    """status must be 'completed' or 'failed'"""

    code = "invalid_status"


class BadLimit(InvalidRequest):
    """limit must be between 1 and 200"""

    code = "invalid_limit"
