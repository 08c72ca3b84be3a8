"""Bodies of the lifecycle routes (contract 02 §5)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from .status import Status


class Restart(Struct, frozen=True, kw_only=True):
    """How to start again; without any flag the agent's own files stay as they are."""

    template: Annotated[str | None, Meta(description="Apply this template over the configuration.")] = None
    apply_template: Annotated[
        bool, Meta(description="Apply the template named like the workspace, else `<runtime>-default`.")
    ] = False
    rebuild_config: Annotated[
        bool, Meta(description="The configuration was lost: write what the workspace was created with.")
    ] = False
    reset: Annotated[bool, Meta(description="Forget the agent's session.")] = False


class Restarted(Struct, frozen=True):
    """The restart is on its way."""

    status: Status
    config_dir: Annotated[str, Meta(examples=["existing-volume"])]
    reset_session: bool


class Paused(Struct, frozen=True):
    """How many workspaces this call paused."""

    status: Status
    paused_count: int


class Resumed(Struct, frozen=True):
    """How many workspaces this call brings back."""

    status: Status
    resumed_count: int


class Changed(Struct, frozen=True):
    """The status that the call leads to."""

    status: Status


class BootstrapFailure(Struct, frozen=True, kw_only=True):
    """What a control plane saw of a machine that died before its agent registered."""

    error: str | None = None
    log_tail: str | None = None


class Noted(Struct, frozen=True, omit_defaults=True):
    """Whether the report changed anything."""

    ok: bool
    no_change: bool = False


class Console(Struct, frozen=True):
    """The end of what the agent printed."""

    output: str


class Removal(Struct, frozen=True):
    """What a delete did."""

    status: Annotated[str, Meta(examples=["removed"])]
    cascade_deleted: int


class Child(Struct, frozen=True):
    """A workspace that would go too."""

    id: UUID
    name: str
