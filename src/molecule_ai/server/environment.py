"""The only reader of the server's environment: variables and `.env` become `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from molecule_ai.kernel import ssrf

from .settings import TRUE, BadSetting, Settings

_IMAGE_PIN = "WORKSPACE_IMAGE_"
_ALIASES = {"external_platform_url": "PUBLIC_URL", "molecule_home": "MOLECULE_DATA_DIR"}
# Settings that may be switched off with 0; every other number must be positive.
_ZERO_ALLOWED = frozenset(
    {
        "approval_ttl_seconds",
        "chat_retention_days",
        "events_retention_days",
        "provision_timeout_seconds",
        "agent_orphan_timeout",
        "scheduler_misfire_grace_seconds",
    }
)


def _value(name: str, default: object, text: str) -> object:
    if isinstance(default, bool):
        return text.strip().lower() in TRUE
    if isinstance(default, int):
        try:
            number = int(text)
        except ValueError:
            return default
        return number if number > 0 or (number == 0 and name in _ZERO_ALLOWED) else default
    return text


def _image_pins(listed: str, source: Mapping[str, str]) -> str:
    """The pins in a list and those that have a variable of their own, which win."""
    own = [
        f"{name.removeprefix(_IMAGE_PIN).lower().replace('_', '-')}={value}"
        for name, value in source.items()
        if name.startswith(_IMAGE_PIN) and name != f"{_IMAGE_PIN}TEMPLATE" and value
    ]
    return ",".join([*([listed] if listed else []), *own])


def read(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environment`, default the process's own. Raises `BadSetting`."""
    source = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = source.get(field.name.upper()) or source.get(_ALIASES.get(field.name, ""), "")
        if text:
            values[field.name] = _value(field.name, field.default, text)
    values["workspace_images"] = _image_pins(values.get("workspace_images", ""), source)
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as problem:
        raise BadSetting(str(problem)) from problem
    try:
        ssrf.parse_cidrs(settings.agent_url_allow_cidrs)
    except ValueError as problem:
        raise BadSetting(f"AGENT_URL_ALLOW_CIDRS: {problem}") from problem
    for name in ("cp_upstream_url", "canvas_proxy_url"):
        _check_url(name, getattr(settings, name))
    for name, allowed in {
        "provisioner": {"", "process", "docker", "kubernetes", "control-plane", "none"},
        "scheduler_busy_policy": {"queue", "skip"},
        "workspace_delete_confirm": {"strict", "if-present"},
    }.items():
        if getattr(settings, name) not in allowed:
            raise BadSetting(f"{name.upper()} must be one of {', '.join(sorted(allowed - {''}))}")
    return settings


def _check_url(name: str, text: str) -> None:
    """Contract 01 §17.1: what requests are passed on to is an absolute URL, or the boot fails."""
    try:
        parts = urlsplit(text.strip())
        is_usable = not text.strip() or (parts.scheme in {"http", "https"} and bool(parts.hostname))
    except ValueError:
        is_usable = False
    if not is_usable:
        raise BadSetting(f"{name.upper()} must be an absolute http or https URL with a host")


def passthrough(patterns: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that match a comma-separated list of names and prefixes (`SLACK_*`)."""
    source = os.environ if environment is None else environment
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    return {name: value for name, value in source.items() if any(fnmatchcase(name, p) for p in wanted)}


def load_dotenv(start: Path) -> dict[str, str]:
    """Read the nearest `.env` at or above `start` (at most 6 levels) beside a project marker.

    `export` prefixes, comments, quotes and a byte-order mark are understood (contract 01 §21). The
    caller lets the existing environment win.
    """
    for folder in [start, *start.parents][:6]:
        file = folder / ".env"
        marked = any((folder / marker).exists() for marker in ("pyproject.toml", ".git", "org.yaml"))
        if file.is_file() and marked:
            return _parse_dotenv(file.read_text(encoding="utf-8-sig"))
    return {}


def _parse_dotenv(text: str) -> dict[str, str]:
    pairs = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#") or not name.strip().isidentifier():
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.split(" #", 1)[0].rstrip()
        pairs[name.strip()] = value
    return pairs
