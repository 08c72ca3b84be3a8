"""The start-up sequence of contract 02 §14, and the life that follows."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from molecule_ai.runtime.adapters import load_adapter
from molecule_ai.runtime.adapters.base import AdapterContext, Capabilities, RuntimeAdapter, describe
from molecule_ai.runtime.agents_md import write_agents_md
from molecule_ai.runtime.card import build_card
from molecule_ai.runtime.config import AgentConfig, InvalidConfig, load_config
from molecule_ai.runtime.credentials import Credentials
from molecule_ai.runtime.delegations import Delegations
from molecule_ai.runtime.heartbeat import Heartbeat, PlatformLost, WorkspaceEnded
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.peers import Peers
from molecule_ai.runtime.permissions import allowed_actions
from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable
from molecule_ai.runtime.preflight import NotConfigured, check
from molecule_ai.runtime.prompt import PromptBuilder
from molecule_ai.runtime.redact import Redactor
from molecule_ai.runtime.results import DelegationResults
from molecule_ai.runtime.runner import TaskRunner
from molecule_ai.runtime.server import AgentServer, open_listener, public_url
from molecule_ai.runtime.settings import RuntimeSettings
from molecule_ai.runtime.skills import load_skills, watch_skills
from molecule_ai.runtime.snapshot import restore_snapshot, save_snapshot
from molecule_ai.runtime.state import AgentState
from molecule_ai.runtime.tools import ToolBox, Waits
from molecule_ai.runtime.wakeups import IdlePrompts, send_initial_prompt

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.5  # what running tasks get; the whole shutdown stays under 5 s
CRASH_PAUSE_SECONDS = 1.0
ENDINGS = (WorkspaceEnded, PlatformLost)


class Agent:
    """One live workspace."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._config_dir = settings.workspace_config_path
        self._credentials = Credentials(self._config_dir, settings.molecule_workspace_token)
        redact = Redactor.from_environment(os.environ, self._credentials.token)
        self._state = AgentState(redact)
        self._keeping = Keeping(self._config_dir, redact)
        self._platform = Platform(settings, self._credentials)
        self._peers = Peers(self._platform, settings.parent_id)
        self._delegations = Delegations(self._platform)
        self._results = DelegationResults(self._platform, self._delegations)
        self._failure: str | None = None
        self._config = self._load_config()
        self._name = settings.molecule_workspace_name or self._config.name
        self._role = settings.molecule_agent_role or self._config.effective_role
        self._prompt = PromptBuilder(
            self._platform, self._peers, self._config, self._config_dir, settings.plugins_dir
        )
        self._stop = asyncio.Event()
        self._url = ""

    async def run(self) -> None:
        """Live until a signal, the platform or a lost platform ends it."""
        listener = open_listener(self._settings, self._config.a2a.port)
        self._url = public_url(self._settings, listener)
        server = self._server()
        self._listen_for_signals()
        try:
            await server.start(listener)
            endpoint = self._settings.agent_url or f"http://localhost:{listener.getsockname()[1]}/a2a"
            write_agents_md(
                self._settings.workspace_dir,
                self._config,
                name=self._name,
                role=self._role,
                endpoint=endpoint,
            )
            adapter = await self._set_up()
            restore_snapshot(self._settings.snapshot_path, self._settings.workspace_id, self._state)
            if adapter is not None:
                server.task_runner = TaskRunner(adapter, self._state, self._prompt, self._keeping)
            server.failure = self._failure
            await self._live(adapter.capabilities if adapter else Capabilities())
        finally:
            server.is_stopping = True
            await self._shut_down(server)

    def _server(self) -> AgentServer:
        return AgentServer(
            self._settings, self._credentials, self._state, card=self._card, runtime=self._config.runtime
        )

    def _load_config(self) -> AgentConfig:
        try:
            return load_config(self._config_dir)
        except InvalidConfig as error:
            self._fail(str(error))
            return AgentConfig()

    async def _set_up(self) -> RuntimeAdapter | None:
        """Return the adapter, or None with the reason noted: a failed set-up stays up and says why."""
        if self._failure is not None:
            return None
        try:
            for warning in check(self._config, self._config_dir, os.environ):
                log.warning("preflight %s", warning)
            self._prompt.skills = load_skills(self._config_dir, self._config.skills, self._config.runtime)
            adapter = load_adapter(self._config.runtime, self._settings.adapter_module)
            await adapter.setup(self._adapter_context())
        except NotConfigured as error:
            self._fail(str(error))
            return None
        except Exception as error:
            log.exception("setup_failed")
            self._fail(f"{self._config.runtime} set-up failed: {type(error).__name__}: {error}")
            return None
        log.info("configured runtime=%s", self._config.runtime)
        return adapter

    def _fail(self, reason: str) -> None:
        log.error("not_configured reason=%s", reason)
        self._failure = reason
        self._state.mark_wedged(reason)

    def _adapter_context(self) -> AdapterContext:
        config, settings = self._config, self._settings
        return AdapterContext(
            runtime=config.runtime,
            config=config,
            name=self._name,
            role=self._role,
            model=settings.molecule_model or config.runtime_config.model or config.model,
            tools=self._tools().tools(),
            config_dir=self._config_dir,
            workspace_dir=settings.workspace_dir,
            environ=dict(os.environ),
            recursion_limit=settings.langgraph_recursion_limit,
            max_tokens=settings.max_tokens,
            sessions=self._keeping,
        )

    def _tools(self) -> ToolBox:
        settings, delegation = self._settings, self._config.delegation
        defaults = Waits()
        attempts, delay = settings.delegation_retry_attempts, settings.delegation_retry_delay
        waits = Waits(
            delegation_seconds=settings.delegation_timeout
            or delegation.timeout
            or defaults.delegation_seconds,
            approval_seconds=settings.approval_timeout,
            approval_poll_seconds=settings.approval_poll_interval,
            retry_attempts=delegation.retry_attempts if attempts is None else attempts,
            retry_seconds=delegation.retry_delay if delay is None else delay,
        )
        allowed = allowed_actions(self._config.rbac)
        return ToolBox(self._platform, self._peers, self._delegations, self._results, waits, allowed)

    def _card(self) -> dict[str, Any]:
        return build_card(
            self._config, name=self._name, url=self._url, skills=self._prompt.skills, failure=self._failure
        )

    async def _live(self, capabilities: Capabilities) -> None:
        heartbeat = Heartbeat(
            self._platform,
            self._state,
            url=self._url,
            card=self._card,
            runtime_metadata=describe(capabilities),
            orphan_seconds=self._settings.agent_orphan_timeout,
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_forever(loop)) for loop in self._loops(heartbeat)]
                if self._failure is None:
                    tasks += [group.create_task(_once(job)) for job in self._prompts(heartbeat)]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        except* ENDINGS as endings:
            log.info("ending reason=%s", endings.exceptions[0])

    def _loops(self, heartbeat: Heartbeat) -> list[Callable[[], Awaitable[None]]]:
        return [
            heartbeat.run,
            self._delegations.run,
            self._results.run,
            lambda: watch_skills(self._config_dir, self._reload_skills),
        ]

    def _prompts(self, heartbeat: Heartbeat) -> list[Callable[[], Awaitable[None]]]:
        config, directory = self._config, self._config_dir
        return [
            lambda: send_initial_prompt(
                self._platform, heartbeat, config, directory, self._settings.workspace_dir
            ),
            IdlePrompts(self._platform, self._state, config, directory, self._keeping).run,
        ]

    async def _reload_skills(self) -> None:
        self._prompt.skills = load_skills(self._config_dir, self._config.skills, self._config.runtime)
        try:
            await self._platform.update_card(self._card())
        except (PlatformRefused, PlatformUnreachable) as error:
            log.warning("update_card_failed error=%s", error)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)

    async def _shut_down(self, server: AgentServer) -> None:
        """Save first, since a supervisor may not wait; then let short tasks end."""
        log.info("stopping active_tasks=%d", self._state.active_tasks)
        path, workspace_id = self._settings.snapshot_path, self._settings.workspace_id
        save_snapshot(path, workspace_id, self._state)
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._state.idle.wait()
        except TimeoutError:
            log.warning("tasks_cancelled active_tasks=%d", self._state.active_tasks)
        save_snapshot(path, workspace_id, self._state)
        await server.close()
        await self._platform.close()
        self._keeping.close()
        log.info("stopped")


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Start a loop again when a bug ends it; its endings pass."""
    while True:
        try:
            await loop()
            return
        except ENDINGS:
            raise
        except Exception:
            log.exception("loop_crashed")
        await asyncio.sleep(CRASH_PAUSE_SECONDS)


async def _once(job: Callable[[], Awaitable[None]]) -> None:
    try:
        await job()
    except Exception:
        log.exception("job_crashed")
