"""The rules of approvals: who asks, who decides, how long it waits, and what a decision covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct

from molecule_ai.kernel import failpoints
from molecule_ai.kernel.clock import Ids
from molecule_ai.kernel.db import Connection, Database
from molecule_ai.server.auth.errors import WorkspaceNotFound
from molecule_ai.server.auth.identities import Identities
from molecule_ai.server.auth.principal import Kind, Principal
from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.service import Events
from molecule_ai.server.workspaces.tree import is_above

from . import errors, store
from .binding import request_hash
from .schemas import (
    Approval,
    ApprovalCreate,
    ApprovalCreated,
    ApprovalRule,
    ApprovalRules,
    ApprovalStatus,
    Approver,
    Choice,
    Decision,
    PendingApproval,
    Verdict,
    Withdrawn,
)
from .store import NewApproval

MAX_ACTION_CHARACTERS = 2000
MAX_REASON_BYTES = 8192
MAX_CONTEXT_BYTES = 65_536
MAX_LISTED = 200
PENDING_LISTED = 50
EXPIRE_BATCH = 100
_OPEN = frozenset({ApprovalStatus.PENDING, ApprovalStatus.ESCALATED})
_WORDS = {
    ApprovalStatus.APPROVED: {"approve", "approved", "allow", "yes"},
    ApprovalStatus.DENIED: {"deny", "denied", "reject", "rejected", "no"},
}
_HUMANS = frozenset({Kind.ADMIN, Kind.ORG_KEY, Kind.SESSION, Kind.SAME_ORIGIN, Kind.BOOTSTRAP, Kind.SYSTEM})
_GATE_HUMANS = frozenset({Kind.SESSION, Kind.SAME_ORIGIN})


class Policy(Struct, frozen=True, kw_only=True):
    """The operator's choices."""

    ttl: timedelta | None
    allows_own_decision: bool
    browser_origins: tuple[str, ...]


