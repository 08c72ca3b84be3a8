"""What a process that forks agents imports before the first fork.

A forked agent shares these libraries with its siblings and answers its first message at once. This
module itself is light: a server may ask it without becoming an agent.
"""

BASE = ("molecule_ai.runtime.main", "molecule_ai.runtime.protocol")
BY_RUNTIME = {
    "langgraph": (
        "molecule_ai.runtime.adapters.library",
        "molecule_ai.runtime.adapters.langgraph",
    ),
    "echo": ("molecule_ai.runtime.adapters.library", "molecule_ai.runtime.adapters.echo"),
}
# The other libraries start threads or are not installed; their agents get what all have in common.
PROGRAMS = ("molecule_ai.runtime.adapters.library", "molecule_ai.runtime.adapters.command")


def preload(runtime: str) -> tuple[str, ...]:
    """Return the modules for agents of a runtime; an unknown one gets what every agent needs."""
    return (*BASE, *BY_RUNTIME.get(runtime, PROGRAMS))
