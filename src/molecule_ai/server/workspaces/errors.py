"""What can go wrong with a workspace, in the exact words of contract 02 §4."""

from __future__ import annotations

from molecule_ai.kernel.errors import (
    ApiError,
    Conflict,
    Gone,
    InvalidRequest,
    NotFound,
    NotPermitted,
    RateLimited,
    TooLarge,
    Unprocessable,
)
from molecule_ai.server.auth.errors import InvalidWorkspaceId, WorkspaceNotFound

__all__ = [
    "AgentNotFound",
    "AgentOccupied",
    "BrokenConfig",
    "ConfigIsNoObject",
    "ConfigTooLarge",
    "ConfirmNameMismatch",
    "ConfirmNameRequired",
    "ConfirmationRequired",
    "FieldRequiresAdmin",
    "InvalidConfigJson",
    "InvalidField",
    "InvalidFilter",
    "InvalidTemplate",
    "InvalidTier",
    "InvalidUrl",
    "InvalidWorkspaceAccess",
    "InvalidWorkspaceDirectory",
    "InvalidWorkspaceFields",
    "InvalidWorkspaceId",
    "InvalidWorkspacePayload",
    "MayNotBroadcast",
    "ModelRequired",
    "NameTaken",
    "NamesExhausted",
    "NoAgentToMove",
    "NoAgentToRemove",
    "NoAgentToReplace",
    "NoConfig",
    "NoSubWorkspaces",
    "NotBothWorkspaces",
    "NotExternal",
    "ParentCycle",
    "ParentNotFound",
    "PlatformExists",
    "PlatformHasNoParent",
    "RuntimeKindFixed",
    "RuntimeUnresolved",
    "SharedContextRemoved",
    "StateGone",
    "StoredConfigTooLarge",
    "TargetNotFound",
    "TargetOccupied",
    "TooManyBroadcasts",
    "UnknownRuntime",
    "UnregisteredModel",
    "WorkspaceNotFound",
    "WorkspaceRemoved",
]


class InvalidWorkspacePayload(InvalidRequest):
    """invalid workspace payload"""

    code = "invalid_workspace_payload"


class InvalidWorkspaceFields(InvalidRequest):
    """invalid workspace fields"""

    code = "invalid_workspace_fields"


class InvalidField(InvalidRequest):
    """invalid field"""

    code = "invalid_field"


class InvalidFilter(InvalidRequest):
    """invalid filter"""

    code = "invalid_filter"


class InvalidTemplate(InvalidRequest):
    """invalid template"""

    code = "invalid_template"


class InvalidTier(InvalidRequest):
    """invalid tier"""

    code = "invalid_tier"


class InvalidUrl(InvalidRequest):
    """invalid url"""

    code = "invalid_url"


class InvalidWorkspaceDirectory(InvalidRequest):
    """invalid workspace directory"""

    code = "invalid_workspace_directory"


class InvalidWorkspaceAccess(InvalidRequest):
    """invalid workspace access"""

    code = "invalid_workspace_access"


class ConfirmNameRequired(InvalidRequest):
    """X-Confirm-Name header is required"""

    code = "CONFIRM_NAME_REQUIRED"


class ConfirmNameMismatch(InvalidRequest):
    """X-Confirm-Name does not match the workspace name"""

    code = "CONFIRM_NAME_MISMATCH"


class FieldRequiresAdmin(NotPermitted):
    """this field can only be changed by an administrator"""

    code = "FIELD_REQUIRES_ADMIN"


class WorkspaceRemoved(Gone):
    """workspace removed"""

    code = "WORKSPACE_REMOVED"


class StateGone(NotFound):
    """workspace not found"""

    code = "WORKSPACE_GONE"


class ParentNotFound(Unprocessable):
    """parent workspace not found"""

    code = "PARENT_NOT_FOUND"


