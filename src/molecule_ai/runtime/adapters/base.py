"""The seam between the agent and whatever thinks for it."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.messages import AgentEvent, AgentTask
from molecule_ai.runtime.tools import Tool


class TaskFailed(Exception):
    """The runtime could not answer this task; the agent itself is fine."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a runtime does itself, so that the platform need not (contract 02 §11.2)."""

    heartbeat: bool = False
    scheduler: bool = False
    session: bool = False
    status_mgmt: bool = False
    retry: bool = False
    activity_decoration: bool = False
    channel_dispatch: bool = False


class Sessions(Protocol):
    """Where a runtime with conversations of its own finds the one that belongs to an A2A context."""

    def session(self, context_id: str) -> str: ...

    def keep_session(self, context_id: str, session_id: str) -> None: ...


class AdapterContext(Struct, frozen=True, kw_only=True):
    """Everything an adapter may know."""

    runtime: str
    config: AgentConfig
    name: str
    role: str
    model: str
    tools: tuple[Tool, ...]
    sessions: Sessions
    config_dir: Path
    workspace_dir: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    recursion_limit: int = 500
    max_tokens: int = 2048


class RuntimeAdapter(Protocol):
    """One runtime.

    `setup` proves that the runtime can work and raises NotConfigured with the reason when it
    cannot. `run` yields events and ends with a Reply, or raises TaskFailed; when it is cancelled
    it leaves nothing running.
    """

    capabilities: Capabilities

    async def setup(self, context: AdapterContext) -> None: ...

    def run(self, task: AgentTask) -> AsyncIterator[AgentEvent]: ...


def describe(capabilities: Capabilities, idle_timeout_seconds: int | None = None) -> dict[str, Any]:
    """Return the `runtime_metadata` of a heartbeat."""
    flags = {name: getattr(capabilities, name) for name in capabilities.__struct_fields__}
    metadata: dict[str, Any] = {"capabilities": flags}
    if idle_timeout_seconds:
        metadata["idle_timeout_seconds"] = idle_timeout_seconds
    return metadata
