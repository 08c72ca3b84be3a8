"""Which names a secret may have (contract 02 §9.5 and 05 §4)."""

from __future__ import annotations

import re

from .errors import InvalidSecretKey, InvalidSecretValue, ReservedSecretKey

MAX_VALUE_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
# Variables of the platform itself, and those that decide which code a process loads.
RESERVED = frozenset(
    {
        "ADMIN_TOKEN", "AWARENESS_NAMESPACE", "AWARENESS_URL", "DATABASE_URL", "LD_LIBRARY_PATH",
        "LD_PRELOAD", "MOLECULE_LLM_BILLING_MODE_RESOLVED", "MOLECULE_LLM_USAGE_TOKEN", "MOLECULE_ORG_ID",
        "MOLECULE_URL", "MOLECULE_WORKSPACE_TOKEN", "PARENT_ID", "PATH", "PLATFORM_URL", "PLUGINS_DIR",
        "PYTHONPATH", "REDIS_URL", "SECRETS_ENCRYPTION_KEY", "TIER", "WORKSPACE_CONFIG_PATH", "WORKSPACE_ID",
    }
)  # fmt: skip

MODELS = frozenset({"MODEL", "MODEL_PROVIDER", "MOLECULE_MODEL"})  # kept like secrets, and none


def check(key: str, value: str) -> bytes:
    """The value as bytes. Raises what is wrong with the pair; never quotes the value."""
    if not _NAME.fullmatch(key):
        raise InvalidSecretKey(key=key[:255])
    if key in RESERVED:
        raise ReservedSecretKey(key=key)
    try:
        content = value.encode()
    except UnicodeEncodeError as problem:
        raise InvalidSecretValue(key=key) from problem
    if not content or len(content) > MAX_VALUE_BYTES or b"\0" in content:
        raise InvalidSecretValue(key=key)
    return content
