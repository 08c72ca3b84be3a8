"""Runtimes by name; a new one is a file here and a line in the table."""

import importlib

from molecule_ai.runtime.adapters.base import RuntimeAdapter
from molecule_ai.runtime.adapters.library import Library, LibraryAdapter
from molecule_ai.runtime.preflight import NotConfigured

HERE = "molecule_ai.runtime.adapters"
COMMAND = f"{HERE}.command:CommandAdapter"

ADAPTERS: dict[str, str | Library] = {
    "langgraph": Library(f"{HERE}.langgraph:LangGraph", ("langchain", "langgraph"), offline=True),
    "deepagents": Library(f"{HERE}.deepagents:DeepAgents", ("deepagents",), "deepagents", offline=True),
    "claude-code": Library(f"{HERE}.claude_code:ClaudeCode", ("claude_agent_sdk",), "claude-code"),
    "openai-agents": Library(f"{HERE}.openai_agents:OpenAIAgents", ("agents",), "openai-agents"),
    "crewai": Library(f"{HERE}.crewai:CrewAI", ("crewai",), "crewai"),
    "autogen": Library(f"{HERE}.autogen:AutoGen", ("autogen_agentchat", "autogen_ext"), "autogen"),
    "google-adk": Library(f"{HERE}.google_adk:GoogleADK", ("google.adk",), "google-adk"),
    "echo": f"{HERE}.echo:EchoAdapter",
    "command": COMMAND,
    "codex": COMMAND,
    "gemini-cli": COMMAND,
    "hermes": COMMAND,
    "openclaw": COMMAND,
}


def load_adapter(runtime: str, module: str = "") -> RuntimeAdapter:
    """Import and build the adapter of a runtime, or the `Adapter` that a module exports."""
    target = f"{module}:Adapter" if module else ADAPTERS.get(runtime)
    if target is None:
        raise NotConfigured(f"runtime {runtime!r} has no adapter here; known: {', '.join(sorted(ADAPTERS))}")
    if isinstance(target, Library):
        return LibraryAdapter(runtime, target)
    path, _, name = target.partition(":")
    try:
        adapter: RuntimeAdapter = getattr(importlib.import_module(path), name)()
    except (ImportError, AttributeError) as error:
        raise NotConfigured(f"adapter {target} cannot be loaded: {error}") from error
    return adapter