class Approvals:
    """Requests of every workspace. One method is one transaction with its events."""

    def __init__(
        self, db: Database, events: Events, identities: Identities, ids: Ids, policy: Policy
    ) -> None:
        self._db = db
        self._events = events
        self._identities = identities
        self._ids = ids
        self._policy = policy

    async def create(self, caller: Principal, workspace_id: UUID, data: ApprovalCreate) -> ApprovalCreated:
        """Ask. The first request with an idempotency key is the only one."""
        action, reason = _action(data), _reason(data)
        context = data.context or {}
        _limit_context(context, data.metadata or {})
        async with self._db.transaction() as tx:
            creator = await store.find_creator(tx, workspace_id)
            if creator is None:
                raise WorkspaceNotFound
            rule = match(await store.list_rules(tx, workspace_id), action)
            new = NewApproval(
                id=self._ids.new(),
                workspace_id=workspace_id,
                task_id=data.task_id or "",
                action=action,
                reason=reason or (rule.reason if rule else ""),
                context=context,
                metadata=data.metadata or {},
                options=msgspec.to_builtins(data.options or []),
                approver=rule.approver if rule else Approver.ANY,
                request_hash=request_hash(action, context),
                raised_by=caller.label,
                ttl=self._ttl(rule),
                parent_id=creator.parent_id,
                idempotency_key=data.idempotency_key or None,
            )
            approval = await store.insert(tx, new)
            if approval is None:
                return _created(await self._first_with(tx, new), is_hit=True)
            await self._tell_requested(tx, approval, creator.parent_id, actor=caller.label)
            failpoints.reach("approvals.created")
        return _created(approval)

    async def list_all(self, workspace_id: UUID, *, status: str | None, limit: int) -> Sequence[Approval]:
        """Requests that a workspace raised or guards, newest first."""
        async with self._db.connection() as connection:
            return await store.list_for_workspace(
                connection, workspace_id, status=status, limit=min(limit, MAX_LISTED)
            )

    async def get(self, workspace_id: UUID, approval_id: UUID) -> Approval:
        """One request, for its workspace, its gate or a workspace above."""
        async with self._db.connection() as connection:
            approval = await self._reach(connection, workspace_id, approval_id)
        if approval is None:
            raise errors.ApprovalNotFound
        return approval

    async def list_pending(self) -> Sequence[PendingApproval]:
        """Open requests of every workspace; what waited too long is denied first."""
        async with self._db.transaction() as tx:
            await self._expire(tx)
            return await store.list_pending(tx, PENDING_LISTED)

    async def decide(
        self,
        caller: Principal,
        workspace_id: UUID,
        approval_id: UUID,
        data: Decision,
        *,
        status: ApprovalStatus | None = None,
        origin: str = "",
    ) -> Verdict:
        """Decide an open request; of two decisions the later loses. `status` overrides the body's words."""
        wanted = status or _verdict(data)
        async with self._db.transaction() as tx:
            approval = await self._reach(tx, workspace_id, approval_id)
            if approval is None:
                raise errors.NotPending
            await self._require_right(tx, caller, approval, origin)
            option = _option(approval, data)
            settled = await store.settle(
                tx,
                approval_id,
                wanted,
                by=(data.decided_by or "").strip()[:200] or "human",
                principal=_described(caller),
                comment=(data.comment or "")[:MAX_REASON_BYTES],
                option=option,
            )
            if settled is not None:
                await self._tell_decided(tx, settled, caller)
                failpoints.reach("approvals.decided")
                return _verdict_of(settled)
        return await self._too_late(approval_id, wanted)

    async def withdraw(self, caller: Principal, workspace_id: UUID, approval_id: UUID) -> Withdrawn:
        """Take back an open request; only the workspace that raised it may."""
        async with self._db.transaction() as tx:
            approval = await store.find(tx, approval_id)
            if approval is None:
                raise errors.ApprovalNotFound
            requester = caller.workspace_id if caller.kind is Kind.WORKSPACE else workspace_id
            if requester != approval.workspace_id:
                raise errors.NotRequester
            settled = await store.settle(
                tx,
                approval_id,
                ApprovalStatus.WITHDRAWN,
                by="requester",
                principal=_described(caller),
            )
            if settled is not None:
                await self._tell_withdrawn(tx, settled, caller)
                return Withdrawn(
                    status=ApprovalStatus.WITHDRAWN, approval_id=approval_id, decided_by="requester"
                )
        now = await self._current(approval_id)
        raise errors.NoLongerPending(status=now.status.value)

    async def requester_removed(self, tx: Connection, workspace_ids: Sequence[UUID], actor: str) -> None:
        """Nobody is left to use what these workspaces asked for: their open requests are withdrawn."""
        for approval in await store.withdraw_all(tx, workspace_ids, by="workspace removed"):
            payload = {
                "approval_id": str(approval.id),
                "decision": "withdrawn",
                "decided_by": approval.decided_by,
            }
            await self._events.append(
                tx, Event.APPROVAL_WITHDRAWN, approval.workspace_id, payload, actor=actor
            )
            await self._tell_agent(tx, approval)

    async def rules(self, workspace_id: UUID) -> ApprovalRules:
        """The rules of a workspace."""
        async with self._db.connection() as connection:
            return ApprovalRules(await store.list_rules(connection, workspace_id))

    async def set_rules(self, tx: Connection, workspace_id: UUID, rules: Sequence[ApprovalRule]) -> None:
        """Replace the rules of a workspace; they hold for requests that are raised from now on."""
        await store.replace_rules(tx, workspace_id, rules)

    async def consume(
        self, tx: Connection, workspace_id: UUID, action: str, context: Mapping[str, Any], *, actor: str
    ) -> UUID | None:
        """Use up an approval of exactly this action with exactly these arguments.

        None when there is no unused one: then the action is not approved, whatever else was.
        """
        approval_id = await store.consume(tx, workspace_id, request_hash(action, context))
        if approval_id is not None:
            payload = {"approval_id": str(approval_id), "action": action}
            await self._events.append(tx, "approval.consume", workspace_id, payload, actor=actor)
        return approval_id

    async def expire(self) -> int:
        """Deny what waited too long; returns how many."""
        async with self._db.transaction() as tx:
            return await self._expire(tx)

    async def escalate(self) -> int:
        """Tell the next workspace above of requests at half their life; returns how many were told."""
        async with self._db.transaction() as tx:
            due = await store.escalate(tx, EXPIRE_BATCH)
            told = [(row, row.next_id) for row in due if row.next_id is not None]
            for row, next_id in told:
                payload = {
                    "approval_id": str(row.id),
                    "from_workspace_id": str(row.workspace_id),
                    "action": row.action,
                    "reason": row.reason,
                    "level": row.level,
                }
                await self._events.append(tx, Event.APPROVAL_ESCALATED, next_id, payload, actor="system")
        return len(told)

    async def _expire(self, tx: Connection) -> int:
        expired = await store.expire(tx, EXPIRE_BATCH)
        for approval in expired:
            await self._tell_decided(tx, approval, None)
        return len(expired)

    def _ttl(self, rule: ApprovalRule | None) -> timedelta | None:
        if rule is None or rule.ttl_seconds is None:
            return self._policy.ttl
        return timedelta(seconds=rule.ttl_seconds) if rule.ttl_seconds else None

    async def _first_with(self, tx: Connection, new: NewApproval) -> Approval:
        first = await store.find_by_key(tx, new.workspace_id, new.idempotency_key or "")
        if first is None:
            raise LookupError("a request with this key was there a statement ago")
        return first

    async def _reach(self, connection: Connection, workspace_id: UUID, approval_id: UUID) -> Approval | None:
        """The request as seen from its creator, its gate, or a workspace above its creator."""
        approval = await store.find(connection, approval_id)
        if approval is None:
            return None
        if workspace_id in {approval.workspace_id, approval.gate_workspace_id}:
            return approval
        return approval if await is_above(connection, workspace_id, approval.workspace_id) else None

    async def _require_right(
        self, tx: Connection, caller: Principal, approval: Approval, origin: str
    ) -> None:
        """Contract 03 §4.4: people, or a workspace above; never the requester itself."""
        if approval.gate_workspace_id is not None:
            from_browser = caller.kind is Kind.ADMIN and origin.rstrip("/") in self._policy.browser_origins
            if caller.kind not in _GATE_HUMANS and not from_browser:
                raise errors.GateNeedsHuman
            return
        if caller.kind in _HUMANS:
            return
        if caller.workspace_id == approval.workspace_id:
            if self._policy.allows_own_decision or not await self._identities.has_operator(tx):
                return
            raise errors.OwnApproval
        if approval.approver is Approver.USER:
            raise errors.HumanRequired

    async def _too_late(self, approval_id: UUID, wanted: ApprovalStatus) -> Verdict:
        """The answer to the loser of a race: the same decision again is no news, another one is refused."""
        now = await self._current(approval_id)
        if now.status is wanted:
            return _verdict_of(now, is_repeat=True)
        raise errors.NotPending(
            current_status=now.status.value,
            decided_by=now.decided_by,
            decided_at=now.decided_at,
        )

    async def _current(self, approval_id: UUID) -> Approval:
        """The request after whatever ended it; one past its time is ended now."""
        async with self._db.transaction() as tx:
            found = await store.find(tx, approval_id)
            if found is not None and found.status in _OPEN:
                await self._expire(tx)
                found = await store.find(tx, approval_id)
        if found is None:
            raise errors.NotPending
        return found

    async def _tell_requested(
        self, tx: Connection, approval: Approval, parent_id: UUID | None, *, actor: str
    ) -> None:
        payload = {
            "approval_id": str(approval.id),
            "action": approval.action,
            "reason": approval.reason,
            "task_id": approval.task_id,
        }
        await self._events.append(tx, Event.APPROVAL_REQUESTED, approval.workspace_id, payload, actor=actor)
        if parent_id is not None:
            raised = {
                "approval_id": str(approval.id),
                "from_workspace_id": str(approval.workspace_id),
                "action": approval.action,
                "reason": approval.reason,
                "level": 1,
            }
            await self._events.append(tx, Event.APPROVAL_ESCALATED, parent_id, raised, actor=actor)

    async def _tell_decided(self, tx: Connection, approval: Approval, caller: Principal | None) -> None:
        is_approved = approval.status is ApprovalStatus.APPROVED
        actor = caller.label if caller else "system"
        payload = {
            "approval_id": str(approval.id),
            "decision": approval.status.value,
            "decided_by": approval.decided_by,
        }
        event = Event.APPROVAL_APPROVED if is_approved else Event.APPROVAL_DENIED
        await self._events.append(tx, event, approval.workspace_id, payload, actor=actor)
        audit = payload | {"request_hash": approval.request_hash}
        await self._events.append(tx, "approval.decide", approval.workspace_id, audit, actor=actor)
        await self._tell_agent(tx, approval)

    async def _tell_withdrawn(self, tx: Connection, approval: Approval, caller: Principal) -> None:
        payload = {"approval_id": str(approval.id), "decision": "withdrawn", "decided_by": "requester"}
        workspace_id, actor = approval.workspace_id, caller.label
        await self._events.append(tx, Event.APPROVAL_WITHDRAWN, workspace_id, payload, actor=actor)
        await self._events.append(tx, "approval.withdraw", workspace_id, payload, actor=actor)
        await self._tell_agent(tx, approval)

    async def _tell_agent(self, tx: Connection, approval: Approval) -> None:
        """The frame that a waiting agent looks for: anything but approved is a no (contract 03 §4.8)."""
        is_approved = approval.status is ApprovalStatus.APPROVED
        fields = {
            "approval_id": str(approval.id),
            "status": "approved" if is_approved else "denied",
            "decided_by": approval.decided_by,
        }
        await self._events.broadcast(
            Event.APPROVAL_DECIDED, approval.workspace_id, fields, tx=tx, beside=fields
        )


