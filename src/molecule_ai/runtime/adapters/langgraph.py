"""LangGraph's agent loop with any chat model that `init_chat_model` knows, or the offline one."""

import asyncio
from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities
from molecule_ai.runtime.lean import load_module
from molecule_ai.runtime.messages import AgentEvent, AgentTask
from molecule_ai.runtime.preflight import NotConfigured

GRAPH_MODULE = "molecule_ai.runtime.adapters.langgraph_graph"
OFFLINE = "offline:"
NEEDED = ("langchain", "langgraph")


class LangGraphAdapter:
    """Loads the libraries with the first task; a real model is built at set-up, to prove that it can be."""

    capabilities = Capabilities()

    def __init__(self) -> None:
        self._graph: Any = None
        self._building = asyncio.Lock()

    async def setup(self, context: AdapterContext) -> None:
        """Check the libraries, and the model with its key."""
        missing = [name for name in NEEDED if find_spec(name) is None]
        if missing:
            raise NotConfigured(f"the langgraph runtime needs the package(s) {', '.join(missing)}")
        if ":" not in context.model:
            raise NotConfigured(f"model must be written provider:model, not {context.model!r}")
        self._context = context
        if not context.model.startswith(OFFLINE):
            await self._ready()

    async def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]:
        """Run the loop of model and tools to its end."""
        graph = await self._ready()
        async for event in graph.run(task):
            yield event

    async def _ready(self) -> Any:
        async with self._building:
            if self._graph is None:
                module = await load_module(GRAPH_MODULE)
                self._graph = module.Graph(self._context)
        return self._graph
