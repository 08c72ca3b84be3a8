"""What an operator can set about containers; `server/settings.py` describes each one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from .tiers import Size

NETWORK = "molecule-monorepo-net"  # contract 02 §9.4
RESTART_POLICY = "unless-stopped"


class DockerOptions(Struct, frozen=True, kw_only=True):
    """The part of the settings that concerns containers."""

    host: str = ""
    """`unix://`, `tcp://` or `ssh://`; empty: what `DOCKER_HOST` or the usual sockets say."""
    network: str = NETWORK
    publish_address: str = "127.0.0.1"
    """Where agents' ports appear on the machine of the engine."""
    shares_network: bool | None = None
    """The server is a container in the agents' network: it calls them by name, nothing is published.
    None: so it is when the engine says so. That a process is in some container proves nothing."""
    host_gateway: str = ""
    """The address behind `host.docker.internal`; empty: whatever the engine understands."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Image by runtime."""
    platform: str = ""
    registry_user: str = ""
    registry_token: str = ""
    sizes: Mapping[int, Size] = field(default_factory=dict)
    """By tier; what is missing has the usual size."""
    allow_privileged: bool = False
    default_directory: str = ""
    """Bound as the workspace when a workspace may use the operator's files and names no directory."""
    forget_sessions: bool = False
    org: str = ""
    command: Sequence[str] = ()
    """What an agent runs; empty: what its image says."""
