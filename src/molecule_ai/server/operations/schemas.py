"""What the watching routes answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct


class Health(Struct):
    """All values are strings: existing command lines decode them as such (contract 08 W12)."""

    status: Annotated[str, Meta(examples=["ok"])]
    version: Annotated[str, Meta(examples=["0.1.0"])]
    uptime: Annotated[str, Meta(examples=["3h12m"])]
    database: Annotated[str, Meta(description="`ok` or `unreachable`.", examples=["ok"])]


class BuildInfo(Struct):
    """Which build is running."""

    git_sha: Annotated[str, Meta(description='40 hex digits or "dev".', examples=["dev"])]
    version: Annotated[str, Meta(examples=["0.1.0"])]
    built_at: Annotated[
        str | None, Meta(description="RFC 3339; null for a checkout.", examples=["2026-11-22T04:00:00Z"])
    ]


class OrgIdentity(Struct):
    """The organization's display name, or "" when it has none."""

    name: Annotated[str, Meta(examples=["Acme"])]


class Subsystem(Struct):
    """One engine of the answering process."""

    last_tick_at: datetime | None
    seconds_ago: int | None
    last_pulse_at: datetime | None
    interval_seconds: float
    stale: bool
    restarts: int
    last_error: str | None
    state: Annotated[str, Meta(description="running, backoff, stopped or disabled.", examples=["running"])]
    last_result: Any


class Liveness(Struct):
    """Every engine by name."""

    subsystems: dict[str, Subsystem]
