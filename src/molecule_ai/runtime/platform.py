"""The one HTTP client to the platform: always authenticated, always naming the workspace."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.origin import chain_metadata
from molecule_ai.runtime.settings import RuntimeSettings

Json = dict[str, Any]

CALL_SECONDS = 10.0
PUSH_SECONDS = 3.0  # contract 02 §15: task pushes and instructions
MESSAGE_SECONDS = 600.0  # contract 02 §14: an initial prompt may take this long
MAX_REPLY_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 16


class PlatformUnreachable(Exception):
    """The platform gave no answer."""


class PlatformRefused(Exception):
    """The platform answered with an error status."""

    def __init__(self, status: int, body: object) -> None:
        fields = body if isinstance(body, dict) else {}
        self.status = status
        self.code = str(fields.get("code", ""))
        self.body = fields
        super().__init__(str(fields.get("error") or f"HTTP {status}"))

    @property
    def is_transient(self) -> bool:
        """Say whether the same call may succeed later."""
        return self.status in (408, 429) or self.status >= 500


class Platform:
    """Typed calls for everything an agent needs from the tenant server (contract 02 §15)."""

    def __init__(self, settings: RuntimeSettings, credentials: Credentials) -> None:
        self.workspace_id = settings.workspace_id
        self.credentials = credentials
        self._base = settings.platform_url
        self._org_id = settings.molecule_org_id
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()

    async def register(self, url: str, card: Json) -> Json:
        """Announce this agent, and keep the token that a first registration returns."""
        body = {"id": self.workspace_id, "url": url, "agent_card": card}
        reply = await self._object("POST", "/registry/register", body)
        if token := reply.get("auth_token"):
            self.credentials.save(str(token))
        if secret := reply.get("platform_inbound_secret"):
            self.credentials.save_inbound(str(secret))
        return reply

    async def heartbeat(self, beat: Json, seconds: float = CALL_SECONDS) -> Json:
        """Tell the platform that this agent lives, and how it does."""
        return await self._object(
            "POST", "/registry/heartbeat", {"workspace_id": self.workspace_id, **beat}, seconds=seconds
        )

    async def update_card(self, card: Json) -> None:
        """Replace the stored agent card."""
        await self._object(
            "POST", "/registry/update-card", {"workspace_id": self.workspace_id, "agent_card": card}
        )

    async def peers(self) -> list[Json]:
        """List siblings, children and parent."""
        return await self._array("GET", f"/registry/{self.workspace_id}/peers")

    async def discover(self, workspace_id: str) -> Json:
        """Find a peer's id, name and URL."""
        return await self._object("GET", f"/registry/discover/{quote(workspace_id, safe='')}")

    async def workspace(self) -> Json:
        """Read this workspace's own record."""
        return await self._object("GET", self._own(""))

    async def delegate(self, target_id: str, task: str, idempotency_key: str) -> Json:
        """Hand a task to a peer; the platform delivers it."""
        body: Json = {"target_id": target_id, "task": task, "idempotency_key": idempotency_key}
        return await self._object("POST", self._own("/delegate"), _with_chain(body))

    async def delegations(self, *, delegation_id: str = "", limit: int = 200) -> list[Json]:
        """List this workspace's delegations, newest first."""
        query = {"limit": str(limit)}
        if delegation_id:
            query["delegation_id"] = delegation_id
        return await self._array("GET", self._own("/delegations"), query=query)

    async def send_message(
        self,
        target_id: str,
        text: str,
        *,
        message_id: str = "",
        metadata: Json | None = None,
        seconds: float = MESSAGE_SECONDS,
    ) -> Json:
        """Send an A2A message through the platform's proxy."""
        message: Json = {
            "role": "user",
            "kind": "message",
            "messageId": message_id or str(uuid.uuid4()),
            "parts": [{"kind": "text", "text": text}],
            "metadata": {**(metadata or {}), **chain_metadata()},
        }
        body = {"method": "message/send", "params": {"message": message}}
        path = f"/workspaces/{quote(target_id, safe='')}/a2a"
        return await self._object("POST", path, body, seconds=seconds)

    async def request_approval(self, action: str, reason: str, context: Json, idempotency_key: str) -> Json:
        """Ask a human to decide."""
        body: Json = {
            "action": action,
            "reason": reason,
            "context": context,
            "idempotency_key": idempotency_key,
        }
        return await self._object("POST", self._own("/approvals"), _with_chain(body))

    async def approval(self, approval_id: str) -> Json:
        """Read one approval."""
        return await self._object("GET", self._own(f"/approvals/{quote(approval_id, safe='')}"))

    async def approvals(self) -> list[Json]:
        """List this workspace's approvals, newest first."""
        return await self._array("GET", self._own("/approvals"))

    async def notify(self, message: str) -> None:
        """Say something to the user."""
        await self._object("POST", self._own("/notify"), {"message": message})

    async def activity(self, activity_type: str, **fields: object) -> None:
        """Add a line to this workspace's activity log."""
        body = {"activity_type": activity_type, "source_id": self.workspace_id, **fields}
        await self._object("POST", self._own("/activity"), body)

    async def instructions(self) -> str:
        """Return the rules that stand first in the system prompt."""
        reply = await self._object("GET", self._own("/instructions/resolve"), seconds=PUSH_SECONDS)
        return str(reply.get("instructions") or "")

    async def commit_memory(self, content: str, scope: str) -> Json:
        """Store a memory."""
        return await self._object("POST", self._own("/memories"), {"content": content, "scope": scope})

    async def recall_memory(self, query: str, scope: str) -> list[Json]:
        """Search the memories that this workspace may read."""
        return await self._array("GET", self._own("/memories"), query={"q": query, "scope": scope})

    def _own(self, path: str) -> str:
        return f"/workspaces/{self.workspace_id}{path}"

    async def _object(
        self, method: str, path: str, body: Json | None = None, *, seconds: float = CALL_SECONDS
    ) -> Json:
        reply = await self._call(method, path, body, None, seconds)
        return reply if isinstance(reply, dict) else {}

    async def _array(self, method: str, path: str, *, query: Mapping[str, str] | None = None) -> list[Json]:
        reply = await self._call(method, path, None, query, CALL_SECONDS)
        return [item for item in reply if isinstance(item, dict)] if isinstance(reply, list) else []

    async def _call(
        self, method: str, path: str, body: Json | None, query: Mapping[str, str] | None, seconds: float
    ) -> Any:
        token = self.credentials.token
        try:
            return await self._send(method, path, body, query, seconds)
        except PlatformRefused as refused:
            if refused.status != 401 or not self.credentials.refresh(token):
                raise
        return await self._send(method, path, body, query, seconds)

    async def _send(
        self, method: str, path: str, body: Json | None, query: Mapping[str, str] | None, seconds: float
    ) -> Any:
        try:
            async with self._connections().request(
                method,
                self._base + path,
                data=None if body is None else msgspec.json.encode(body),
                params=query,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                reply = _decode(await _body(response))
                if response.status >= 300:
                    raise PlatformRefused(response.status, reply)
                return reply
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PlatformUnreachable(f"{method} {path}: {error or type(error).__name__}") from error

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS))
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"X-Workspace-ID": self.workspace_id, "Content-Type": "application/json"}
        if self.credentials.token:
            headers["Authorization"] = f"Bearer {self.credentials.token}"
        if self._org_id:
            headers["X-Molecule-Org-Id"] = self._org_id
        return headers


async def retrying(call: Any, *, attempts: int, delay: float) -> Any:
    """Repeat an idempotent call while the platform is away or overloaded."""
    for attempt in range(attempts + 1):
        try:
            return await call()
        except PlatformUnreachable:
            if attempt == attempts:
                raise
        except PlatformRefused as refused:
            if attempt == attempts or not refused.is_transient:
                raise
        await asyncio.sleep(delay)
    raise AssertionError("unreachable")


def _with_chain(body: Json) -> Json:
    metadata = chain_metadata()
    return {**body, "metadata": metadata} if metadata else body


async def _body(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            raise aiohttp.ClientPayloadError(f"reply exceeds {MAX_REPLY_BYTES} bytes")
    return bytes(content)


def _decode(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else {}
    except msgspec.DecodeError:
        return {}
