"""The security headers of every response (contract 01 §19.2)."""

from __future__ import annotations

Pairs = tuple[tuple[bytes, bytes], ...]

# Contract 01 §14: matched by the first segment of the path.
API_PREFIXES = frozenset(
    {
        "workspaces",
        "registry",
        "health",
        "admin",
        "metrics",
        "settings",
        "bundles",
        "org",
        "orgs",
        "templates",
        "plugins",
        "webhooks",
        "channels",
        "ws",
        "events",
        "approvals",
        "canvas",
        "instructions",
        "requests",
        "user-tasks",
        "buildinfo",
        "cp",
        "secrets",
        "agents",
        "activity",
        "chains",
    }
)
_COMMON: Pairs = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_API: Pairs = (*_COMMON, (b"content-security-policy", b"default-src 'self'"))
_PAGE: Pairs = (
    *_COMMON,
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; connect-src 'self' ws: wss:; font-src 'self' data:",
    ),
)


def is_api(path: str) -> bool:
    """Whether the path belongs to the API rather than to the canvas."""
    return path.startswith("/") and path.split("/", 2)[1] in API_PREFIXES


def security(path: str) -> Pairs:
    """The headers for a response of this path."""
    return _API if is_api(path) else _PAGE
