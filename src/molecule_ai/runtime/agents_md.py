"""AGENTS.md: what a tool that works in the workspace should know about its agent."""

import logging
from pathlib import Path

from molecule_ai.runtime.config import AgentConfig

log = logging.getLogger(__name__)


def write_agents_md(workspace_dir: Path, config: AgentConfig, *, name: str, role: str, endpoint: str) -> None:
    """Overwrite AGENTS.md; a read-only workspace is no reason to stop."""
    tools = [*config.tools, *config.plugins]
    listed = "\n".join(f"- {tool}" for tool in tools) or "None"
    text = (
        f"# {name}\n\n**Role:** {role or name}\n\n## Description\n\n{config.description or role or name}\n\n"
        f"## A2A Endpoint\n\n{endpoint}\n\n## MCP Tools\n\n{listed}\n"
    )
    try:
        workspace_dir.mkdir(parents=True, exist_ok=True)
        (workspace_dir / "AGENTS.md").write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning("agents_md_failed directory=%s error=%s", workspace_dir, error.strerror)
