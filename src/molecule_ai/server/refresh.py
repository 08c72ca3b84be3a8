"""What a control plane tells its tenant before the start (contract 01 §21, 07 §17.1)."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from molecule_ai.kernel import log

from .settings import Settings

_TIMEOUT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_VALUE_BYTES = 4 * 1024
# Nothing else: whoever may set any variable could replace the admin token.
ALLOWED = frozenset(
    {
        "CP_UPSTREAM_URL",
        "MOLECULE_CONFIG_VERSION",
        "MOLECULE_CP_SHARED_SECRET",
        "MOLECULE_CP_URL",
        "MOLECULE_LLM_ANTHROPIC_BASE_URL",
        "MOLECULE_LLM_BASE_URL",
        "MOLECULE_LLM_USAGE_TOKEN",
        "MOLECULE_ORG_NAME",
        "MOLECULE_ORG_SLUG",
        "MOLECULE_PLAN",
        "MOLECULE_WORKSPACE_LIMIT",
    }
)


async def refreshed(settings: Settings) -> dict[str, str]:
    """Variables to set, of those that a control plane may set; none where it does not answer."""
    if not (settings.molecule_org_id.strip() and settings.admin_token.strip()):
        return {}
    try:
        answer = await _ask(settings)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
        log.get().warning("config_not_refreshed", error=f"{type(problem).__name__}: {problem}")
        return {}
    usable, ignored = {}, []
    for name, value in answer.items():
        if name in ALLOWED and isinstance(value, str) and len(value.encode()) <= _MAX_VALUE_BYTES:
            usable[name] = value
        else:
            ignored.append(name[:100])
    log.get().info("config_refreshed", names=sorted(usable), ignored=sorted(ignored)[:20])
    return usable


async def _ask(settings: Settings) -> dict[str, Any]:
    url = f"{settings.molecule_cp_url.strip().rstrip('/')}/cp/tenants/config"
    headers = {
        "Authorization": f"Bearer {settings.admin_token.strip()}",
        "X-Molecule-Org-Id": settings.molecule_org_id.strip(),
    }
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.get(url, headers=headers, allow_redirects=False) as response,
    ):
        body = b""
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                raise ValueError("the answer is too large")
        if response.status != 200:
            raise ValueError(f"the control plane answered {response.status}")
        answer = msgspec.json.decode(body)
    if not isinstance(answer, dict):
        raise ValueError("the answer is no object")
    return answer
