"""A2A 0.3 and 1.0 through the SDK; imported with the first message, because it is heavy."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from a2a.auth.user import User
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.owner_resolver import resolve_user_scope
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.tasks.inmemory_task_store import InMemoryTaskStore
from a2a.server.tasks.task_updater import TaskUpdater
from a2a.types.a2a_pb2 import AgentCard, Message, Task, TaskState, TaskStatus
from a2a.utils.constants import PROTOCOL_VERSION_0_3, PROTOCOL_VERSION_1_0, VERSION_HEADER
from a2a.utils.errors import InternalError
from aiohttp import web
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]  # ships no types
from sse_starlette.event import ensure_bytes
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.types import Message as AsgiMessage

from molecule_ai.runtime.adapters.base import TaskFailed
from molecule_ai.runtime.keeping import KEPT_TASKS, Keeping, KeptTask
from molecule_ai.runtime.messages import AgentEvent, Incoming, TextDelta, incoming_from
from molecule_ai.runtime.redact import redacted
from molecule_ai.runtime.runner import TaskRunner

INTERRUPTED = "the agent was restarted before the task had ended"
ENDED_STATES = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
STREAMING_METHODS = frozenset({"message/stream", "SendStreamingMessage"})
SSE_SEPARATOR = "\r\n"
REPLY_ARTIFACT = "reply"


class A2AProtocol:
    """Answers JSON-RPC requests that aiohttp has received."""

    def __init__(self, runner: TaskRunner, card: dict[str, Any]) -> None:
        self._tasks = RecentTasks(runner.keeping, runner.redact)
        self._handler = DefaultRequestHandlerV2(
            agent_executor=WorkspaceExecutor(runner),
            task_store=self._tasks,
            agent_card=ParseDict(card, AgentCard(), ignore_unknown_fields=True),
        )
        self._dispatcher = JsonRpcDispatcher(
            self._handler, context_builder=RawParams(), enable_v0_3_compat=True
        )

    async def restore(self) -> None:
        """Know the tasks of the agent before this one; called once, before the first request."""
        await self._tasks.restore()

    async def close(self) -> None:
        """Cancel what still runs."""
        await self._handler.aclose()

    async def answer(self, request: web.Request, body: bytes, document: Any) -> web.StreamResponse:
        """Answer one request; `document` is its parsed body, or None when it is no JSON."""
        response = await self._dispatcher.handle_requests(_starlette_request(request, body, document))
        if isinstance(response, EventSourceResponse):
            return await _stream(request, response)
        reply = msgspec.json.encode(_with_whole_numbers(msgspec.json.decode(response.body)))
        return web.Response(body=reply, status=response.status_code, content_type="application/json")


class RecentTasks(InMemoryTaskStore):
    """Keeps the latest tasks only, so that a busy agent does not grow for ever, and keeps them over restarts.

    A task that was being worked on when its agent died has failed; whoever follows it is told so.
    """

    def __init__(self, keeping: Keeping, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._keeping = keeping
        self._redact = redact
        self._order: OrderedDict[str, ServerCallContext] = OrderedDict()
        self._states: dict[str, int] = {}

    async def restore(self) -> None:
        """Take over what the previous agent of this workspace has kept."""
        for kept in self._keeping.tasks():
            task = ParseDict(msgspec.json.decode(kept.body), Task(), ignore_unknown_fields=True)
            context = ServerCallContext(user=Owner(kept.owner))
            self._order[task.id] = context
            if task.status.state in ENDED_STATES:
                await super().save(task, context)
                continue
            reason = new_text_message(INTERRUPTED, context_id=task.context_id, task_id=task.id)
            task.status.CopyFrom(TaskStatus(state=TaskState.TASK_STATE_FAILED, message=reason))
            task.status.timestamp.GetCurrentTime()
            await self.save(task, context)

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Save a task and forget the one untouched for longest."""
        await super().save(task, context)
        self._order[task.id] = context
        self._order.move_to_end(task.id)
        if self._states.get(task.id) != task.status.state:  # pieces of an answer would be many writes
            self._keep(task, context)
        while len(self._order) > KEPT_TASKS:
            oldest, its_context = self._order.popitem(last=False)
            self._states.pop(oldest, None)
            await self.delete(oldest, its_context)

    def _keep(self, task: Task, context: ServerCallContext) -> None:
        self._states[task.id] = task.status.state
        body = msgspec.json.encode(redacted(MessageToDict(task), self._redact)).decode()
        self._keeping.keep_task(KeptTask(task.id, resolve_user_scope(context), body))


