"""What can go wrong between the wish that an agent runs and the agent."""

from __future__ import annotations

from typing import ClassVar

from molecule_ai.kernel.errors import InvalidRequest, NotFound, NotPermitted, TooLarge


class ProvisionError(Exception):
    """Base of everything a back end raises; `code` is the fail reason of contract 02 §9.2.

    The text is safe to show to the owner of the workspace. Engine details belong to the cause.
    """

    code: ClassVar[str] = "START"


class StartFailed(ProvisionError):
    """The back end could not bring the agent to life."""


class AlreadyRunning(StartFailed):
    """An agent of this workspace is alive; a second one would be its double."""


class NoConfigSource(ProvisionError):
    """Neither the launch nor the workspace's own files hold a config.yaml."""

    code = "NO_CONFIG_SOURCE"


class NoBackend(ProvisionError):
    """This installation has nowhere to run agents."""

    code = "NO_BACKEND"


class Elsewhere(ProvisionError):
    """The agent lives on a node that this process cannot reach; only a replica there can judge it."""

    def __init__(self, node: str) -> None:
        super().__init__(f"the agent runs on another node ({node})")
        self.node = node


class FileMissing(NotFound):
    """file not found"""

    code = "file_not_found"


class IsDirectory(InvalidRequest):
    """path is a directory"""

    code = "is_directory"


class FileTooLarge(TooLarge):
    """file too large"""

    code = "file_too_large"


class FileProtected(NotPermitted):
    """this file belongs to the platform"""

    code = "file_protected"


class CommandNotFound(InvalidRequest):
    """command not found"""

    code = "command_not_found"

    def __init__(self, command: str) -> None:
        super().__init__(f"command not found: {command}")
