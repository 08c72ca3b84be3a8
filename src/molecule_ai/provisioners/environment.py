"""The environment of an agent, built from nothing (contract 02 §9.5)."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Launch

REQUIRE_INBOUND = "A2A_REQUIRE_INBOUND_SECRET"
"""Tells an agent to answer nobody but the platform."""

RESERVED = frozenset(
    {
        REQUIRE_INBOUND,
        "ADMIN_TOKEN",
        "AGENT_LISTEN_FD",
        "AGENT_ORPHAN_TIMEOUT",
        "AGENT_PORT",
        "AGENT_URL",
        "AWARENESS_NAMESPACE",
        "AWARENESS_URL",
        "CONFIGS_DIR",
        "DATABASE_URL",
        "HOME",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "MOLECULE_HOME_ID",
        "MOLECULE_INSTANCE_ID",
        "MOLECULE_LLM_BILLING_MODE_RESOLVED",
        "MOLECULE_LLM_USAGE_TOKEN",
        "MOLECULE_ORG_ID",
        "MOLECULE_URL",
        "MOLECULE_WORKSPACE_NAME",
        "MOLECULE_WORKSPACE_TOKEN",
        "PARENT_ID",
        "PATH",
        "PLATFORM_URL",
        "PLUGINS_DIR",
        "PYTHONPATH",
        "REDIS_URL",
        "SECRETS_ENCRYPTION_KEY",
        "SECRETS_ENCRYPTION_KEYS",
        "TIER",
        "TMPDIR",
        "WORKSPACE_CONFIG_PATH",
        "WORKSPACE_DIR",
        "WORKSPACE_ID",
    }
)
"""Names that no secret and no hook sets: the union of contract 02 §9.5 and 05 §4, and our own."""


def given_environment(launch: Launch) -> dict[str, str]:
    """What the launch brings along, less what is reserved and what no environment can hold."""
    return {
        name: value
        for name, value in launch.env.items()
        if name and name not in RESERVED and "=" not in name and "\0" not in name + value
    }


def agent_environment(launch: Launch, platform_url: str, own: Mapping[str, str]) -> dict[str, str]:
    """Put an agent's environment together; `own` are the paths and marks of the back end.

    The model of the launch yields to a secret `MODEL`, then `MODEL_PROVIDER` (contract 02 §6.2).
    """
    given = given_environment(launch)
    model = given.get("MODEL") or given.get("MODEL_PROVIDER") or launch.model
    optional = {
        "MOLECULE_MODEL": given.get("MOLECULE_MODEL") or model,
        "MODEL": model,
        "MOLECULE_AGENT_ROLE": given.get("MOLECULE_AGENT_ROLE") or launch.role,
        "PARENT_ID": str(launch.parent_id) if launch.parent_id else None,
        "MOLECULE_ORG_ID": launch.org_id,
    }
    return {
        "LANG": "C.UTF-8",
        **given,
        **launch.platform_env,
        **{name: value for name, value in optional.items() if value},
        "WORKSPACE_ID": str(launch.workspace_id),
        "PLATFORM_URL": platform_url,
        "MOLECULE_URL": platform_url,
        "TIER": str(launch.tier),
        "MOLECULE_WORKSPACE_TOKEN": launch.token,
        "MOLECULE_WORKSPACE_NAME": launch.name,
        "MOLECULE_INSTANCE_ID": str(launch.instance_id),
        **own,
    }
