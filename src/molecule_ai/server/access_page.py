"""`docs/reference/access.md`, written from the routes: `python -m molecule_ai.server.access_page`.

What stands in `ACCESS` is not only told: a test asks every route as every kind of caller.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from litestar import Litestar

from .app import Server
from .auth.tiers import Tier
from .settings import Settings

CALLERS = (
    "nothing",
    "wrong bearer",
    "revoked token",
    "token with scopes",
    "expired key",
    "other workspace",
    "own workspace",
    "key bound elsewhere",
    "session",
    "org key",
    "admin token",
)
_PROVES_NOTHING = (401,) * 5


def _row(other: int, own: int, bound: int, session: int, admin: int) -> tuple[int, ...]:
    """Answers to the callers in their order; 0 lets them in. Org keys and the admin token are alike."""
    return (*_PROVES_NOTHING, other, own, bound, session, admin, admin)


_EVERYBODY = (0,) * len(CALLERS)
_WORKSPACE = _row(401, 0, 403, 0, 0)
# Which caller gets past the gatekeeper, in the order of CALLERS, once the workspace has a token and
# ADMIN_TOKEN is set; strict mode differs in nothing here. Past it a route may still refuse: 403.
ACCESS: dict[Tier, tuple[int, ...]] = {
    Tier.NONE: _EVERYBODY,
    Tier.ADMIN: _row(401, 401, 403, 0, 0),
    Tier.WORKSPACE: _WORKSPACE,
    Tier.WORKSPACE_OWN: _row(401, 0, 401, 401, 401),
    Tier.WORKSPACE_STATE: _WORKSPACE,
    Tier.WORKSPACE_OR_COSMETIC: _WORKSPACE,
    Tier.WORKSPACE_OR_REDACTED: _EVERYBODY,
    Tier.CANVAS_OR_BEARER: _row(0, 0, 403, 0, 0),
    Tier.REGISTRY: _WORKSPACE,
    Tier.DISCOVERY: _WORKSPACE,
    Tier.CALLER: _WORKSPACE,
    Tier.DELEGATE: _WORKSPACE,
    Tier.PEER: _WORKSPACE,
    Tier.SIGNATURE: _EVERYBODY,
    Tier.SOCKET: _WORKSPACE,
}
_NOTES = {
    Tier.REGISTRY: "The workspace is the one that the body names.",
    Tier.DISCOVERY: "The workspace is the caller in `X-Workspace-ID`.",
    Tier.CALLER: "The workspace is the caller in `X-Workspace-ID`; without the header a person speaks, "
    "who needs a credential as soon as there is an admin token.",
    Tier.DELEGATE: "Another workspace's token passes in its own name, in `X-Workspace-ID`, when the "
    "body names no target.",
    Tier.PEER: "The workspace is the caller in `X-Workspace-ID`.",
    Tier.SOCKET: "The workspace is the one in `X-Workspace-ID`; a canvas names none.",
    Tier.SIGNATURE: "The provider's signature decides.",
    Tier.WORKSPACE_OR_REDACTED: "Who shows no credential sees less.",
}
_HEAD = """\
# Who may call what

Every route has one tier. The table says which callers a tier lets past the gatekeeper (✓) and what it
answers to the others, for an installation with an admin token and a workspace that has a token, in default
and in strict mode alike. Looser openings exist only before anything is configured: each start logs those
in effect, with what closes them.

A revoked token has one more use than a wrong one: the agent of a removed workspace learns from
`GET /workspaces/:id/state` that it is gone. A session is that of an owner or an admin; a member's, and a
key with the role `editor`, gets 403 below `/admin`, `/settings/secrets` and `/org/tokens`, and a key with
the role `reader` also wherever something changes.

This page is generated from the routes, and a test asks every route as every caller.
"""


def routes(app: Litestar) -> Iterator[tuple[str, str, Any]]:
    """Method, path and handler of each route of the API, in the order of the paths."""
    found = [
        (route.path_format, method, handler)
        for route in app.routes
        if not route.path_format.startswith("/docs")
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods - {"HEAD", "OPTIONS"}
    ]
    for path, method, handler in sorted(found, key=lambda item: item[:2]):
        yield method, path, handler


def render(app: Litestar) -> str:
    """The page as Markdown."""
    by_tier: dict[Tier, list[str]] = {}
    for method, path, handler in routes(app):
        by_tier.setdefault(handler.opt["tier"], []).append(f"| {method} | `{path}` | {handler.summary} |")
    used = [tier for tier in Tier if tier in by_tier]
    lines = [_HEAD, f"| Tier | {' | '.join(CALLERS)} |", f"|---|{'---|' * len(CALLERS)}"]
    for tier in used:
        marks = " | ".join(str(refusal or "✓") for refusal in ACCESS[tier])
        lines.append(f"| {tier.value} | {marks} |")
    for tier in used:
        lines += ["", f"## {tier.value}", ""]
        if tier in _NOTES:
            lines += [_NOTES[tier], ""]
        lines += ["| | Path | |", "|---|---|---|", *by_tier[tier]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        page = render(Server(Settings(molecule_home=home)).litestar)
    print(page, end="")  # noqa: T201 the page is what this module is run for
