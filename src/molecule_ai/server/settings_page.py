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

_UNREAD_HEAD = """
## Variables of other installations that are not read

| Variable | Instead |
|---|---|
"""
# Contract 01 §22 names these; each has a reason not to be a setting here.
UNREAD = {
    "REDIS_URL": "There is no Redis: queues, locks and notifications live in PostgreSQL "
    "([decision](decisions/0002-postgresql-only.md)).",
    "MOLECULE_ENABLE_TEST_TOKENS": "The route is gone; `POST /admin/workspaces/:id/tokens` mints a real one.",
    "KMS_KEY_ARN": "`SECRETS_ENCRYPTION_KEY` or `SECRETS_ENCRYPTION_KEYS` holds the key itself.",
    "CP_PROVISION_URL": "Comes with `PROVISIONER=control-plane`, which is refused as yet.",
    "MOLECULE_CP_SHARED_SECRET": "The same.",
    "PROVISION_SHARED_SECRET": "The same.",
    "CP_ADMIN_API_TOKEN": "The same.",
    "MOLECULE_MCP_ALLOW_SEND_MESSAGE": "Comes with the MCP routes of a workspace.",
    "SCHEDULER_MAX_CONCURRENT": "A due schedule is a message: `MAILBOX_MAX_CONCURRENT` limits deliveries.",
    "GITHUB_WEBHOOK_SECRET": "Comes with the webhooks.",
}


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
    unread = [f"| `{name}` | {instead} |" for name, instead in UNREAD.items()]
    return _HEAD + "\n".join(rows) + "\n" + _UNREAD_HEAD + "\n".join(unread) + "\n"


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201 the page is what this module is run for
