"""What is said at the start: what is open, and its cure (contract 01 §5.1)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from molecule_ai.server.openings import announce, openings
from molecule_ai.server.settings import Settings
from molecule_ai.server.settings_page import UNREAD, render

ROOT = Path(__file__).parents[2]
ALWAYS = ["anonymous_workspace"]
LENIENT = ["grandfathered_workspaces", "socket_without_identity", *ALWAYS]
TOKEN = "an-admin-token-that-is-long"
# Contract 01 §22: the variables of this area.
# fmt: off
NAMED = [
    "PORT", "BIND_ADDR", "DATABASE_URL", "REDIS_URL", "ADMIN_TOKEN", "ADMIN_TOKEN_PREVIOUS",
    "MOLECULE_STRICT_AUTH", "MOLECULE_ENV", "MOLECULE_DATA_DIR", "RATE_LIMIT", "CORS_ORIGINS",
    "TRUSTED_PROXIES", "MAX_BODY_BYTES", "METRICS_TOKEN", "MOLECULE_ORG_ID", "MOLECULE_ORG_SLUG",
    "MOLECULE_ORG_NAME", "CP_UPSTREAM_URL", "MOLECULE_CP_URL", "CP_PROVISION_URL",
    "MOLECULE_CP_SHARED_SECRET", "PROVISION_SHARED_SECRET", "CP_ADMIN_API_TOKEN", "CANVAS_PROXY_URL",
    "PLATFORM_URL", "EXTERNAL_PLATFORM_URL", "MOLECULE_DEPLOY_MODE", "SECRETS_ENCRYPTION_KEY",
    "KMS_KEY_ARN", "ACTIVITY_RETENTION_DAYS", "ACTIVITY_CLEANUP_INTERVAL_HOURS",
    "MOLECULE_MCP_ALLOW_SEND_MESSAGE", "GITHUB_WEBHOOK_SECRET", "MOLECULE_ENABLE_TEST_TOKENS",
]
# fmt: on


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            {},
            [
                *("open_state", "workspace_token_is_admin", "a2a_without_identity", "anonymous_cosmetic"),
                *LENIENT,
            ],
        ),
        (
            {"canvas_proxy_url": "http://c"},
            [
                *("open_state", "workspace_token_is_admin", "a2a_without_identity", "anonymous_cosmetic"),
                *("same_origin_canvas", *LENIENT),
            ],
        ),
        ({"admin_token": TOKEN}, LENIENT),
        ({"admin_token": TOKEN, "canvas_proxy_url": "http://c"}, LENIENT),
        ({"molecule_org_id": "o"}, ["workspace_token_is_admin", "a2a_without_identity", *LENIENT]),
        ({"molecule_strict_auth": "1"}, ALWAYS),
        ({"molecule_env": "production"}, ALWAYS),
        ({"molecule_env": "Prod", "admin_token": TOKEN, "workspace_get_requires_auth": True}, []),
        ({"molecule_env": "production", "molecule_strict_auth": "0", "admin_token": TOKEN}, LENIENT),
        ({"molecule_env": "dev", "admin_token": TOKEN}, LENIENT),
    ],
)
def test_each_opening_in_effect_is_named_with_its_cure(settings: dict[str, Any], names: list[str]) -> None:
    found = list(openings(msgspec.convert(settings, Settings)))
    assert [opening.name for opening in found] == names
    assert all(re.match(r"set [A-Z_]+", opening.cure) for opening in found)


def test_a_start_tells_one_line_of_each() -> None:
    settings = Settings(
        molecule_env="production",
        molecule_strict_auth="0",
        cors_origins="nonsense, https://a.example",
        molecule_deploy_mode="cloudy",
        cp_upstream_url="http://cp",
        admin_token_previous="short",
    )
    with structlog.testing.capture_logs() as lines:
        announce(settings)
    said = [line["event"] for line in lines]
    assert said.count("listening") == 1
    assert said.count("opening") == len(list(openings(settings)))
    assert said.count("setting_is_odd") == 4
    assert said[-1] == "no_admin_token_in_production"
    assert "short'" not in str(lines)


def test_every_variable_of_the_contract_is_documented() -> None:
    page = render()
    assert [name for name in NAMED if name not in page] == []
    read = {field.name.upper() for field in msgspec.structs.fields(Settings)}
    assert read.isdisjoint(UNREAD)
    assert set(NAMED) <= read | set(UNREAD) | {"MOLECULE_DATA_DIR"}


def test_every_setting_is_used_somewhere() -> None:
    source = "".join(
        path.read_text()
        for path in (ROOT / "src").rglob("*.py")
        if path.name not in ("settings.py", "settings_page.py")
    )
    own = (ROOT / "src/molecule_ai/server/settings.py").read_text()
    unused = [
        field.name
        for field in msgspec.structs.fields(Settings)
        if f".{field.name}" not in source and f"self.{field.name}" not in own
    ]
    assert unused == []
