"""From a launch to what the engine is told: environment, mounts, limits, network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from molecule_ai.provisioners.base import Launch, WorkspaceAccess
from molecule_ai.provisioners.environment import agent_environment

from . import names
from .options import RESTART_POLICY, DockerOptions
from .tiers import HOME, Isolation

CONFIGS, WORKSPACE, PLUGINS = "/configs", "/workspace", "/plugins"
ENGINE_SOCKET = "/var/run/docker.sock"
HOST_NAME = "host.docker.internal"
LOG = {"Type": "json-file", "Config": {"max-size": "10m"}}
NO_PROBE = {"Test": ["NONE"]}  # agents beat; a second probe would cost a process every few seconds


class Birth(Struct, frozen=True, kw_only=True):
    """One attempt to create the container of a launch."""

    launch: Launch
    isolation: Isolation
    image: str
    url: str
    port: int
    """The published one; 0: none."""
    labels: dict[str, str]
    host_gateway: str


def agent(birth: Birth, options: DockerOptions, platform_url: str) -> dict[str, Any]:
    """The configuration of an agent's container."""
    launch, isolation = birth.launch, birth.isolation
    name = names.container(launch.workspace_id)
    listening = str(birth.port if isolation.has_host else names.AGENT_PORT)
    own = {
        "WORKSPACE_CONFIG_PATH": CONFIGS,
        "WORKSPACE_DIR": isolation.home if isolation.is_sandbox else WORKSPACE,
        "PLUGINS_DIR": PLUGINS,
        "PYTHONPATH": "/app",
        "HOME": isolation.home,
        "AGENT_PORT": listening,
        "AGENT_URL": birth.url if isolation.has_host else f"http://{name}:{names.AGENT_PORT}",
    }
    environment = agent_environment(launch, platform_url, own)
    config: dict[str, Any] = {
        "Image": birth.image,
        "User": isolation.user,
        "WorkingDir": own["WORKSPACE_DIR"],
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Labels": birth.labels,
        "Healthcheck": NO_PROBE,
        "HostConfig": {
            **isolation.host_config(),
            "Binds": agent_binds(launch, isolation, options),
            "RestartPolicy": {"Name": RESTART_POLICY},
            "Init": True,  # an agent starts programs and need not know how to bury them
            "LogConfig": LOG,
        },
    }
    if options.command:
        config["Cmd"] = list(options.command)
    if isolation.has_host:
        config["HostConfig"]["NetworkMode"] = "host"
    else:
        config["Hostname"] = name
        config |= _network(name, options)
        config["HostConfig"] |= {
            "NetworkMode": options.network,
            "ExtraHosts": [f"{HOST_NAME}:{birth.host_gateway}"],
            "PortBindings": _ports(birth, options),
        }
    return config


def agent_binds(launch: Launch, isolation: Isolation, options: DockerOptions) -> list[str]:
    workspace_id = launch.workspace_id
    binds = [f"{names.configs(workspace_id)}:{CONFIGS}:rw", f"{names.plugins(workspace_id)}:{PLUGINS}:ro"]
    if isolation.is_sandbox:
        return binds
    binds += [f"{names.home(workspace_id)}:{HOME}:rw", _workspace_bind(launch, options)]
    if isolation.has_host:
        binds.append(f"{ENGINE_SOCKET}:{ENGINE_SOCKET}:rw")
    return binds


def call_binds(launched: Sequence[str], volumes: tuple[str, str, str, str]) -> list[str]:
    """The mounts of a call beside the agent: its directories, wherever they are, all of them."""
    configs, workspace, home, plugins = volumes
    own = [bind for bind in launched if f":{WORKSPACE}:" in f"{bind}:"]
    return [
        f"{configs}:{CONFIGS}:rw",
        f"{plugins}:{PLUGINS}:rw",
        f"{home}:{HOME}:rw",
        *(own[:1] or [f"{workspace}:{WORKSPACE}:rw"]),
    ]


def _workspace_bind(launch: Launch, options: DockerOptions) -> str:
    directory = launch.workspace_dir or options.default_directory
    if launch.workspace_access is WorkspaceAccess.NONE or not directory:
        return f"{names.workspace(launch.workspace_id)}:{WORKSPACE}:rw"
    mode = "ro" if launch.workspace_access is WorkspaceAccess.READ_ONLY else "rw"
    return f"{directory}:{WORKSPACE}:{mode}"


def _ports(birth: Birth, options: DockerOptions) -> dict[str, list[dict[str, str]]]:
    if not birth.port:
        return {}
    return {
        f"{names.AGENT_PORT}/tcp": [{"HostIp": options.publish_address, "HostPort": str(birth.port)}],
    }


def _network(name: str, options: DockerOptions) -> dict[str, Any]:
    return {
        "ExposedPorts": {f"{names.AGENT_PORT}/tcp": {}},
        "NetworkingConfig": {"EndpointsConfig": {options.network: {"Aliases": [name]}}},
    }