class UnknownRuntime(Unprocessable):
    """unknown runtime"""

    code = "UNKNOWN_RUNTIME"


class RuntimeUnresolved(Unprocessable):
    """the template names no runtime"""

    code = "RUNTIME_UNRESOLVED"


class ModelRequired(Unprocessable):
    """a model is required for this runtime"""

    code = "MODEL_REQUIRED"


class UnregisteredModel(Unprocessable):
    """model is not offered for the runtime"""

    code = "UNREGISTERED_MODEL_FOR_RUNTIME"


class NamesExhausted(Conflict):
    """too many workspaces with this name"""

    code = "NAME_EXHAUSTED"


class NameTaken(Conflict):
    """a workspace with this name already exists under the same parent"""

    code = "NAME_TAKEN"


class RuntimeKindFixed(Conflict):
    """a workspace is external or managed for good; create another one"""

    code = "RUNTIME_KIND_FIXED"


class ParentCycle(Conflict):
    """a workspace cannot be moved below itself"""

    code = "PARENT_CYCLE"


class PlatformHasNoParent(Conflict):
    """a platform workspace cannot have a parent"""

    code = "PLATFORM_HAS_NO_PARENT"


class PlatformExists(Conflict):
    """the organization already has a platform workspace"""

    code = "PLATFORM_EXISTS"


class ConfirmationRequired(Conflict):
    """workspace has children; repeat with ?confirm=true to delete the whole subtree"""

    code = "CONFIRMATION_REQUIRED"

    def body(self) -> dict[str, object]:
        """The public shape, in which `message` carries the text (contract 02 §4.6)."""
        return {"status": "confirmation_required", "message": self.text, **ApiError.body(self)}


class InvalidConfigJson(InvalidRequest):
    """invalid JSON"""

    code = "invalid_json"


class ConfigIsNoObject(InvalidRequest):
    """config must be a JSON object"""

    code = "config_is_no_object"


class ConfigTooLarge(TooLarge):
    """body too large or unreadable"""

    code = "too_large"


class StoredConfigTooLarge(TooLarge):
    """the stored config would exceed 1 MiB"""

    code = "config_too_large"


class NoConfig(InvalidRequest):
    """no config found for workspace"""

    code = "no_config"


class NoSubWorkspaces(InvalidRequest):
    """workspace has no sub_workspaces defined in config"""

    code = "no_sub_workspaces"


class BrokenConfig(Unprocessable):
    """failed to parse config"""

    code = "broken_config"


class MayNotBroadcast(NotPermitted):
    """broadcasting is not enabled for this workspace"""

    code = "BROADCAST_DISABLED"


class TooManyBroadcasts(RateLimited):
    """too many broadcasts; at most 10 a minute"""

    code = "too_many_broadcasts"


class SharedContextRemoved(Gone):
    """shared-context was removed; use team memory"""

    code = "SHARED_CONTEXT_REMOVED"


class NotExternal(InvalidRequest):
    """the workspace is not external; use POST /workspaces/:id/restart to give its agent a new token"""

    code = "NOT_EXTERNAL"


class AgentNotFound(NotFound):
    """agent not found"""

    code = "agent_not_found"


class AgentOccupied(Conflict):
    """workspace already has an active agent, use PATCH to replace"""

    code = "agent_occupied"


class NoAgentToReplace(NotFound):
    """no active agent to replace"""

    code = "no_active_agent"


class NoAgentToRemove(NotFound):
    """no active agent to remove"""

    code = "no_active_agent"


class NoAgentToMove(NotFound):
    """no active agent in source workspace"""

    code = "no_active_agent"


class TargetNotFound(NotFound):
    """target workspace not found"""

    code = "target_not_found"


class TargetOccupied(Conflict):
    """target workspace already has an active agent"""

    code = "target_occupied"


class NotBothWorkspaces(NotPermitted):
    """moving an agent takes authority over both workspaces"""

    code = "not_both_workspaces"
