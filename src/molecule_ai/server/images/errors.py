"""What can be wrong with a refresh of images (contract 02 §17)."""

from __future__ import annotations

from collections.abc import Sequence

from molecule_ai.kernel.errors import ApiError, Conflict, InvalidRequest, NotOffered


class NoDocker(NotOffered):
    """this deployment runs no containers"""

    code = "NO_DOCKER"


class UnknownRuntime(InvalidRequest):
    """unknown runtime"""

    code = "UNKNOWN_RUNTIME"

    def __init__(self, runtime: str = "X", known: Sequence[str] = ()) -> None:
        super().__init__(f"unknown runtime: {runtime}", known_runtimes=list(known))


class RefreshRunning(Conflict):
    """a refresh of images is running"""

    code = "REFRESH_RUNNING"


class RefreshFailed(ApiError):
    """the container engine cannot be reached"""

    code = "REFRESH_FAILED"
