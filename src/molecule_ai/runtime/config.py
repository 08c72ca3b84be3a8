"""`config.yaml`: what an agent is (contract 02 §10)."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct, field

CONFIG_FILE = "config.yaml"
MAX_CONFIG_BYTES = 256 * 1024  # contract 02 §19
DEFAULT_MODEL = "anthropic:claude-opus-4-7"
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is optional in PyYAML


class InvalidConfig(Exception):
    """config.yaml is missing or cannot be understood."""


class RuntimeConfig(Struct, kw_only=True):
    command: str = ""
    args: list[str] = field(default_factory=list)
    required_env: list[str] = field(default_factory=list)
    timeout: float = 0.0
    model: str = ""
    auth_token_file: str = ""


class A2AConfig(Struct, kw_only=True):
    port: int = 8000
    streaming: bool = True


class DelegationConfig(Struct, kw_only=True):
    retry_attempts: int = 3
    retry_delay: float = 5.0
    timeout: float | None = None


class RbacConfig(Struct, kw_only=True):
    roles: list[str] = field(default_factory=lambda: ["operator"])
    allowed_actions: dict[str, list[str]] = field(default_factory=dict)


class ApprovalRule(Struct, kw_only=True):
    """An action that a human has to agree to; the pattern is in the manner of file names."""

    action: str
    reason: str = ""


class ComplianceConfig(Struct, kw_only=True):
    """Bounds of one task; 0 means none."""

    max_tool_calls_per_task: int = 50


class AgentConfig(Struct, kw_only=True):
    """The keys the agent itself acts on; it ignores every other one."""

    name: str = "Workspace"
    description: str = ""
    role: str = ""
    version: str = "1.0.0"
    tier: int = 1
    runtime: str = "langgraph"
    model: str = DEFAULT_MODEL
    runtime_config: RuntimeConfig = field(default_factory=RuntimeConfig)
    initial_prompt: str = ""
    initial_prompt_file: str = ""
    idle_prompt: str = ""
    idle_prompt_file: str = ""
    idle_interval_seconds: float = 600.0
    idle_daily_limit: int = 0
    skills: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    prompt_files: list[str] = field(default_factory=list)
    a2a: A2AConfig = field(default_factory=A2AConfig)
    delegation: DelegationConfig = field(default_factory=DelegationConfig)
    rbac: RbacConfig = field(default_factory=RbacConfig)
    effort: Literal["", "low", "medium", "high", "xhigh", "max"] = ""
    task_budget: int = 0
    compliance: ComplianceConfig = field(default_factory=ComplianceConfig)
    approvals: list[ApprovalRule] = field(default_factory=list)

    @property
    def effective_role(self) -> str:
        """Return the role, or the description that stands in for it."""
        return self.role or self.description


def load_config(config_dir: Path) -> AgentConfig:
    """Read config.yaml; raises InvalidConfig, which names the key or the line."""
    path = config_dir / CONFIG_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"config.yaml cannot be read: {error.strerror}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise InvalidConfig(f"config.yaml is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = yaml.load(content, Loader=Loader)  # noqa: S506  (both choices are safe loaders)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"config.yaml is not valid YAML: {error}") from error
    return parse_config(document)


def parse_config(document: object) -> AgentConfig:
    """Turn a parsed document into a config; an empty one gives the defaults."""
    if document is not None and not isinstance(document, dict):
        raise InvalidConfig("config.yaml must be a mapping")
    values = _without_nulls(document or {})
    if not isinstance(values.get("tier", 1), int):
        values["tier"] = 1
    try:
        return msgspec.convert(values, AgentConfig, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"config.yaml: {str(error).replace('$.', '')}") from error


def _without_nulls(value: Any) -> Any:
    """Drop `key:` lines without a value, which mean the default and not null."""
    if isinstance(value, dict):
        return {str(key): _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
