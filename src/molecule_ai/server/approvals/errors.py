"""What can go wrong with approvals, in the words of contract 03 §4."""

from __future__ import annotations

from molecule_ai.kernel.errors import Conflict, InvalidRequest, NotFound, NotPermitted


class ActionRequired(InvalidRequest):
    """invalid request body"""

    code = "action_required"


class ActionTooLong(InvalidRequest):
    """action exceeds 2000 characters"""

    code = "action_too_long"


class ReasonTooLong(InvalidRequest):
    """reason exceeds 8192 bytes"""

    code = "reason_too_long"


class ContextTooLarge(InvalidRequest):
    """context exceeds 65536 bytes"""

    code = "context_too_large"


class DecisionRequired(InvalidRequest):
    """invalid request body"""

    code = "decision_required"


class UnknownDecision(InvalidRequest):
    """decision must be 'approved' or 'denied'"""

    code = "unknown_decision"


class UnknownOption(InvalidRequest):
    """option is not one of the request's options"""

    code = "unknown_option"


class ApprovalNotFound(NotFound):
    """approval not found"""

    code = "approval_not_found"


class NotPending(NotFound):
    """approval not found or already decided"""

    code = "approval_not_pending"


class OwnApproval(NotPermitted):
    """a workspace cannot decide its own approval"""

    code = "own_approval"


class HumanRequired(NotPermitted):
    """this approval needs a human decision"""

    code = "human_required"


class GateNeedsHuman(NotPermitted):
    """gate approvals need a human decision"""

    code = "gate_needs_human"


class NotRequester(NotPermitted):
    """only the requesting workspace can withdraw this approval"""

    code = "not_requester"


class NoLongerPending(Conflict):
    """approval is no longer pending"""

    code = "approval_no_longer_pending"
