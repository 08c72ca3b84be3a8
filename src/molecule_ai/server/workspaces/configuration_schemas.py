"""The free configuration object, abilities and connections on the wire (contract 02 §6, §7)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from .schemas import ExternalConnection


class Config(Struct, kw_only=True):
    """Whatever clients keep here; it is not `config.yaml`."""

    data: dict[str, Any]


class Done(Struct, kw_only=True):
    """It is stored."""

    status: Annotated[str, Meta(examples=["updated"])] = "updated"


class AbilitiesInput(Struct, kw_only=True):
    """Which abilities to change."""

    broadcast_enabled: bool | UnsetType = UNSET
    talk_to_user_enabled: bool | UnsetType = UNSET


class AbilitiesUpdated(Struct, kw_only=True):
    """The abilities as they are now."""

    status: Annotated[str, Meta(examples=["updated"])] = "updated"
    broadcast_enabled: bool
    talk_to_user_enabled: bool


class BroadcastInput(Struct, kw_only=True):
    """What everybody else shall know."""

    message: Annotated[str, Meta(min_length=1, max_length=16_000)]


class BroadcastSent(Struct, kw_only=True):
    """How many workspaces it is for."""

    status: Annotated[str, Meta(examples=["sent"])] = "sent"
    delivered: int


class Connected(Struct, kw_only=True):
    """How the external agent connects."""

    connection: ExternalConnection
