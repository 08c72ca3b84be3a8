"""Whose session a cookie is: the control plane is asked, and believed for a moment (contract 01 §7)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from molecule_ai.kernel import log

from .principal import Kind, Principal, Role

COOKIE = "mcp_session"
_USER_AGENT = "molecule-tenant-platform/session-verifier"
_TIMEOUT_SECONDS = 3.0
_POSITIVE_SECONDS = 30.0  # the longest that a logout or a new role takes to be seen
_NEGATIVE_SECONDS = 5.0
_MAX_VERDICTS = 10_000
_EVICTED_AT_ONCE = 128
_MAX_ANSWER_BYTES = 64 * 1024
_SWEEP_SECONDS = 120.0
# What the control plane calls its roles, and what each may do here (contract 07 §6).
_ROLES = {"": Role.ADMIN, "owner": Role.ADMIN, "admin": Role.ADMIN, "member": Role.EDITOR}


class _Unreachable(Exception):
    """The control plane gave no verdict."""


class Sessions:
    """Verifies session cookies. Without a control plane and a slug cookies are ignored.

    Also the engine that forgets verdicts that have run out.
    """

    name = "cp-session-cache"
    interval_seconds = _SWEEP_SECONDS

    def __init__(self, upstream: str, slug: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream.strip().rstrip("/")
        self._slug = slug.strip()
        self._clock = clock
        self._client: aiohttp.ClientSession | None = None
        self._verdicts: dict[bytes, tuple[float, Principal | None]] = {}
        self._asked: dict[bytes, asyncio.Task[Principal | None]] = {}

    @property
    def is_enabled(self) -> bool:
        return bool(self._upstream and self._slug)

    async def open(self) -> None:
        """Connect lazily; nothing is asked before the first cookie."""
        if self.is_enabled and self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
            )

    async def close(self) -> None:
        for task in list(self._asked.values()):
            task.cancel()
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def find(self, session: str) -> Principal | None:
        """The member that holds this session, or None. Concurrent questions about one cookie are one."""
        client = self._client
        if not session or client is None:
            return None
        key = hashlib.sha256(f"{self._slug}\0{session}".encode()).digest()
        verdict = self._verdicts.get(key)
        if verdict is not None and verdict[0] > self._clock():
            return verdict[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._settle(client, key, session))
            task.add_done_callback(lambda _: self._asked.pop(key, None))
        # A client that goes away takes nobody else's answer with it.
        return await asyncio.shield(task)

    async def tick(self) -> object:
        """Forget what has run out."""
        now = self._clock()
        old = [key for key, (until, _) in self._verdicts.items() if until <= now]
        for key in old:
            del self._verdicts[key]
        return {"forgotten": len(old), "kept": len(self._verdicts)}

    async def _settle(self, client: aiohttp.ClientSession, key: bytes, session: str) -> Principal | None:
        try:
            member = _member(await self._ask(client, session))
        except _Unreachable as problem:
            log.get().warning("session_not_verified", error=str(problem))
            return None
        if len(self._verdicts) >= _MAX_VERDICTS:
            for old in list(self._verdicts)[:_EVICTED_AT_ONCE]:
                del self._verdicts[old]
        life = _NEGATIVE_SECONDS if member is None else _POSITIVE_SECONDS
        self._verdicts[key] = (self._clock() + life, member)
        return member

    async def _ask(self, client: aiohttp.ClientSession, session: str) -> Any:
        """The control plane's answer, None for a refusal. Raises `_Unreachable`."""
        try:
            async with client.get(
                f"{self._upstream}/cp/auth/tenant-member",
                params={"slug": self._slug},
                headers={"Cookie": f"{COOKIE}={session}", "User-Agent": _USER_AGENT},
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    return None
                return msgspec.json.decode(await answer.content.read(_MAX_ANSWER_BYTES))
        except msgspec.DecodeError:
            return None
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            raise _Unreachable(type(problem).__name__) from problem


def _member(answer: Any) -> Principal | None:
    """The principal of a positive verdict; a role that nobody here knows may only read."""
    if not isinstance(answer, dict) or answer.get("member") is not True:
        return None
    user_id, role = answer.get("user_id"), answer.get("role") or ""
    if not isinstance(user_id, str) or not user_id:
        return None
    return Principal(kind=Kind.SESSION, user_id=user_id, role=_ROLES.get(str(role), Role.READER))
