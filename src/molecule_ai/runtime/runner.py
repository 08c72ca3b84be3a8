"""From a message to an outcome, once per message."""

import asyncio
import logging
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from molecule_ai.runtime.adapters.base import RuntimeAdapter, TaskFailed
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.messages import AgentEvent, AgentTask, Incoming, Outcome, Reply, ToolUsed
from molecule_ai.runtime.origin import Origin, current_origin
from molecule_ai.runtime.preflight import NotConfigured
from molecule_ai.runtime.prompt import PromptBuilder
from molecule_ai.runtime.redact import redacted
from molecule_ai.runtime.state import AgentState

log = logging.getLogger(__name__)

REMEMBERED_MESSAGES = 500
REMEMBERED_CHARACTERS = 4_000_000

Listener = Callable[[AgentEvent], Awaitable[None]]


class TaskRunner:
    """Runs tasks on the adapter. A message that arrives again gets the outcome of its first run."""

    def __init__(
        self, adapter: RuntimeAdapter, state: AgentState, prompt: PromptBuilder, keeping: Keeping
    ) -> None:
        self._adapter = adapter
        self._state = state
        self._prompt = prompt
        self.keeping = keeping
        self.redact = state.redact
        self._outcomes: OrderedDict[str, asyncio.Future[Outcome]] = OrderedDict()

    async def run(self, message: Incoming, listen: Listener) -> Outcome:
        """Return the outcome; raises TaskFailed when the runtime could not answer."""
        if not message.message_id:
            return await self._work(message, listen)
        known = self._outcomes.get(message.message_id)
        if known is not None:
            log.info("message_repeated message_id=%s", message.message_id)
            return await asyncio.shield(known)
        future = self._remember(message.message_id)
        try:
            outcome = await self._work(message, listen)
        except BaseException as error:
            self._outcomes.pop(message.message_id, None)  # a failed run may be tried again
            reason = str(error) or "the task was cancelled"
            future.set_exception(error if isinstance(error, TaskFailed) else TaskFailed(reason))
            future.exception()  # nobody may be waiting for it
            raise
        future.set_result(outcome)
        self._forget_oldest()
        return outcome

    def _remember(self, message_id: str) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcomes[message_id] = future
        return future

    def _forget_oldest(self) -> None:
        """Keep what is likely to come again; a run that goes on is never forgotten."""
        ended = {key: len(future.result().text) for key, future in self._outcomes.items() if future.done()}
        characters = sum(ended.values())
        for key, length in ended.items():
            if len(self._outcomes) <= REMEMBERED_MESSAGES and characters <= REMEMBERED_CHARACTERS:
                return
            del self._outcomes[key]
            characters -= length

    async def _work(self, message: Incoming, listen: Listener) -> Outcome:
        token = current_origin.set(Origin(message.message_id or message.task_id, message.molecule))
        self._state.note_message(message.message_id)
        self._state.begin(message.task_id, message.text)
        self._state.say("user", message.text)
        failure = ""
        try:
            outcome = await self._answer(message, listen)
            self._state.say("agent", outcome.text)
            if message.context_id:
                self.keeping.say(message.context_id, message.text, outcome.text)
            return outcome
        except asyncio.CancelledError:
            raise
        except TaskFailed as error:
            failure = self._state.redact(str(error))
            raise TaskFailed(failure) from error
        except NotConfigured as error:
            failure = self._state.redact(str(error))
            self._state.mark_wedged(failure)
            raise TaskFailed(failure) from error
        except Exception as error:
            failure = self._state.redact(f"{type(error).__name__}: {error}")
            trace = self._state.redact(traceback.format_exc())
            log.error("task_failed task_id=%s error=%s\n%s", message.task_id, failure, trace)
            raise TaskFailed(failure) from error
        finally:
            self._state.end(message.task_id, failure)
            current_origin.reset(token)

    async def _answer(self, message: Incoming, listen: Listener) -> Outcome:
        task = AgentTask(
            id=message.task_id,
            context_id=message.context_id,
            text=message.text,
            system_prompt=await self._prompt.build(),
            message_id=message.message_id,
            history=message.history or self.keeping.turns(message.context_id),
            metadata=message.metadata,
        )
        trace: list[ToolUsed] = []
        reply: Reply | None = None
        async for event in self._adapter.run(task):
            if isinstance(event, Reply):
                reply = event
                continue
            if isinstance(event, ToolUsed):
                event = self._without_secrets(event)
                trace.append(event)
                self._state.say("tool", f"{event.tool}: {event.output}")
            await listen(event)
        if reply is None:
            raise TaskFailed("the runtime ended without a reply")
        return Outcome(reply.text, tuple(trace), reply.usage)

    def _without_secrets(self, used: ToolUsed) -> ToolUsed:
        redact = self._state.redact
        return ToolUsed(used.tool, redacted(used.input, redact), redact(used.output))