class Owner(User):
    """Whose a kept task is; the SDK tells owners apart by their name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        """Say that nobody has logged in: the platform has checked the caller."""
        return False

    @property
    def user_name(self) -> str:
        """Return the name."""
        return self._name


class RawParams(DefaultServerCallContextBuilder):
    """Carries the params of the request, as they were on the wire, to the executor."""

    def build(self, request: Request) -> ServerCallContext:
        """Build the SDK's context and add ours."""
        context = super().build(request)
        context.state["params"] = request.scope["molecule.params"]
        return context


class WorkspaceExecutor(AgentExecutor):
    """Runs a message on the workspace's runtime.

    A caller that waits gets one message, which is what the platform and every 0.3 client read.
    A caller that streams, or does not wait, gets a task that it can follow and cancel.
    """

    def __init__(self, runner: TaskRunner) -> None:
        self._runner = runner

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run to the end."""
        params = context.call_context.state.get("params") or {}
        message = incoming_from(params, task_id=context.task_id or "", context_id=context.context_id or "")
        if _wants_task(context):
            await self._as_task(context, event_queue, message)
            return
        try:
            outcome = await self._runner.run(message, _ignore)
        except TaskFailed as error:
            raise InternalError(message=str(error)) from error
        reply = new_text_message(outcome.text, context_id=context.context_id)
        reply.metadata.update(outcome.metadata())
        await event_queue.enqueue_event(reply)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Record the end; the SDK cancels the run itself, and adapters clean up after it."""
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def _as_task(self, context: RequestContext, queue: EventQueue, message: Incoming) -> None:
        updater = TaskUpdater(queue, message.task_id, message.context_id)
        if context.current_task is None:
            await queue.enqueue_event(new_task_from_user_message(_user_message(context)))
        await updater.start_work()
        written = 0

        async def listen(event: AgentEvent) -> None:
            nonlocal written
            if isinstance(event, TextDelta):
                parts = [new_text_part(event.text)]
                await updater.add_artifact(parts, REPLY_ARTIFACT, append=written > 0, last_chunk=False)
                written += 1

        try:
            outcome = await self._runner.run(message, listen)
        except TaskFailed as error:
            await updater.failed(updater.new_agent_message([new_text_part(str(error))]))
            return
        # The whole reply replaces its pieces: words before a tool call are not part of it.
        await updater.add_artifact([new_text_part(outcome.text)], REPLY_ARTIFACT, last_chunk=True)
        await updater.update_status(TaskState.TASK_STATE_COMPLETED, metadata=outcome.metadata())


def _with_whole_numbers(value: Any, *, in_metadata: bool = False) -> Any:
    """Write counts in metadata as `812` again: protobuf knows only floats, and `812.0` is no integer."""
    if isinstance(value, dict):
        return {
            key: _with_whole_numbers(item, in_metadata=in_metadata or key == "metadata")
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_whole_numbers(item, in_metadata=in_metadata) for item in value]
    return int(value) if in_metadata and isinstance(value, float) and value.is_integer() else value


async def _ignore(event: AgentEvent) -> None:
    """Listen for nobody."""


def _wants_task(context: RequestContext) -> bool:
    configuration = context.configuration
    return (
        context.call_context.state.get("method") in STREAMING_METHODS
        or context.current_task is not None
        or (configuration is not None and configuration.return_immediately)
    )


def _user_message(context: RequestContext) -> Message:
    if context.message is None:
        raise InternalError(message="the request has no message")
    return context.message


def _starlette_request(request: web.Request, body: bytes, document: Any) -> Request:
    """Give the SDK's dispatcher the request in the only form that it takes."""
    fields = document if isinstance(document, dict) else {}
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    version_header = VERSION_HEADER.lower().encode()
    if not any(name == version_header for name, _ in headers):
        # The SDK takes a missing header for 0.3, but the method names tell the versions apart.
        is_1_0 = str(fields.get("method", ""))[:1].isupper()
        version = PROTOCOL_VERSION_1_0 if is_1_0 else PROTOCOL_VERSION_0_3
        headers.append((version_header, version.encode()))

    async def receive() -> AsgiMessage:
        return {"type": "http.request", "body": body, "more_body": False}

    params = fields.get("params")
    scope = {
        "type": "http",
        "method": "POST",
        "path": request.path,
        "query_string": b"",
        "headers": headers,
        "molecule.params": params if isinstance(params, dict) else {},
    }
    return Request(scope, receive)


async def _stream(request: web.Request, events: EventSourceResponse) -> web.StreamResponse:
    """Write server-sent events as they come; a reader that leaves does not end the task."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    async for event in events.body_iterator:
        await response.write(ensure_bytes(event, SSE_SEPARATOR))
    await response.write_eof()
    return response
