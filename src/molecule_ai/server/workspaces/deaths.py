"""Back ends that tell when an agent ends, so that nobody has to look for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeGuard

from molecule_ai.kernel import log
from molecule_ai.provisioners.base import Provisioner
from molecule_ai.provisioners.errors import ProvisionError

REVIVAL_SECONDS = 1.0  # in which the back end may bring it back by itself
PAUSE_SECONDS = 5.0  # before an engine that went away is listened to again; the sweep looks meanwhile


class Announces(Protocol):
    """A back end with news of deaths."""

    def deaths(self) -> AsyncIterator[str]:
        """The name of each agent that ends, while the back end can be reached."""
        ...


def announces(provisioner: Provisioner) -> TypeGuard[Announces]:
    return hasattr(provisioner, "deaths")


class Deaths:
    """Wakes the health sweep at the news of a death. The sweep judges; news that is missed costs seconds."""

    def __init__(self, source: Announces, wake: Callable[[], None]) -> None:
        self._source = source
        self._wake = wake
        self._log = log.get()

    async def run(self) -> None:
        """Listen for ever."""
        while True:
            try:
                async for name in self._source.deaths():
                    self._log.info("agent_ended", container=name)
                    await asyncio.sleep(REVIVAL_SECONDS)
                    self._wake()
            except ProvisionError as away:
                self._log.debug("deaths_unheard", error=str(away))
            await asyncio.sleep(PAUSE_SECONDS)
