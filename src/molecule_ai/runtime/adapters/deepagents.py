"""Deep Agents: LangGraph's loop with a plan, files, a shell and helpers of its own."""

from typing import Any

from deepagents import create_deep_agent
from deepagents.backends import LocalShellBackend

from molecule_ai.runtime.adapters.base import AdapterContext
from molecule_ai.runtime.adapters.langgraph import LangGraph, chat_model, langchain_tool


class DeepAgents(LangGraph):
    """Runs like the langgraph runtime; files and commands are those of the workspace."""

    def compiled(self, context: AdapterContext) -> Any:
        """Return the graph to run."""
        directory = context.workspace_dir if context.workspace_dir.is_dir() else context.config_dir
        return create_deep_agent(
            chat_model(context),
            [langchain_tool(tool) for tool in context.tools],
            backend=LocalShellBackend(root_dir=directory, virtual_mode=False, inherit_env=True),
        )
