"""Secrets on the wire: names and dates, never a value except in the agent's own bundle."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field


class Delivery(StrEnum):
    """How a value may reach the agent."""

    ENVIRONMENT = "environment"  # a variable of the agent's process
    COMMAND = "command"  # only of the one command that asks for it
    BROKER = "broker"  # never: an egress proxy fills it in


class Scope(StrEnum):
    """Whose secret it is."""

    WORKSPACE = "workspace"
    GLOBAL = "global"


class Secret(Struct, kw_only=True):
    """One secret without its value."""

    key: Annotated[str, Meta(examples=["ANTHROPIC_API_KEY"])]
    has_value: bool
    scope: Scope
    delivery: Delivery
    hosts: Annotated[list[str], Meta(description="Where it may be sent; empty: anywhere.")]
    created_at: datetime
    updated_at: datetime


class SecretInput(Struct, kw_only=True):
    """A value to keep."""

    key: Annotated[str, Meta(min_length=1, examples=["ANTHROPIC_API_KEY"])]
    value: Annotated[str, Meta(min_length=1)]
    delivery: str = Delivery.ENVIRONMENT
    hosts: Annotated[list[Annotated[str, Meta(max_length=253)]], Meta(max_length=50)] = field(
        default_factory=list
    )

    def __repr__(self) -> str:
        return f"SecretInput(key={self.key!r}, value=***)"


class SecretSaved(Struct, kw_only=True, omit_defaults=True):
    """Stored; `scope` only for org-wide secrets."""

    status: Annotated[str, Meta(examples=["saved"])]
    key: str
    scope: str | None = None


class Dependents(Struct, kw_only=True):
    """The workspaces that a change of the secret would restart."""

    dependents: list[str]
