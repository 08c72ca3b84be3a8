"""The agent card, in one document that readers of A2A 0.3 and of 1.0 both understand."""

from typing import Any

from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.skills import Skill

WELL_KNOWN_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
MODES = ["text/plain", "application/json"]


def build_card(
    config: AgentConfig, *, name: str, url: str, skills: list[Skill], failure: str | None
) -> dict[str, Any]:
    """Describe this agent; only what works is advertised (no push notifications)."""
    card: dict[str, Any] = {
        "name": name,
        "description": config.description or config.role or name,
        "version": config.version,
        "url": url,
        "protocolVersion": "0.3.0",
        "preferredTransport": "JSONRPC",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": version}
            for version in ("1.0", "0.3")
        ],
        "capabilities": {"streaming": config.a2a.streaming, "pushNotifications": False},
        "defaultInputModes": MODES,
        "defaultOutputModes": MODES,
        "skills": [skill.as_card() for skill in skills],
        "configuration_status": "ready" if failure is None else "not_configured",
    }
    if failure is not None:
        card["configuration_error"] = failure
    return card
