"""The files an agent starts from: `config.yaml`, its prompt, and what its template brings.

Layers, later over earlier (contract 06 §3.4): the minimal config, the template, the role's own
directory, what was asked for explicitly. Everything is in place before the process starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from msgspec import Struct, field

from . import runtimes

CONFIG = "config.yaml"
PROMPT = "system-prompt.md"
VERSION = "1.0.0"
_NORMALIZED = (".sh", ".py", ".md")
# libyaml is optional in PyYAML; with it a hundred configs take a tenth of the time.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class InvalidConfigFile(ValueError):
    """A `config.yaml` that is no YAML mapping; the text names the line."""


class Profile(Struct, frozen=True, kw_only=True):
    """What the row says of a workspace, for its config."""

    name: str
    role: str | None
    tier: int
    runtime: str
    model: str | None
    max_concurrent_tasks: int = 1
    parent_name: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Explicit keys beyond these: prompts, plugins, routing."""


def build(profile: Profile, *layers: Mapping[str, str]) -> dict[str, str]:
    """The launch files by relative path; each layer is a directory's text files.

    Raises `InvalidConfigFile` when a layer's `config.yaml` cannot be read.
    """
    files: dict[str, str] = {}
    config = _minimal(profile)
    for layer in layers:
        files |= {path: _normalized(path, text) for path, text in layer.items() if path != CONFIG}
        if CONFIG in layer:
            config = merge(config, read(layer[CONFIG]))
    config = merge(config, _explicit(profile))
    if not any(path in files for path in config.get("prompt_files") or (PROMPT,)):
        files[PROMPT] = _prompt(profile)
    return {CONFIG: write(config), **files}


def amend(files: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, str]:
    """The same files with keys of `config.yaml` replaced; a value of None takes the key away."""
    config = read(files.get(CONFIG, ""))
    for key, value in changes.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
    return {**files, CONFIG: write(config)}


def read(text: str) -> dict[str, Any]:
    """A `config.yaml` as a mapping; an empty one is empty. Raises `InvalidConfigFile`."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (both choices are safe loaders)
    except yaml.YAMLError as problem:
        raise InvalidConfigFile(" ".join(str(problem).split())) from problem
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidConfigFile("config.yaml must be a mapping")
    return {str(key): value for key, value in document.items()}


def write(config: Mapping[str, Any]) -> str:
    """Serialize a config; texts of several lines become block scalars that people can edit."""
    return yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `base`: mappings key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        both_maps = isinstance(known, dict) and isinstance(value, dict)
        merged[key] = merge(known, value) if both_maps else value  # type: ignore[arg-type]
    return merged


def _minimal(profile: Profile) -> dict[str, Any]:
    config: dict[str, Any] = {"name": profile.name, "description": profile.role or "", "version": VERSION}
    runtime = runtimes.registry().get(profile.runtime)
    if runtime is not None and runtime.is_cli:
        config["runtime_config"] = {"timeout": 0}
    return config


def _explicit(profile: Profile) -> dict[str, Any]:
    config: dict[str, Any] = {"name": profile.name, "tier": profile.tier, "runtime": profile.runtime}
    if profile.role:
        config |= {"description": profile.role, "role": profile.role}
    if profile.model:
        config["model"] = profile.model
    if profile.max_concurrent_tasks != 1:
        config["max_concurrent_tasks"] = profile.max_concurrent_tasks
    return config | profile.extra


def _prompt(profile: Profile) -> str:
    lines = [f"# {profile.name}", "", f"You are {profile.name}, one agent in an organization of agents."]
    if profile.role:
        lines += ["", f"Your role: {profile.role}"]
    if profile.parent_name:
        lines += ["", f"You report to {profile.parent_name}."]
    return "\n".join([*lines, ""])


def _normalized(path: str, text: str) -> str:
    return text.replace("\r\n", "\n") if path.endswith(_NORMALIZED) else text


class _Dumper(_BaseDumper):  # type: ignore[misc]  # one of two, chosen above
    """Safe types only, without anchors for values that occur twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    if "\n" not in value:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value)
    # A line that ends in a blank cannot be written as a block.
    tidy = "\n".join(line.rstrip() for line in value.split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", tidy, style="|")


_Dumper.add_representer(str, _text)
