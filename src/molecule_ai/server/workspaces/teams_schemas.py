"""Teams on the wire (contract 02 §6.5)."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct


class TeamMember(Struct, kw_only=True):
    """A direct child."""

    id: UUID
    name: str
    role: str | None


class Expanded(Struct, kw_only=True):
    """The team as it is now."""

    children: list[TeamMember]
    status: Annotated[str, Meta(examples=["expanded"])] = "expanded"


class Collapsed(Struct, kw_only=True):
    """Who was removed, by name."""

    removed: list[str]
    status: Annotated[str, Meta(examples=["collapsed"])] = "collapsed"