def match(rules: Sequence[ApprovalRule], action: str) -> ApprovalRule | None:
    """The first rule whose pattern fits."""
    wanted = action.casefold()
    return next((rule for rule in rules if fnmatchcase(wanted, rule.action.casefold())), None)


def _action(data: ApprovalCreate) -> str:
    action = (data.action or data.action_description or data.description or "").strip()
    if not action:
        raise errors.ActionRequired
    if len(action) > MAX_ACTION_CHARACTERS:
        raise errors.ActionTooLong
    return action


def _reason(data: ApprovalCreate) -> str:
    reason = data.reason or ""
    if len(reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        raise errors.ReasonTooLong
    return reason


def _limit_context(*parts: dict[str, Any]) -> None:
    if any(len(msgspec.json.encode(part)) > MAX_CONTEXT_BYTES for part in parts):
        raise errors.ContextTooLarge


def _verdict(data: Decision) -> ApprovalStatus:
    if data.decision is not None:
        word = data.decision.strip().lower()
        for status, words in _WORDS.items():
            if word in words:
                return status
        raise errors.UnknownDecision
    if data.approved is None:
        raise errors.DecisionRequired
    return ApprovalStatus.APPROVED if data.approved else ApprovalStatus.DENIED


def _option(approval: Approval, data: Decision) -> str:
    if data.option is None:
        return ""
    known = {msgspec.convert(option, str | Choice) for option in approval.options}
    ids = {option if isinstance(option, str) else option.id for option in known}
    if data.option not in ids:
        raise errors.UnknownOption
    return data.option


def _described(caller: Principal) -> dict[str, Any]:
    """Who it really was."""
    return {
        "kind": caller.kind.value,
        "label": caller.label,
        "workspace_id": caller.workspace_id,
        "token_id": caller.token_id,
        "user_id": caller.user_id,
    }


def _created(approval: Approval, *, is_hit: bool = False) -> ApprovalCreated:
    return ApprovalCreated(
        approval_id=approval.id,
        id=approval.id,
        status=approval.status,
        expires_at=approval.expires_at,
        request_hash=approval.request_hash,
        idempotent_hit=True if is_hit else UNSET,
    )


def _verdict_of(approval: Approval, *, is_repeat: bool = False) -> Verdict:
    return Verdict(
        status=approval.status,
        approval_id=approval.id,
        decision=approval.status,
        approved=approval.status is ApprovalStatus.APPROVED,
        decided_by=approval.decided_by or "",
        decided_at=approval.decided_at,
        already=True if is_repeat else UNSET,
    )
