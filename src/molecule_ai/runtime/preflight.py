"""What must hold before an agent may call itself configured (contract 02 §14)."""

from collections.abc import Mapping
from pathlib import Path

from molecule_ai.runtime.config import AgentConfig


class NotConfigured(Exception):
    """The agent cannot work, and its owner can mend the reason."""


def check(config: AgentConfig, config_dir: Path, environ: Mapping[str, str]) -> list[str]:
    """Refuse what would fail later, and return what only deserves a warning."""
    if not 1 <= config.a2a.port <= 65535:
        raise NotConfigured(f"a2a.port must be between 1 and 65535, not {config.a2a.port}")
    missing = sorted(name for name in config.runtime_config.required_env if not environ.get(name))
    if missing:
        raise NotConfigured(f"missing environment variables: {', '.join(missing)}")
    token_file = config.runtime_config.auth_token_file
    if token_file and not (config_dir / token_file).is_file():
        raise NotConfigured(f"runtime_config.auth_token_file does not exist: {token_file}")
    return [
        *(f"prompt file is missing: {name}" for name in config.prompt_files if not _inside(config_dir, name)),
        *(
            f"skill is missing: {name}"
            for name in config.skills
            if not _inside(config_dir, f"skills/{name}/SKILL.md")
        ),
    ]


def _inside(config_dir: Path, name: str) -> bool:
    path = (config_dir / name).resolve()
    return path.is_relative_to(config_dir.resolve()) and path.is_file()
