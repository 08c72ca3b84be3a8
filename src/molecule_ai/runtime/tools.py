"""The tools offered to a model: one definition, used by every adapter (contract 02 §14)."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from molecule_ai.runtime.delegations import Delegations
from molecule_ai.runtime.origin import Origin, current_origin
from molecule_ai.runtime.peers import Peers
from molecule_ai.runtime.platform import Json, Platform, PlatformRefused, PlatformUnreachable, retrying
from molecule_ai.runtime.results import DelegationResults

FIRST_POLL_SECONDS = 0.2
GROWTH = 1.5

PeerId = Annotated[str, Meta(min_length=1, description="Id of the peer, as list_peers returns it.")]
Task = Annotated[str, Meta(min_length=1, description="What to do, with all the context the peer needs.")]


class Nothing(Struct):
    """No arguments."""


class DelegateTask(Struct):
    workspace_id: PeerId
    task: Task
    timeout_seconds: (
        Annotated[float, Meta(gt=0, le=1800, description="How long to wait for the answer.")] | None
    ) = None


class DelegateTaskAsync(Struct):
    workspace_id: PeerId
    task: Task


class CheckTaskStatus(Struct):
    task_id: Annotated[str, Meta(min_length=1, description="The id that delegate_task_async returned.")]


class RequestApproval(Struct):
    action: Annotated[
        str, Meta(min_length=1, max_length=2000, description="What would be done, in one line.")
    ]
    reason: Annotated[str, Meta(max_length=8192, description="Why it should be done.")] = ""
    arguments: Annotated[
        dict[str, Any], Meta(description="The exact arguments of the action; the decision holds for these.")
    ] = field(default_factory=dict)
    timeout_seconds: Annotated[float, Meta(gt=0, le=86400, description="How long to wait.")] | None = None


class SendMessageToUser(Struct):
    message: Annotated[str, Meta(min_length=1, description="What the user should read.")]


class CommitMemory(Struct):
    content: Annotated[str, Meta(min_length=1, description="The fact to keep.")]
    scope: Annotated[
        Literal["LOCAL", "TEAM", "GLOBAL"],
        Meta(description="LOCAL for this workspace, TEAM for its team, GLOBAL (roots only) for everyone."),
    ] = "LOCAL"


class RecallMemory(Struct):
    query: Annotated[str, Meta(description="Words to look for; empty lists the newest.")] = ""
    scope: Annotated[
        Literal["ALL", "LOCAL", "TEAM", "GLOBAL"], Meta(description="Whose memories to search.")
    ] = "ALL"


class Tool(Struct, frozen=True):
    """A named function with a JSON Schema, as every model API wants it."""

    name: str
    description: str
    parameters: dict[str, Any]
    call: Callable[[dict[str, Any]], Awaitable[str]]


class Waits(Struct, frozen=True, kw_only=True):
    """How long tools wait, and how often they try again."""

    delegation_seconds: float = 300.0
    approval_seconds: float = 300.0
    approval_poll_seconds: float = 5.0
    retry_attempts: int = 3
    retry_seconds: float = 5.0


class ToolBox:
    """Carries out what a model asks for. A failure is a text that the model can read and act on."""

    def __init__(
        self,
        platform: Platform,
        peers: Peers,
        delegations: Delegations,
        results: DelegationResults,
        waits: Waits,
        allowed: frozenset[str],
    ) -> None:
        self._platform = platform
        self._peers = peers
        self._delegations = delegations
        self._results = results
        self._waits = waits
        self._allowed = allowed

    def tools(self) -> tuple[Tool, ...]:
        """Return the tools that this workspace's roles allow."""
        return tuple(
            _tool(name, description, arguments, call)
            for name, action, description, arguments, call in self._table()
            if not action or action in self._allowed
        )

    def _table(self) -> list[tuple[str, str, str, type[Struct], Callable[[Any], Awaitable[str]]]]:
        return [
            (
                "delegate_task",
                "delegate",
                "Give a task to a peer and wait for its answer.",
                DelegateTask,
                self._delegate_task,
            ),
            (
                "delegate_task_async",
                "delegate",
                "Give a task to a peer without waiting; returns a task id.",
                DelegateTaskAsync,
                self._delegate_task_async,
            ),
            (
                "check_task_status",
                "delegate",
                "Look up what became of a task given to a peer.",
                CheckTaskStatus,
                self._check_task_status,
            ),
            ("list_peers", "", "List the workspaces you can talk to.", Nothing, self._list_peers),
            ("get_workspace_info", "", "Describe your own workspace.", Nothing, self._get_workspace_info),
            (
                "request_approval",
                "approve",
                "Ask a human to approve an action, and wait for the decision.",
                RequestApproval,
                self._request_approval,
            ),
            (
                "send_message_to_user",
                "",
                "Send a message to the user.",
                SendMessageToUser,
                self._send_message,
            ),
            (
                "commit_memory",
                "memory.write",
                "Keep a fact beyond this conversation.",
                CommitMemory,
                self._commit_memory,
            ),
            (
                "recall_memory",
                "memory.read",
                "Search what was kept earlier.",
                RecallMemory,
                self._recall_memory,
            ),
        ]

    async def _delegate_task(self, arguments: DelegateTask) -> str:
        seconds = arguments.timeout_seconds or self._waits.delegation_seconds
        started = await self._start(arguments.workspace_id, arguments.task)
        delegation_id = str(started.get("delegation_id", ""))
        try:
            outcome = await self._delegations.wait(delegation_id, seconds)
        except TimeoutError:
            return _json({"delegation_id": delegation_id, "status": "in_progress", "waited_seconds": seconds})
        if outcome.status == "failed":
            return f"Error: the delegation failed: {outcome.error or 'no reason given'}"
        return outcome.result

    async def _delegate_task_async(self, arguments: DelegateTaskAsync) -> str:
        started = await self._start(arguments.workspace_id, arguments.task)
        task_id = str(started.get("delegation_id", ""))
        self._results.expect(task_id)
        return _json({"task_id": task_id, "status": "dispatched", "target_id": arguments.workspace_id})

    async def _start(self, target_id: str, task: str) -> Json:
        key = _key("delegate", target_id, task)
        started: Json = await retrying(
            lambda: self._platform.delegate(target_id, task, key),
            attempts=self._waits.retry_attempts,
            delay=self._waits.retry_seconds,
        )
        return started

    async def _check_task_status(self, arguments: CheckTaskStatus) -> str:
        found = await self._delegations.find(arguments.task_id)
        if found is None:
            return _json({"task_id": arguments.task_id, "status": "not_found"})
        report = {"task_id": found.id, "status": found.status, "target_id": found.target_id}
        if found.error:
            report["error"] = found.error
        if found.is_over:
            self._results.forget(found.id)  # the model knows now
            report["result"] = found.result
        return _json(report)

    async def _list_peers(self, _: Nothing) -> str:
        peers = await self._peers.current()
        if not peers:
            return "No peers found."
        shown = ("id", "name", "role", "status", "relation")
        return _json([{name: getattr(peer, name) for name in shown} for peer in peers])

    async def _get_workspace_info(self, _: Nothing) -> str:
        record = await self._platform.workspace()
        shown = ("id", "name", "role", "tier", "status", "parent_id")
        return _json({name: record[name] for name in shown if record.get(name) is not None})

    async def _request_approval(self, arguments: RequestApproval) -> str:
        context: Json = {"arguments": arguments.arguments} if arguments.arguments else {}
        key = _key("approval", arguments.action, _json(context))
        created: Json = await retrying(
            lambda: self._platform.request_approval(arguments.action, arguments.reason, context, key),
            attempts=self._waits.retry_attempts,
            delay=self._waits.retry_seconds,
        )
        approval_id = str(created.get("approval_id") or created.get("id") or "")
        seconds = arguments.timeout_seconds or self._waits.approval_seconds
        return _json(await self._decision(approval_id, seconds))

    async def _decision(self, approval_id: str, seconds: float) -> Json:
        """Poll until somebody has decided; silence is not a decision."""
        deadline, pause = time.monotonic() + seconds, FIRST_POLL_SECONDS
        while True:
            try:
                approval = await self._platform.approval(approval_id)
            except PlatformUnreachable:
                approval = {}  # the request is stored; a restart of the platform does not lose it
            status = approval.get("status", "pending")
            if status not in ("pending", "escalated"):
                return {
                    "approval_id": approval_id,
                    "status": status,
                    "decided_by": approval.get("decided_by"),
                }
            if time.monotonic() + pause > deadline:
                return {"approval_id": approval_id, "status": "pending", "waited_seconds": seconds}
            await asyncio.sleep(pause)
            pause = min(pause * GROWTH, self._waits.approval_poll_seconds)

    async def _send_message(self, arguments: SendMessageToUser) -> str:
        await self._platform.notify(arguments.message)
        return "Message sent."

    async def _commit_memory(self, arguments: CommitMemory) -> str:
        stored = await self._platform.commit_memory(arguments.content, arguments.scope)
        return _json({"id": stored.get("id", ""), "scope": stored.get("scope", arguments.scope)})

    async def _recall_memory(self, arguments: RecallMemory) -> str:
        rows = await self._platform.recall_memory(arguments.query, arguments.scope)
        if not rows:
            return "No memories found."
        shown = ("id", "content", "scope", "created_at")
        return _json([{name: row.get(name) for name in shown} for row in rows])


def _tool(
    name: str, description: str, arguments: type[Struct], call: Callable[[Any], Awaitable[str]]
) -> Tool:
    async def checked(values: dict[str, Any]) -> str:
        try:
            return await call(msgspec.convert(values, arguments))
        except msgspec.ValidationError as error:
            return f"Error: {name}: {error}"
        except PlatformRefused as error:
            code = f" ({error.code})" if error.code else ""
            return f"Error: {error}{code}"
        except PlatformUnreachable as error:
            return f"Error: the platform cannot be reached: {error}"

    return Tool(name, description, _schema(arguments), checked)


def _schema(arguments: type[Struct]) -> dict[str, Any]:
    """Return a self-contained object schema, which is all that model APIs understand."""
    _, components = msgspec.json.schema_components([arguments])
    schema = components[arguments.__name__]
    return {"type": "object", "properties": schema["properties"], "required": schema.get("required", [])}


def _key(*parts: str) -> str:
    origin = current_origin.get()
    return (origin or Origin(str(uuid.uuid4()))).key(*parts)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
