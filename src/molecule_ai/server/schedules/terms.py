"""What a client or a template may ask for, checked: expression, zone, name, prompt (contract 03 §2.5)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from molecule_ai.kernel.cron import Cron, InvalidCron, NeverFires, UnknownZone, parse, zone, zone_names

from . import errors
from .schemas import ScheduleBody, ScheduleUpdate
from .store import Due

MAX_NAME_CHARACTERS = 200
MAX_PROMPT_BYTES = 65_536


def changes_of(data: ScheduleUpdate) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if data.name is not None:
        changes["name"] = checked_name(data.name)
    cron_expr = cron_text_of(data)
    if cron_expr is not None:
        changes["cron_expr"] = checked_cron(cron_expr).expression
    if data.timezone is not None:
        changes["timezone"] = checked_timezone(data.timezone)
    if data.prompt is not None:
        changes["prompt"] = checked_prompt(data.prompt)
    if data.enabled is not None:
        changes["enabled"] = data.enabled
    return changes


def cron_text_of(data: ScheduleBody) -> str | None:
    """The expression under whichever name it came (contract 03 §2.2)."""
    given = [text.strip() for text in (data.cron_expr, data.expression, data.cron) if text is not None]
    if len(set(given)) > 1:
        raise errors.CronNamesDisagree
    return given[0] if given else None


def checked_cron(text: str) -> Cron:
    try:
        return parse(text)
    except NeverFires as never:
        raise errors.CronNeverFires from never
    except InvalidCron as invalid:
        raise errors.InvalidCronExpression(f"invalid cron expression: {invalid}") from invalid


def checked_timezone(name: str | None) -> str:
    name = (name or "").strip() or "UTC"
    if name not in zone_names():
        raise errors.InvalidTimezone(f"invalid timezone: {name[:100]}")
    return name


def checked_name(text: str) -> str:
    if len(text) > MAX_NAME_CHARACTERS:
        raise errors.NameTooLong
    return text


def without_cr(text: str) -> str:
    """Windows line ends made agents answer nothing."""
    return text.replace("\r", "")


def checked_prompt(text: str) -> str:
    prompt = without_cr(text)
    if not prompt.strip():
        raise errors.PromptEmpty
    if len(prompt.encode()) > MAX_PROMPT_BYTES:
        raise errors.PromptTooLong
    return prompt


def next_fire(due: Due, now: datetime) -> datetime | None:
    try:
        return parse(due.cron_expr).after(now, zone(due.timezone))
    except (InvalidCron, UnknownZone):
        return due.next_run_at
