"""One replica in a process of its own, for tests that kill it: `python -m tests.chaos.replica`."""

from __future__ import annotations

import asyncio
import os
from uuid import UUID

from molecule_ai.server.app import Server, running
from molecule_ai.server.delegations.schemas import Delegate
from molecule_ai.server.environment import read


async def main() -> None:
    """Serve the engines until killed; with DELEGATE=source,target hand over one task first."""
    async with running(Server(read()), engines=True) as server:
        if asked := os.environ.get("DELEGATE"):
            source, target = (UUID(text) for text in asked.split(","))
            await server.delegations.delegate(source, target, Delegate(task="from the child"))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
