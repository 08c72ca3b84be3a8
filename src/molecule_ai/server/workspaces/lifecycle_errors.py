"""What the lifecycle verbs refuse with, in the words of contract 02 §5."""

from __future__ import annotations

from molecule_ai.kernel.errors import BadGateway, Conflict, NotFound, NotOffered, Unavailable


class AncestorPaused(Conflict):
    """parent workspace "…" is paused — resume it first"""

    code = "ANCESTOR_PAUSED"

    def __init__(self, name: str) -> None:
        super().__init__(f'parent workspace "{name}" is paused — resume it first')


class ExternalWorkspace(Conflict):
    """this workspace is run elsewhere; to lock its agent out, rotate its credentials"""

    code = "EXTERNAL_WORKSPACE"


class ProvisionerNotAvailable(Unavailable):
    """provisioner not available"""

    code = "NO_BACKEND"


class NotPausable(NotFound):
    """workspace not found or already paused"""

    code = "NOT_PAUSABLE"


class NotPaused(NotFound):
    """workspace not found or not paused"""

    code = "NOT_PAUSED"


class NotHibernatable(NotFound):
    """workspace not found or not in a hibernatable state (must be online or degraded)"""

    code = "NOT_HIBERNATABLE"


class HasActiveTasks(Conflict):
    """workspace has active tasks; use ?force=true to terminate them"""

    code = "ACTIVE_TASKS"


class NotStopped(BadGateway):
    """the agent could not be stopped and goes on"""

    code = "STOP_FAILED"


class NotHibernated(Conflict):
    """workspace is not hibernated"""

    code = "NOT_HIBERNATED"


class NoConsole(NotOffered):
    """console output unavailable on this deployment (no control plane)"""

    code = "NO_CONSOLE"


class ConsoleElsewhere(BadGateway):
    """the agent runs on another node; ask a server there"""

    code = "CONSOLE_ELSEWHERE"
