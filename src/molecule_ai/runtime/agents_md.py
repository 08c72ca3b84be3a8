"""AGENTS.md: what a tool that works in the workspace should know about its agent."""

import logging
from pathlib import Path

from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.files import read_text

log = logging.getLogger(__name__)


MARK = "<!-- written by the agent at each start -->"


def write_agents_md(workspace_dir: Path, config: AgentConfig, *, name: str, role: str, endpoint: str) -> None:
    """Write AGENTS.md anew, unless the workspace is somebody's project and has its own.

    A read-only workspace is no reason to stop.
    """
    tools = [*config.tools, *config.plugins]
    listed = "\n".join(f"- {tool}" for tool in tools) or "None"
    text = (
        f"# {name}\n\n**Role:** {role or name}\n\n## Description\n\n{config.description or role or name}\n\n"
        f"## A2A Endpoint\n\n{endpoint}\n\n## MCP Tools\n\n{listed}\n\n{MARK}\n"
    )
    path = workspace_dir / "AGENTS.md"
    if MARK not in (read_text(path) or MARK):
        log.info("agents_md_kept path=%s", path)
        return
    try:
        workspace_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        log.warning("agents_md_failed directory=%s error=%s", workspace_dir, error.strerror)
