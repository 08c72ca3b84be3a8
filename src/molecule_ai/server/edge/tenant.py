"""A hosted tenant answers only to those who meant it (contract 01 §8)."""

from __future__ import annotations

from .facts import Facts

_EXACT = frozenset({"/health", "/metrics", "/buildinfo", "/registry/register", "/registry/heartbeat"})
_PREFIXES = ("/cp/", "/webhooks/")


class TenantGuard:
    """Active where the organization's id is configured."""

    def __init__(self, org_id: str, org_slug: str, *, has_canvas: bool) -> None:
        self._org_id = org_id.strip()
        self._slug = org_slug.strip().lower()
        self._has_canvas = has_canvas

    def admits(self, path: str, facts: Facts) -> bool:
        """Whether the request was meant for this organization."""
        if not self._org_id or path in _EXACT or path.startswith(_PREFIXES):
            return True
        named = facts.text(b"x-molecule-org-id")
        if named:
            return named == self._org_id
        if any(part.strip() == f"state={self._org_id}" for part in facts.text(b"fly-replay-src").split(";")):
            return True
        slug = facts.text(b"x-molecule-org-slug")
        if slug:
            return bool(self._slug) and slug.lower() == self._slug
        return self._has_canvas and _is_same_origin(facts)


def _is_same_origin(facts: Facts) -> bool:
    host = facts.text(b"host")
    own = (f"http://{host}", f"https://{host}")
    referer = facts.text(b"referer")
    return (
        facts.text(b"origin") in own or referer in own or referer.startswith(tuple(f"{one}/" for one in own))
    )
