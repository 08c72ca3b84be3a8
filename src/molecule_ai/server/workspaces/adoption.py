"""What an agent's own `config.yaml` says and its row does not (contract 02 §5.2, §10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from . import runtimes
from .reconcile_store import Claim

MAX_TASKS = 1000
MAX_IDLE_MINUTES = 525_600


def adopted(claim: Claim, config: Mapping[str, Any]) -> Claim:
    """The claim as the file amends it.

    The runtime of an edited file counts, because it is what will run; limits count where nobody chose
    one for the row.
    """
    changes: dict[str, Any] = {}
    runtime = config.get("runtime")
    if isinstance(runtime, str) and runtime != claim.runtime and _is_managed(runtime):
        changes["runtime"] = runtime
    if claim.max_concurrent_tasks == 1 and (tasks := _count(config, "max_concurrent_tasks", MAX_TASKS)):
        changes["max_concurrent_tasks"] = tasks
    if claim.hibernation_idle_minutes is None:
        changes["hibernation_idle_minutes"] = _count(config, "hibernation_idle_minutes", MAX_IDLE_MINUTES)
    return structs.replace(claim, **changes)


def _is_managed(runtime: str) -> bool:
    return runtime in runtimes.registry() and runtime != runtimes.EXTERNAL


def _count(config: Mapping[str, Any], key: str, most: int) -> int | None:
    value = config.get(key)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
    return value if is_count else None
