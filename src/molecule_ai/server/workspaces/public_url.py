"""Where the outside reaches this server."""

from __future__ import annotations

from molecule_ai.kernel.http import ApiRequest
from molecule_ai.server.settings import Settings

_SCHEMES = frozenset({"http", "https"})


def public_url(request: ApiRequest, settings: Settings) -> str:
    """The setting, else the address that the caller used (contract 02 §7).

    What a proxy says of that address counts: the edge lets it through only from a trusted one.
    """
    if settings.external_platform_url:
        return settings.external_platform_url.rstrip("/")
    used = request.base_url
    host = request.headers.get("x-forwarded-host", "").rpartition(",")[2].strip() or used.netloc
    scheme = request.headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    return f"{scheme if scheme in _SCHEMES else used.scheme}://{host}"
