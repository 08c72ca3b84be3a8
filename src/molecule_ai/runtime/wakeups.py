"""Prompts that the agent sends to itself: once at first boot, and when it has been idle."""

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from molecule_ai.runtime.config import AgentConfig
from molecule_ai.runtime.files import read_text
from molecule_ai.runtime.heartbeat import Heartbeat
from molecule_ai.runtime.keeping import Keeping
from molecule_ai.runtime.platform import Platform, PlatformRefused, PlatformUnreachable
from molecule_ai.runtime.state import AgentState

log = logging.getLogger(__name__)

MARKER = ".initial_prompt_done"
PAUSES_SECONDS = (1.0, 2.0, 4.0, 8.0)  # contract 02 §14: five attempts
REGISTRATION_SECONDS = 30.0
FIRST_IDLE_SECONDS = 60.0
IDLE_CALL_SECONDS = (60.0, 300.0)
IDLE_LOST_SECONDS = 3600.0  # after this a prompt that never came is not waited for any more


def prompt_text(config_dir: Path, inline: str, file: str) -> str:
    """Return the prompt; inline text wins over the file."""
    if inline.strip() or not file:
        return inline.strip()
    path = config_dir / file
    inside = path.resolve().is_relative_to(config_dir.resolve())
    return (read_text(path) or "").strip() if inside else ""


async def send_initial_prompt(
    platform: Platform, heartbeat: Heartbeat, config: AgentConfig, config_dir: Path, workspace_dir: Path
) -> None:
    """Send the initial prompt once in the life of the config directory."""
    text = prompt_text(config_dir, config.initial_prompt, config.initial_prompt_file)
    if not text or any((place / MARKER).exists() for place in (config_dir, workspace_dir)):
        return
    try:
        async with asyncio.timeout(REGISTRATION_SECONDS):
            await heartbeat.registered.wait()
    except TimeoutError:
        log.warning("initial_prompt_unregistered")  # the attempts below say what becomes of it
    if not _mark(config_dir, workspace_dir):
        log.error("initial_prompt_skipped reason=marker cannot be written")
        return
    error = await _send(platform, f"initial-{uuid.uuid4().hex[:8]}", text)
    await _record(platform, error)


def _mark(config_dir: Path, workspace_dir: Path) -> bool:
    """Write the marker before the prompt is sent, so that one that crashes us is never replayed."""
    for place in (config_dir, workspace_dir):
        try:
            (place / MARKER).touch()
        except OSError:
            continue
        return True
    return False


async def _send(platform: Platform, message_id: str, text: str) -> str:
    """Return what went wrong, or nothing; each attempt carries the same id, so that it acts once."""
    error = ""
    for pause in (*PAUSES_SECONDS, None):
        try:
            await platform.send_message(platform.workspace_id, text, message_id=message_id)
            return ""
        except (PlatformRefused, PlatformUnreachable) as failure:
            error = str(failure)
            log.warning("initial_prompt_failed error=%s", error)
        if pause is not None:
            await asyncio.sleep(pause)
    return error


async def _record(platform: Platform, error: str) -> None:
    summary = f"Initial prompt failed: {error}" if error else "Initial prompt sent"
    status = "error" if error else "ok"
    try:
        await platform.activity(
            "agent_log",
            method="initial_prompt",
            summary=summary[:256],
            status=status,
            error_detail=error[:4096],
        )
    except (PlatformRefused, PlatformUnreachable) as failure:
        log.warning("activity_failed error=%s", failure)


class IdlePrompts:
    """Sends the idle prompt at its interval while nothing is being worked on, and one at a time."""

    def __init__(
        self, platform: Platform, state: AgentState, config: AgentConfig, config_dir: Path, keeping: Keeping
    ) -> None:
        self._platform = platform
        self._state = state
        self._keeping = keeping
        self._text = prompt_text(config_dir, config.idle_prompt, config.idle_prompt_file)
        self._interval = config.idle_interval_seconds
        self._daily_limit = config.idle_daily_limit
        self._sent = ""
        self._sent_at = float("-inf")

    async def run(self) -> None:
        """Send for ever; without a prompt, never."""
        if not self._text or self._interval <= 0:
            return
        await asyncio.sleep(min(self._interval, FIRST_IDLE_SECONDS))
        while True:
            if self._state.active_tasks == 0 and not self._in_flight() and self._is_within_limit():
                await self._send()
            await asyncio.sleep(self._interval)

    def _in_flight(self) -> bool:
        """Say whether the last one is still on its way to us, in a queue for one."""
        is_lost = time.monotonic() - self._sent_at > IDLE_LOST_SECONDS
        return bool(self._sent) and not self._state.has_worked_on(self._sent) and not is_lost

    def _is_within_limit(self) -> bool:
        if not self._daily_limit:
            return True
        today = datetime.now(UTC).date().isoformat()
        if self._keeping.count("idle_prompt", today) <= self._daily_limit:
            return True
        log.info("idle_prompt_skipped reason=daily limit limit=%d", self._daily_limit)
        return False

    async def _send(self) -> None:
        low, high = IDLE_CALL_SECONDS
        message_id = f"idle-{uuid.uuid4().hex[:8]}"
        self._sent, self._sent_at = message_id, time.monotonic()
        try:
            await self._platform.send_message(
                self._platform.workspace_id,
                self._text,
                message_id=message_id,
                seconds=min(max(self._interval, low), high),
            )
        except PlatformRefused as error:
            self._sent = ""
            log.warning("idle_prompt_failed error=%s", error)
        except PlatformUnreachable as error:
            log.warning("idle_prompt_failed error=%s", error)
