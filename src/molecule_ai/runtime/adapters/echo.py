"""A runtime without any model: it answers with what it was told."""

from collections.abc import AsyncIterator

from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Reply


class EchoAdapter:
    """For tests, measurements and wiring."""

    capabilities = Capabilities()

    async def setup(self, context: AdapterContext) -> None:
        """Need nothing."""

    async def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]:
        """Answer at once."""
        yield Reply(task.text)
