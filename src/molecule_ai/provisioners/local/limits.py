"""What a tier means for a process of this machine (contract 02 §8).

A process has no container around it. The kernel holds it to its data size, its open files and its core
dumps, prefers others when the processor or the memory is short, and no more: tiers bound accidents here,
not malice. `docs/guides/adding-a-provisioner.md` lists what each back end really enforces.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

MiB = 1024 * 1024
OOM_SCORE = "500"  # of 1000: when memory runs out, agents go before the server and the database


class Limits(Struct, frozen=True, kw_only=True):
    """Applied by a process to itself before anything of the agent runs in it."""

    data_mb: int
    """Writable private memory of each process; address space is no measure for a threaded program."""
    open_files: int
    niceness: int


LIMITS_BY_TIER: Mapping[int, Limits] = {
    1: Limits(data_mb=256, open_files=1024, niceness=10),
    2: Limits(data_mb=512, open_files=2048, niceness=5),
    3: Limits(data_mb=2048, open_files=4096, niceness=2),
    4: Limits(data_mb=4096, open_files=8192, niceness=0),
}
STANDARD_TIER = 2  # also what any other number means


def limits_for(tier: int, memory_mb_by_tier: Mapping[int, int]) -> Limits:
    known = tier if tier in LIMITS_BY_TIER else STANDARD_TIER
    limits = LIMITS_BY_TIER[known]
    return Limits(
        data_mb=memory_mb_by_tier.get(known, limits.data_mb),
        open_files=limits.open_files,
        niceness=limits.niceness,
    )


def describe(limits: Limits, *, is_confined: bool) -> str:
    """Say in one line what confines the agent, and what does not."""
    files = "sees system and own files only" if is_confined else "sees all files of the server's user"
    return (
        f"process: {limits.data_mb} MiB data per process, {limits.open_files} open files, "
        f"niceness {limits.niceness}; {files}; shares user and network with the server"
    )


def apply(limits: Limits) -> None:
    """Confine the calling process and everything it will start."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, limits.open_files)
    _lower(resource.RLIMIT_DATA, limits.data_mb * MiB)
    if limits.niceness:
        with suppress(OSError):
            os.nice(limits.niceness)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(ValueError, OSError):  # a platform may refuse a kind of limit that it lists
        resource.setrlimit(kind, (ceiling, ceiling))
