"""Ending processes: ask, wait, kill, and look again until nothing is left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable

from molecule_ai.provisioners.errors import ProvisionError

from .identity import Identity, is_alive, send, send_to_group
from .scan import Marked

POLL_SECONDS = 0.02
KILL_SECONDS = 5.0  # what the kernel may need to take a killed process down
SWEEPS = 10  # a process may fork between the look and the kill, but not for ever faster than we look

Find = Callable[[], Awaitable[list[Marked]]]


async def end(find: Find, leader: Identity | None = None, grace: float = 0) -> None:
    """End the processes that `find` returns, and the group of the leader, whoever started them.

    Each signal goes to a process whose identity was just verified. Raises `ProvisionError` if one
    cannot be killed.
    """
    targets = await _look(find, leader)
    if targets and grace > 0:
        _signal(targets, leader, signal.SIGTERM)
        await _gone(targets, grace)
        targets = await _look(find, leader)
    for _ in range(SWEEPS):
        if not targets:
            return
        _signal(targets, leader, signal.SIGKILL)
        await _gone(targets, KILL_SECONDS)
        targets = await _look(find, leader)
    raise ProvisionError("the agent's processes cannot be ended")


async def _look(find: Find, leader: Identity | None) -> set[Identity]:
    found = {process.identity for process in await find()}
    if leader is not None and is_alive(leader):
        found.add(leader)
    return found


def _signal(targets: Iterable[Identity], leader: Identity | None, signum: signal.Signals) -> None:
    # The group first: once its leader is gone it cannot be verified any more.
    has_led = leader is not None and send_to_group(leader, signum)
    for target in targets:
        if target != leader or not has_led:
            send(target, signum)


async def _gone(targets: Iterable[Identity], seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while any(is_alive(target) for target in targets):
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
