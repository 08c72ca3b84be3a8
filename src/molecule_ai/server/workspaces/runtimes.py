"""The runtime registry: one data file that drives validation, timeouts and images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

import msgspec
import yaml
from msgspec import Struct, field

DEFAULT = "langgraph"
EXTERNAL = "external"


class Runtime(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server knows of one runtime."""

    name: str = ""
    display_name: str
    image: str = ""
    default_model: str | None = None
    needs_model: bool = True
    models: tuple[str, ...] = ()
    models_closed: bool = False
    required_env: tuple[str, ...] = ()
    provision_timeout_seconds: int | None = None
    is_cli: bool = False
    capabilities: dict[str, bool] = field(default_factory=dict)

    def lists(self, model: str) -> bool:
        """Whether the model is offered: bare, `vendor/model` and `vendor:model` name the same."""
        return any(spelling in self.models for spelling in _spellings(model))


def _spellings(model: str) -> tuple[str, ...]:
    return (model, model.rpartition("/")[2], model.rpartition(":")[2])


def parse(text: str) -> Mapping[str, Runtime]:
    """Read a registry; raises `ValueError` naming the runtime that cannot be read."""
    document: Any = yaml.safe_load(text)
    found = {}
    for name, entry in document.items():
        try:
            found[name] = msgspec.convert({"name": name, **entry}, Runtime)
        except msgspec.ValidationError as problem:
            raise ValueError(f"runtime {name}: {problem}") from problem
    return MappingProxyType(found)


@cache
def registry() -> Mapping[str, Runtime]:
    """The runtimes of this build by name."""
    return parse((resources.files(__package__ or "") / "runtimes.yaml").read_text("utf-8"))


def names() -> frozenset[str]:
    """The names that a workspace may carry."""
    return frozenset(registry())
