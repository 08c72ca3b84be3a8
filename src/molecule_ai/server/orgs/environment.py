"""Environment names, `.env` files and `${NAME}` references of an organization."""

import re
from collections.abc import Iterable, Mapping

from .document import EnvRequirement

ENV_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")


def is_env_name(name: str) -> bool:
    """Whether the name may be a secret's key (contract 06 §0.3)."""
    return ENV_NAME.fullmatch(name) is not None


def parse_env(text: str) -> dict[str, str]:
    """The pairs of a `.env` file; comments, empty values and impossible names are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        if separator and value and is_env_name(name):
            found[name] = value
    return found


def references(value: str) -> list[str]:
    """The names that a value refers to; `$5` is an amount, not a reference."""
    return [braced or bare for braced, bare in REFERENCE.findall(value)]


def expand(value: str, values_by_name: Mapping[str, str]) -> tuple[str, list[str]]:
    """Fill in the references. Returns the text and the names that have no value."""
    missing = [name for name in references(value) if not values_by_name.get(name)]
    return REFERENCE.sub(lambda match: values_by_name.get(match[1] or match[2], ""), value), missing


def tidy(
    required: Iterable[EnvRequirement], recommended: Iterable[EnvRequirement]
) -> tuple[tuple[EnvRequirement, ...], tuple[EnvRequirement, ...]]:
    """Both lists without repetitions and without groups that a single required name settles.

    Singles come first, by name, then groups (contract 06 §3.5).
    """
    required_sets = _without_settled_groups(required)
    strict = {name for members in required_sets if len(members) == 1 for name in members}
    wished_sets = [
        members
        for members in _without_settled_groups(recommended)
        if not members & strict and members not in required_sets
    ]
    return _ordered(required_sets), _ordered(wished_sets)


def unmet(requirements: Iterable[EnvRequirement], names: Iterable[str]) -> list[EnvRequirement]:
    """The requirements of which no member is among the names that have a value."""
    present = set(names)
    return [requirement for requirement in requirements if not present.intersection(requirement.any_of)]


def _without_settled_groups(requirements: Iterable[EnvRequirement]) -> list[frozenset[str]]:
    sets = {frozenset(requirement.any_of) for requirement in requirements}
    strict = {name for members in sets if len(members) == 1 for name in members}
    return [members for members in sets if len(members) == 1 or not members & strict]


def _ordered(sets: Iterable[frozenset[str]]) -> tuple[EnvRequirement, ...]:
    rows = sorted((tuple(sorted(members)) for members in sets), key=lambda row: (len(row) > 1, row))
    return tuple(EnvRequirement(row) for row in rows)
