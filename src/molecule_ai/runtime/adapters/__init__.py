"""Runtimes by name; a new one is a file here and a line in the table."""

import importlib

from molecule_ai.runtime.adapters.base import RuntimeAdapter
from molecule_ai.runtime.preflight import NotConfigured

ADAPTERS = {
    "langgraph": "molecule_ai.runtime.adapters.langgraph:LangGraphAdapter",
    "echo": "molecule_ai.runtime.adapters.echo:EchoAdapter",
    "command": "molecule_ai.runtime.adapters.command:CommandAdapter",
    "codex": "molecule_ai.runtime.adapters.command:CommandAdapter",
    "gemini-cli": "molecule_ai.runtime.adapters.command:CommandAdapter",
    "hermes": "molecule_ai.runtime.adapters.command:CommandAdapter",
    "openclaw": "molecule_ai.runtime.adapters.command:CommandAdapter",
}


def load_adapter(runtime: str, module: str = "") -> RuntimeAdapter:
    """Import and build the adapter of a runtime, or the `Adapter` that a module exports."""
    target = f"{module}:Adapter" if module else ADAPTERS.get(runtime)
    if target is None:
        raise NotConfigured(f"runtime {runtime!r} has no adapter here; known: {', '.join(sorted(ADAPTERS))}")
    path, _, name = target.partition(":")
    try:
        adapter: RuntimeAdapter = getattr(importlib.import_module(path), name)()
    except (ImportError, AttributeError) as error:
        raise NotConfigured(f"adapter {target} cannot be loaded: {error}") from error
    return adapter
