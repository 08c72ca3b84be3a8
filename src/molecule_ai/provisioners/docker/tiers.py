"""What a tier means for a container (contract 02 §8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

MiB = 1024 * 1024
SANDBOX_TIER = 1
STANDARD_TIER = 2  # also what any other number means
PRIVILEGED_TIER = 3
FULL_HOST_TIER = 4
USER = 1000  # of agents, whatever the image says, so that a change of image leaves files readable
HOME = "/home/agent"
# In memory, and not in the image: engines differ in what becomes of a directory that lies below.
SANDBOX_HOME = "/home/sandbox"
CPU_SHARES = 1024  # the unit of TIERn_CPU_SHARES: so many are one processor
NANO = 1_000_000_000
TMPFS = "rw,noexec,nosuid,size=64m"  # contract 02 §8
HOME_TMPFS = "rw,nosuid,nodev,size=64m,mode=1777"  # not every engine can give it to a user


class Size(Struct, frozen=True, kw_only=True):
    """How much of the machine a container may use."""

    memory_mb: int
    cpus: float
    processes: int
    open_files: int


SIZES: Mapping[int, Size] = {
    1: Size(memory_mb=256, cpus=0.5, processes=512, open_files=1024),
    2: Size(memory_mb=512, cpus=1, processes=1024, open_files=2048),
    3: Size(memory_mb=2048, cpus=2, processes=2048, open_files=4096),
    4: Size(memory_mb=4096, cpus=4, processes=4096, open_files=8192),
}


class Isolation(Struct, frozen=True, kw_only=True):
    """What really confines one container."""

    tier: int
    size: Size
    privileged: bool

    @property
    def is_sandbox(self) -> bool:
        return self.tier == SANDBOX_TIER

    @property
    def home(self) -> str:
        return SANDBOX_HOME if self.is_sandbox else HOME

    @property
    def has_host(self) -> bool:
        """Whether it shares the machine's network and may command the engine."""
        return self.privileged and self.tier == FULL_HOST_TIER

    @property
    def user(self) -> str:
        return "0:0" if self.privileged else f"{USER}:{USER}"

    def host_config(self) -> dict[str, Any]:
        """The fields of a `HostConfig` that confine."""
        memory = self.size.memory_mb * MiB
        limits = {
            "Memory": memory,
            "MemorySwap": memory,  # the same: no swap beyond it
            "NanoCpus": int(self.size.cpus * NANO),
            "PidsLimit": self.size.processes,
            "Ulimits": [{"Name": "nofile", "Soft": self.size.open_files, "Hard": self.size.open_files}],
        }
        if self.privileged:
            return {**limits, "Privileged": True, "PidMode": "host"}
        confined = {**limits, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]}
        if self.is_sandbox:
            confined |= {"ReadonlyRootfs": True, "Tmpfs": {"/tmp": TMPFS, SANDBOX_HOME: HOME_TMPFS}}  # noqa: S108
        return confined

    def describe(self) -> str:
        """Say in one line what confines the agent, and what does not."""
        size = (
            f"container: {self.size.memory_mb} MiB memory, {self.size.cpus:g} CPU, "
            f"{self.size.processes} processes"
        )
        if self.has_host:
            return f"{size}; privileged, with the processes, network and engine of the host"
        if self.privileged:
            return f"{size}; privileged, with the processes of the host"
        root = "read-only root, home in memory" if self.is_sandbox else "writable root"
        return f"{size}; user {USER}, no capabilities, no new privileges, default seccomp profile; {root}"


def isolation_for(tier: int, sizes: Mapping[int, Size], *, allow_privileged: bool) -> Isolation:
    """Privilege is no matter of size: without the operator's leave every tier is unprivileged."""
    known = tier if tier in SIZES else STANDARD_TIER
    return Isolation(
        tier=known,
        size=sizes.get(known, SIZES[known]),
        privileged=allow_privileged and known >= PRIVILEGED_TIER,
    )
