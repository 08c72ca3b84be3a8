"""Organizations on the wire (contract 06 §3.1 and §3.2)."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType


class OrgTemplate(Struct, kw_only=True):
    """A bundled or installed organization that can be imported by its directory name."""

    dir: Annotated[str, Meta(examples=["launch-studio"])]
    name: str
    description: str
    workspaces: Annotated[int, Meta(description="All roles, those that do not spawn included.")]
    required_env: list[str | dict[str, list[str]]]
    recommended_env: list[str | dict[str, list[str]]]
    error: Annotated[str | UnsetType, Meta(description="Why it cannot be imported.")] = UNSET


class OrgImport(Struct, kw_only=True):
    """What to import: a directory name, or a whole document inline, as an object or as YAML text."""

    dir: Annotated[str | None, Meta(examples=["launch-studio"])] = None
    template: dict[str, Any] | str | None = None
    yaml: str | None = None
    source: str | None = None
    force: Annotated[bool, Meta(description="Do not insist on required environment variables.")] = False
    mode: Annotated[str, Meta(description="`merge`: what is there already stays.", examples=["merge"])] = ""
    dry_run: Annotated[bool, Meta(description="Check and show the plan, change nothing.")] = False


class SkippedChannel(Struct, frozen=True, kw_only=True):
    """A chat connection that was not made."""

    workspace: str
    type: str
    reason: str


class ImportedWorkspace(Struct, kw_only=True):
    """One role of the import, in the order of the document."""

    id: Annotated[UUID | None, Meta(description="Null in a dry run for a role that is not there yet.")]
    name: str
    tier: int
    channels_skipped: list[SkippedChannel] | UnsetType = UNSET
    skipped: Annotated[bool | UnsetType, Meta(description="It was there already.")] = UNSET


class OrgImported(Struct, kw_only=True):
    """What the import did. `error` only when it stopped part-way (207)."""

    org: str
    workspaces: list[ImportedWorkspace]
    count: int
    mode: str
    created_count: int
    skipped_count: int
    warnings: list[str]
    dry_run: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
