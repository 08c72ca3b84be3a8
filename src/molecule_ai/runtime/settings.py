"""Everything the environment tells an agent (contract 02 §9.5 and §15)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

ALIASES = {"WORKSPACE_CONFIG_PATH": "CONFIGS_DIR", "MOLECULE_MODEL": "MODEL", "MODEL": "MODEL_PROVIDER"}


class InvalidEnvironment(Exception):
    """The environment lacks a variable or holds one that cannot be understood."""


class RuntimeSettings(Struct, frozen=True, kw_only=True, rename="upper"):
    """Each field is the environment variable of that name; empty counts as unset."""

    workspace_id: Annotated[str, Meta(min_length=1, description="The workspace this agent lives for.")]
    platform_url: Annotated[str, Meta(description="Base URL of the tenant server.")] = (
        "http://host.docker.internal:8080"
    )
    workspace_config_path: Annotated[
        Path, Meta(description="Directory of config.yaml; `CONFIGS_DIR` is an alias.")
    ] = Path("/configs")
    workspace_dir: Annotated[Path, Meta(description="Working directory of the agent.")] = Path("/workspace")
    molecule_workspace_token: Annotated[str, Meta(description="Bearer until a token file exists.")] = ""
    molecule_org_id: Annotated[str, Meta(description="Sent as `X-Molecule-Org-Id` when set.")] = ""
    parent_id: Annotated[str, Meta(description="The parent workspace, empty for a root.")] = ""
    molecule_workspace_name: Annotated[str, Meta(description="Wins over `name` in config.yaml.")] = ""
    molecule_agent_role: Annotated[str, Meta(description="Wins over `role` in config.yaml.")] = ""
    molecule_instance_id: Annotated[str, Meta(description="Names this process in `/health`.")] = ""
    molecule_model: Annotated[
        str, Meta(description="`provider:model`; `MODEL`, then `MODEL_PROVIDER`, stand in for it.")
    ] = ""
    agent_listen_fd: Annotated[
        int | None, Meta(description="An inherited TCP socket that already listens.")
    ] = None
    agent_port: (
        Annotated[int, Meta(ge=1, le=65535, description="Port to bind; wins over `a2a.port` in config.yaml.")]
        | None
    ) = None
    agent_host: Annotated[str, Meta(description="Bind address without an inherited socket.")] = "0.0.0.0"
    agent_url: Annotated[str, Meta(description="The URL to register; empty: host name and port.")] = ""
    hostname: Annotated[str, Meta(description="Host part of the default URL.")] = ""
    a2a_require_inbound_secret: Annotated[
        bool, Meta(description="Answer nobody but the platform, which shows its secret.")
    ] = False
    agent_orphan_timeout: Annotated[
        float, Meta(ge=0, description="Seconds without the platform after which the agent exits; 0 never.")
    ] = 0.0
    agent_snapshot_path: Annotated[str, Meta(description="Where the shutdown snapshot goes.")] = ""
    agent_log_level: Annotated[str, Meta(description="A level name of the standard library.")] = "INFO"
    plugins_dir: Annotated[Path, Meta(description="Shared plugins, read after the workspace's own.")] = Path(
        "/plugins"
    )
    adapter_module: Annotated[str, Meta(description="A module that exports `Adapter`.")] = ""
    approval_timeout: Annotated[float, Meta(gt=0, description="Seconds to wait for a decision.")] = 300.0
    approval_poll_interval: Annotated[float, Meta(gt=0, description="Longest pause between polls.")] = 5.0
    delegation_timeout: (
        Annotated[float, Meta(gt=0, description="Seconds to wait for a peer; wins over config.yaml.")] | None
    ) = None
    delegation_retry_attempts: Annotated[int, Meta(ge=0)] | None = None
    delegation_retry_delay: Annotated[float, Meta(ge=0)] | None = None
    langgraph_recursion_limit: Annotated[int, Meta(ge=1, description="Steps of one graph run.")] = 500
    max_tokens: Annotated[int, Meta(ge=1, description="Longest answer asked of a model.")] = 2048

    @property
    def snapshot_path(self) -> Path:
        """Return where the snapshot of this agent lives."""
        if self.agent_snapshot_path:
            return Path(self.agent_snapshot_path)
        return self.workspace_config_path / ".agent_snapshot.json"

    def __repr__(self) -> str:
        return f"RuntimeSettings(workspace_id={self.workspace_id!r})"  # never the token


def read_settings(environ: Mapping[str, str] = os.environ) -> RuntimeSettings:
    """Read the settings once.

    Raises InvalidEnvironment, which names the variable.
    """
    values = {name: value for name, value in environ.items() if value}
    for name, alias in reversed(ALIASES.items()):
        if alias in values:
            values.setdefault(name, values[alias])
    try:
        settings = msgspec.convert(values, RuntimeSettings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise InvalidEnvironment(str(error).replace("$.", "")) from error
    return msgspec.structs.replace(settings, platform_url=settings.platform_url.rstrip("/"))


def _decode(kind: type, value: object) -> object:
    return Path(str(value)) if kind is Path else value
