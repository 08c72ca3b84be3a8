"""The rules of single fields (contract 02 §4.2, 06 §0.3)."""

from __future__ import annotations

from collections.abc import Mapping

from molecule_ai.kernel.paths import PathRejected, workspace_directory
from molecule_ai.provisioners.base import WorkspaceAccess

from .errors import InvalidWorkspaceAccess, InvalidWorkspaceDirectory

MAX_CHARACTERS = {"name": 255, "role": 1000, "model": 100, "runtime": 100}
_YAML_SPECIAL = frozenset("{}[]|>*&!")
_SPECIAL_IN = ("name", "role")


def complaint(fields: Mapping[str, str | None]) -> str | None:
    """What is wrong with name, role, model or runtime, in the contract's order of checks; None: nothing."""
    given = {key: value for key in MAX_CHARACTERS if (value := fields.get(key))}
    for key, value in given.items():
        if "\n" in value or "\r" in value:
            return f"{key} must not contain newline characters"
    for key in _SPECIAL_IN:
        if _YAML_SPECIAL.intersection(given.get(key, "")):
            return f"{key} contains invalid characters"
    for key, value in given.items():
        if len(value) > MAX_CHARACTERS[key]:
            return f"{key} must be at most {MAX_CHARACTERS[key]} characters"
    return None


def directory(path: str | None) -> str | None:
    """The operator's directory in its clean form. Raises `InvalidWorkspaceDirectory`."""
    if not path:
        return None
    try:
        return str(workspace_directory(path))
    except PathRejected as problem:
        raise InvalidWorkspaceDirectory from problem


def access(value: str | None, workspace_dir: str | None) -> WorkspaceAccess:
    """What the agent may do in the directory. Raises `InvalidWorkspaceAccess`."""
    try:
        wanted = WorkspaceAccess(value or WorkspaceAccess.NONE)
    except ValueError as problem:
        raise InvalidWorkspaceAccess from problem
    if wanted is not WorkspaceAccess.NONE and not workspace_dir:
        raise InvalidWorkspaceAccess
    return wanted
