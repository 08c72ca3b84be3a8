"""The ten states of a workspace and the only ways between them (contract 02 §5.1)."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Values of the database type `workspace_status`; a test compares the two lists."""

    PROVISIONING = "provisioning"
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    FAILED = "failed"
    PAUSED = "paused"
    HIBERNATING = "hibernating"
    HIBERNATED = "hibernated"
    AWAITING_AGENT = "awaiting_agent"
    REMOVED = "removed"


STOP_FAILED = "stop failed"  # how the reason begins of a workspace whose agent did not end


class Desired(StrEnum):
    """What somebody asked for; the reconciler makes it true."""

    RUN = "run"
    PAUSE = "pause"
    HIBERNATE = "hibernate"
    REMOVE = "remove"
    NONE = "none"  # external agents: nothing for us to start or stop
