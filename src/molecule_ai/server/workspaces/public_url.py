"""Where the outside reaches this server."""

from __future__ import annotations

from molecule_ai.kernel.http import ApiRequest
from molecule_ai.server.settings import Settings


def public_url(request: ApiRequest, settings: Settings) -> str:
    """The setting, else the address that the caller used (contract 02 §7)."""
    if settings.external_platform_url:
        return settings.external_platform_url.rstrip("/")
    return str(request.base_url).rstrip("/")
