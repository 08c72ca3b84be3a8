"""What a refresh of images has done."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct


class Refreshed(Struct, frozen=True):
    """Every runtime that was asked for is pulled or failed."""

    pulled: Annotated[list[str], Meta(description="Runtimes whose newest image is here now.")]
    failed: Annotated[list[str], Meta(description="Runtimes whose image could not be had.")]
    recreated: Annotated[
        list[str], Meta(description="Containers of idle agents that start anew on a newer image.")
    ]
    deferred: Annotated[
        list[UUID], Meta(description="Workspaces that follow as soon as their tasks have ended.")
    ]


class Resident(Struct, frozen=True, kw_only=True):
    """An agent that runs on some image."""

    id: UUID
    runtime: str
    handle: dict[str, Any]
    active_tasks: int
