"""The system prompt, assembled in the order of contract 02 §14."""

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.files import read_text
from molecule_ai.runtime.peers import Peer, Peers
from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable
from molecule_ai.runtime.plugins import plugin_fragments, plugin_rules
from molecule_ai.runtime.skills import Skill

log = logging.getLogger(__name__)

INSTRUCTIONS_FRESH_SECONDS = 300.0
NOTES = ("MEMORY.md", "USER.md")

COORDINATOR = """\
You lead a team. Delegate work to the members whose role fits it instead of doing it yourself.
Give independent parts to several members at once, each with the context that it needs.
Combine their answers into one reply of your own; do not paste them one after another.
Say which members could not be reached and what is missing because of that."""

APPROVALS = """\
Call request_approval before an action that matches one of these patterns, with an action text that
matches it too and with the exact arguments. Act only when the decision is "approved"."""

DELEGATION_FAILURES = """\
## When a delegation fails

A transient failure (timeout, busy, restarting) deserves one more try after 30 seconds.
If it persists, or the refusal names a rule, report it to whoever asked. Never drop a task silently."""


class PromptBuilder:
    """Reads what changes slowly once, and asks for what changes fast each time."""

    def __init__(
        self, platform: Platform, peers: Peers, config: AgentConfig, config_dir: Path, plugins_dir: Path
    ) -> None:
        self._platform = platform
        self._peers = peers
        self._config = config
        self._config_dir = config_dir
        self._plugins_dir = plugins_dir
        self._instructions = ""
        self._instructions_at = float("-inf")
        self.skills: list[Skill] = []

    async def build(self) -> str:
        """Return the prompt for a task that starts now."""
        peers = await self._peers.last_known()
        sections = [
            _titled("# Platform Instructions", await self._current_instructions()),
            *self._prompt_files(),
            *self._notes(),
            _titled("## Platform Rules", "\n\n".join(plugin_rules(self._config_dir, self._plugins_dir))),
            _titled("## Platform Guidelines", "\n\n".join(self._guidelines(peers))),
            _titled("## Actions That Need Approval", self._approval_rules()),
            _titled("## Your Skills", "\n\n".join(_skill_text(skill) for skill in self.skills)),
            _titled("## Your Peers", "\n".join(_peer_line(peer) for peer in peers if peer.has_card)),
            DELEGATION_FAILURES if peers else "",
        ]
        return "\n\n".join(section for section in sections if section)

    async def _current_instructions(self) -> str:
        if time.monotonic() - self._instructions_at > INSTRUCTIONS_FRESH_SECONDS:
            try:
                self._instructions = await self._platform.instructions()
                self._instructions_at = time.monotonic()
            except (PlatformRefused, PlatformUnreachable) as error:
                log.warning("instructions_failed error=%s", error)
                self._instructions_at = time.monotonic()
        return self._instructions

    def _prompt_files(self) -> Iterable[str]:
        for name in self._config.prompt_files or ["system-prompt.md"]:
            yield self._read(name)

    def _notes(self) -> Iterable[str]:
        for name in NOTES:
            if name not in self._config.prompt_files:
                yield self._read(name)

    def _guidelines(self, peers: list[Peer]) -> list[str]:
        fragments = plugin_fragments(self._config_dir, self._plugins_dir)
        leads = any(peer.relation == "child" for peer in peers)
        return [*fragments, COORDINATOR] if leads else fragments

    def _approval_rules(self) -> str:
        rules = self._config.approvals
        if not rules:
            return ""
        lines = [f"- {rule.action}{f': {rule.reason}' if rule.reason else ''}" for rule in rules]
        return "\n".join([APPROVALS, *lines])

    def _read(self, name: str) -> str:
        path = self._config_dir / name
        if not path.resolve().is_relative_to(self._config_dir.resolve()):
            return ""
        return (read_text(path) or "").strip()


def _titled(title: str, body: str) -> str:
    return f"{title}\n\n{body.strip()}" if body.strip() else ""


def _skill_text(skill: Skill) -> str:
    about = f"\n{skill.about.description}" if skill.about.description else ""
    return f"### {skill.name}{about}\n\n{skill.instructions}"


def _peer_line(peer: Peer) -> str:
    role = f", {peer.role}" if peer.role else ""
    skills = f"; skills: {', '.join(peer.skills)}" if peer.skills else ""
    return f"- {peer.name}{role} ({peer.relation}, id {peer.id}, {peer.status}{skills})"
