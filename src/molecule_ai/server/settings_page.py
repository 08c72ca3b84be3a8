"""`docs/configuration.md`, written from the settings: `python -m molecule_ai.server.settings_page`."""

from __future__ import annotations

import msgspec

from .settings import Settings

_HEAD = """\
# Configuration

Every setting is an environment variable, or a line of a `.env` file beside the project; the environment
wins. A number that cannot be read or is not positive falls back to its default; anything else that a
setting cannot take stops the start and names itself.

This page is generated from `src/molecule_ai/server/settings.py`.

| Variable | Default | Meaning |
|---|---|---|
"""


def render() -> str:
    """The page as Markdown."""
    rows = []
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]  # a struct's type has fields
        kind = field.type
        schema = getattr(kind, "extra_json_schema", None) or {}
        default = "unset" if field.default in ("", None) else f"`{field.default}`"
        if isinstance(field.default, bool):
            default = f"`{str(field.default).lower()}`"
        rows.append(f"| `{field.name.upper()}` | {default} | {schema.get('description', '')} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201 the page is what this module is run for
