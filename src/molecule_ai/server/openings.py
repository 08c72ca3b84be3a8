"""What an installation leaves open for older clients, said at every start (contract 01 §5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from molecule_ai.kernel import log

from .settings import Settings

_SHORTEST_TOKEN = 16
_DEPLOY_MODES = frozenset({"", "saas", "self-hosted", "selfhosted", "standalone"})


class Opening(Struct, frozen=True):
    """Something that passes without a credential, or with a weak one, and what closes it."""

    name: str
    lets_in: str
    cure: str


def openings(settings: Settings) -> Iterator[Opening]:
    """The openings in effect, in the order of contract 01 §5.1."""
    has_admin = bool(settings.admin_token.strip() or settings.admin_token_previous.strip())
    lenient = not settings.strict
    if lenient and not has_admin:
        if not settings.saas:
            yield Opening("open_state", "anybody, until the first credential is issued", "set ADMIN_TOKEN")
        yield Opening("workspace_token_is_admin", "any workspace token as an admin", "set ADMIN_TOKEN")
        yield Opening("a2a_without_identity", "messages from nobody in particular", "set ADMIN_TOKEN")
        if settings.molecule_allow_anon_cosmetic and not settings.saas:
            yield Opening(
                "anonymous_cosmetic", "names and positions from anybody", "set MOLECULE_ALLOW_ANON_COSMETIC=0"
            )
        if settings.canvas_proxy_url.strip() and not settings.cp_upstream_url.strip():
            yield Opening("same_origin_canvas", "whoever claims to be a page of this host", "set ADMIN_TOKEN")
    if lenient:
        yield Opening(
            "grandfathered_workspaces", "workspaces that never got a token", "set MOLECULE_STRICT_AUTH=1"
        )
        yield Opening(
            "socket_without_identity", "everybody to the events of /ws", "set MOLECULE_STRICT_AUTH=1"
        )
    if not settings.workspace_get_requires_auth:
        yield Opening(
            "anonymous_workspace",
            "everybody who knows an id, to a redacted workspace",
            "set WORKSPACE_GET_REQUIRES_AUTH=1",
        )


def announce(settings: Settings) -> None:
    """Log where the server listens, each opening with its cure, and what is odd about the settings."""
    told = log.get()
    told.info("listening", address=settings.address, port=settings.port, strict=settings.strict)
    for opening in openings(settings):
        told.warning("opening", name=opening.name, lets_in=opening.lets_in, cure=opening.cure)
    for oddity, cure in _oddities(settings):
        told.warning("setting_is_odd", what=oddity, cure=cure)
    if settings.production and not settings.admin_token.strip():
        told.error(
            "no_admin_token_in_production", reachable_by="org API keys and sessions", cure="set ADMIN_TOKEN"
        )


def _oddities(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in ("admin_token", "admin_token_previous"):
        token = getattr(settings, name).strip()
        if token and len(token) < _SHORTEST_TOKEN:
            yield f"{name.upper()} is shorter than {_SHORTEST_TOKEN} characters", "use a longer one"
    for origin in settings.ignored_origins:
        yield f"CORS_ORIGINS has {origin!r}, which is ignored", "begin it with http:// or https://"
    if settings.molecule_deploy_mode.strip().lower() not in _DEPLOY_MODES:
        yield f"MOLECULE_DEPLOY_MODE {settings.molecule_deploy_mode!r} is unknown", "use saas or self-hosted"
    if settings.cp_upstream_url.strip() and not settings.molecule_org_slug.strip():
        yield "sessions are ignored without MOLECULE_ORG_SLUG", "set MOLECULE_ORG_SLUG"
