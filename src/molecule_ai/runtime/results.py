"""Results of delegations that nobody waits for come back to the agent as one message to itself."""

import asyncio
import hashlib
import logging
from typing import Any

from molecule_ai.runtime.delegations import Delegated, Delegations
from molecule_ai.runtime.origin import Origin, current_origin
from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable

log = logging.getLogger(__name__)

POLL_SECONDS = 30.0  # contract 02 §15
COOL_DOWN_SECONDS = 60.0
HEADING = "Delegation results:"
MAX_RESULT = 4000

Ended = tuple[Delegated, Origin | None]


class DelegationResults:
    """Watches what `delegate_task_async` has started; a result the model asked for itself is not repeated."""

    def __init__(
        self,
        platform: Platform,
        delegations: Delegations,
        *,
        poll_seconds: float = POLL_SECONDS,
        cool_down_seconds: float = COOL_DOWN_SECONDS,
    ) -> None:
        self._platform = platform
        self._delegations = delegations
        self._poll_seconds = poll_seconds
        self._cool_down_seconds = cool_down_seconds
        self._expected: dict[str, Origin | None] = {}

    def expect(self, delegation_id: str) -> None:
        """Deliver the result of this delegation when it ends, on the chain of the current message."""
        self._expected[delegation_id] = current_origin.get()

    def forget(self, delegation_id: str) -> None:
        """Deliver nothing for this delegation."""
        self._expected.pop(delegation_id, None)

    async def run(self) -> None:
        """Deliver for ever, at most one message in a while."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            if await self._deliver():
                await asyncio.sleep(self._cool_down_seconds)

    async def _deliver(self) -> bool:
        try:
            ended = await self._ended()
            for group in _by_chain(ended):
                await self._send(group)
        except (PlatformRefused, PlatformUnreachable) as error:
            log.warning("delegation_results_failed error=%s", error)
            return False
        return bool(ended)

    async def _ended(self) -> list[Ended]:
        found = [
            (await self._delegations.find(item), origin) for item, origin in list(self._expected.items())
        ]
        return [(delegated, origin) for delegated, origin in found if delegated and delegated.is_over]

    async def _send(self, group: list[Ended]) -> None:
        ids = sorted(delegated.id for delegated, _ in group)
        digest = hashlib.sha256("\0".join(ids).encode()).hexdigest()
        token = current_origin.set(group[0][1])
        try:
            await self._platform.send_message(
                self._platform.workspace_id,
                "\n".join([HEADING, *(_line(delegated) for delegated, _ in group)]),
                message_id=f"results-{digest[:16]}",
                metadata={"source": "runtime", "kind": "delegation_results", "delegation_ids": ids},
            )
        finally:
            current_origin.reset(token)
        for identifier in ids:
            self.forget(identifier)


def _by_chain(ended: list[Ended]) -> list[list[Ended]]:
    """Keep causal chains apart, since a message can continue only one."""
    groups: dict[str, list[Ended]] = {}
    for delegated, origin in ended:
        chain: Any = origin.molecule if origin else None
        groups.setdefault(repr(chain), []).append((delegated, origin))
    return list(groups.values())


def _line(delegated: Delegated) -> str:
    outcome = delegated.result if delegated.status == "completed" else f"failed: {delegated.error}"
    return f"- task {delegated.id} for {delegated.target_id}: {outcome[:MAX_RESULT]}"
