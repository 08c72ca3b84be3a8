"""What a message to a workspace can be refused with, in the words of contract 05 §1."""

from __future__ import annotations

from typing import Any

from molecule_ai.kernel.errors import (
    BadGateway,
    BudgetExceeded,
    Gone,
    InvalidRequest,
    NotFound,
    NotPermitted,
    Timeout,
    TooLarge,
    Unavailable,
)

BUSY_RETRY_SECONDS = 30
WAKE_RETRY_SECONDS = 15


class UnreadableBody(InvalidRequest):
    """failed to read request body"""

    code = "unreadable_body"


class BodyTooLarge(TooLarge):
    """request body exceeds 1 MiB"""


class InvalidJson(InvalidRequest):
    """invalid JSON"""

    code = "invalid_json"


class PartsRequired(InvalidRequest):
    """invalid params: message.parts is required"""

    code = "parts_required"

    def __init__(self, request_id: Any = None) -> None:
        super().__init__()
        self.request_id = request_id

    def body(self) -> dict[str, Any]:
        """A JSON-RPC error, because the caller speaks JSON-RPC."""
        return {
            "jsonrpc": "2.0",
            "id": self.request_id,
            "error": {"code": -32602, "message": self.text, "data": {"field": "params.message.parts"}},
        }


class OutsideHierarchy(NotPermitted):
    """access denied: workspaces cannot communicate per hierarchy rules"""

    code = "outside_hierarchy"


class OverBudget(BudgetExceeded):
    """workspace budget limit exceeded"""


class TargetNotFound(NotFound):
    """workspace not found"""

    code = "WORKSPACE_NOT_FOUND"


class TargetRemoved(Gone):
    """workspace removed"""

    code = "WORKSPACE_REMOVED"


class NoUrl(Unavailable):
    """workspace has no URL"""

    code = "no_url"


class Waking(Unavailable):
    """workspace is waking from hibernation — retry in ~15 seconds"""

    code = "waking"


class NotRegistered(Unavailable):
    """workspace not registered (no URL on file)"""

    code = "not_registered"


class UrlNotAllowed(InvalidRequest):
    """workspace URL not allowed"""

    code = "url_not_allowed"


class NoTranscript(BadGateway):
    """workspace unreachable"""

    code = "no_transcript"


class NotRoutable(BadGateway):
    """workspace URL is not publicly routable"""

    code = "not_routable"


class AgentUnreachable(BadGateway):
    """failed to reach workspace agent"""

    code = "agent_unreachable"


class AgentRestarting(Unavailable):
    """workspace agent unreachable — container restart triggered"""

    code = "agent_restarting"


class AgentBusy(Unavailable):
    """workspace agent busy — retry after a short backoff"""

    code = "agent_busy"


class NativeSessionBusy(AgentBusy):
    """workspace agent busy — adapter handles retry (native_session)"""


class AnswerLost(BadGateway):
    """failed to read agent response"""

    code = "answer_lost"


class AnswerTooLarge(BadGateway):
    """agent response exceeds 10 MiB"""

    code = "answer_too_large"


class AgentTimeout(Timeout):
    """workspace agent did not answer within 30 minutes"""

    code = "agent_timeout"


class CallerTimeout(Timeout):
    """caller timeout"""

    code = "caller_timeout"
