"""The parts of a role: schedules, channels, memories, approval rules, environment."""

import re

from molecule_ai.kernel.cron import InvalidCron, normalize, zone_names

from .document import ApprovalRule, Approver, Channel, EnvRequirement, Memory, MemoryScope, Position, Schedule
from .environment import is_env_name
from .fields import Fields, is_text
from .limits import (
    MAX_ACTION_CHARACTERS,
    MAX_MEMORY_BYTES,
    MAX_SCHEDULE_NAME_CHARACTERS,
    MAX_SCHEDULE_PROMPT_BYTES,
    MAX_SCHEDULES,
)
from .prompts import Prompts
from .tree import Mapping

CRON_KEYS = ("cron_expr", "expression", "cron")  # the first that is there wins (contract 03 §2.2)
DEFAULT_TTL_MINUTES = 10
MAX_TTL_MINUTES = 30 * 24 * 60
PLUGIN = re.compile(r"[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,127}")
PLUGIN_SOURCE = re.compile(r"[a-z][a-z0-9+.-]*://\S{1,500}")


def read_schedules(node: Fields, prompts: Prompts) -> tuple[Schedule, ...]:
    """The schedules that can fire."""
    found: dict[str, Schedule] = {}
    unnamed: list[Schedule] = []
    for fields in node.mappings("schedules", at_most=MAX_SCHEDULES):
        schedule = _schedule(fields, prompts)
        fields.warn_of_unknown()
        if schedule is None:
            continue
        if not schedule.name:
            unnamed.append(schedule)
        elif schedule.name in found:
            fields.problem(f"a second schedule is named '{schedule.name}'", "name")
        else:
            found[schedule.name] = schedule
    return (*found.values(), *unnamed)


def _schedule(fields: Fields, prompts: Prompts) -> Schedule | None:
    name = (fields.text("name", max_characters=MAX_SCHEDULE_NAME_CHARACTERS, one_line=True) or "").strip()
    cron_expr = _cron(fields)
    timezone = _timezone(fields)
    prompt = prompts.read(fields, "prompt")
    is_enabled = fields.flag("enabled", True)
    if prompt is None:
        fields.leave_out(f"schedule '{name}' has no prompt")
        return None
    if len(prompt.encode()) > MAX_SCHEDULE_PROMPT_BYTES:
        fields.leave_out(
            f"the prompt of schedule '{name}' exceeds {MAX_SCHEDULE_PROMPT_BYTES} bytes", "prompt"
        )
        return None
    if cron_expr is None or timezone is None:
        return None
    return Schedule(name=name, cron_expr=cron_expr, timezone=timezone, prompt=prompt, is_enabled=is_enabled)


def _cron(fields: Fields) -> str | None:
    given = {key: text.strip() for key in CRON_KEYS if (text := fields.text(key)) is not None}
    if len(set(given.values())) > 1:
        fields.problem(f"{' and '.join(given)} disagree")
        return None
    for key, text in given.items():
        try:
            return normalize(text)
        except InvalidCron as error:
            fields.leave_out(f"invalid cron expression: {error}", key)
            return None
    fields.leave_out("a schedule needs cron_expr")
    return None


def _timezone(fields: Fields) -> str | None:
    name = (fields.text("timezone") or "UTC").strip()
    if name not in zone_names():
        fields.leave_out(f"invalid timezone: {name}", "timezone")
        return None
    return name


def read_channels(node: Fields) -> tuple[Channel, ...]:
    """The chat connections; whether one can be used is for its adapter to say."""
    found = []
    for fields in node.mappings("channels"):
        config = fields.text_map("config")
        for key, name in fields.text_map("env").items():
            config.setdefault(key, f"${{{name}}}")
        found.append(
            Channel(
                type=(fields.text("type") or "").strip(),
                config=config,
                allowed_users=fields.texts("allowed_users"),
                categories=fields.texts("categories"),
                is_enabled=fields.flag("enabled", True),
            )
        )
        fields.warn_of_unknown()
    return tuple(found)


def read_memories(node: Fields, key: str) -> tuple[Memory, ...]:
    """What a role knows from the start; longer content is cut."""
    found = []
    for fields in node.mappings(key):
        content = fields.text("content") or ""
        scope = (fields.text("scope") or MemoryScope.LOCAL).strip().upper()
        fields.warn_of_unknown()
        if not content.strip():
            fields.leave_out("a memory without content")
        elif scope not in MemoryScope.__members__:
            fields.leave_out(f"scope must be LOCAL, TEAM or GLOBAL, not '{scope}'", "scope")
        else:
            found.append(Memory(_cut(content), MemoryScope(scope)))
    return tuple(found)


def _cut(content: str) -> str:
    return content.encode()[:MAX_MEMORY_BYTES].decode(errors="ignore")


def read_approvals(node: Fields) -> tuple[ApprovalRule, ...]:
    """The rules that hold actions back. A wrong rule is never left out: it would let the action pass."""
    found = []
    for fields in node.mappings("approvals"):
        action = (fields.text("action", max_characters=MAX_ACTION_CHARACTERS, one_line=True) or "").strip()
        approver = fields.text("approver") or Approver.USER
        ttl_minutes = fields.integer("ttl_minutes", low=1, high=MAX_TTL_MINUTES)
        reason = (fields.text("reason", max_characters=MAX_ACTION_CHARACTERS) or "").strip()
        fields.warn_of_unknown()
        if not action:
            fields.problem("an approval rule needs an action, such as 'publish*'", "action")
        elif approver not in list(Approver):
            fields.problem(f"approver must be user or parent, not '{approver}'", "approver")
        else:
            found.append(
                ApprovalRule(
                    action=action,
                    approver=Approver(approver),
                    ttl_minutes=ttl_minutes or DEFAULT_TTL_MINUTES,
                    reason=reason,
                )
            )
    return tuple(found)


def read_requirements(node: Fields, key: str) -> tuple[EnvRequirement, ...]:
    """Names that must, or should, have a value before the role can work."""
    found = []
    for index, item in enumerate(node.items(key)):
        if is_text(item):
            names: tuple[str, ...] = (item.text,)
        elif isinstance(item, Mapping):
            group = Fields(item, node.findings, f"{node.at(key)}[{index}]", node.role)
            names = group.texts("any_of")
            group.warn_of_unknown()
            if not names:
                group.problem("any_of must name at least one variable", "any_of")
                continue
        else:
            node.problem(f"{key}[{index}] must be a name or an any_of group", key, item.place)
            continue
        valid = tuple(dict.fromkeys(name for name in names if is_env_name(name)))
        if len(valid) < len(names):
            node.warn(f"{key}[{index}] holds a name that no environment variable can have", key, item.place)
        if valid:
            found.append(EnvRequirement(valid))
    return tuple(found)


def read_secrets(node: Fields) -> dict[str, str]:
    """Values for the role's own secrets; an empty one counts as absent."""
    found = {}
    for name, value in node.text_map("secrets").items():
        if not is_env_name(name):
            node.problem(f"the secret '{name}' needs a name like API_KEY", "secrets")
        elif value:
            found[name] = value
    return found


def read_plugins(node: Fields, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """The inherited plugins, then the role's own; `!name` or `-name` takes one away."""
    names = dict.fromkeys(inherited)
    for entry in node.texts("plugins"):
        name = entry.strip()
        if name.startswith(("!", "-")):
            names.pop(name[1:].strip(), None)
        elif PLUGIN.fullmatch(name) or (PLUGIN_SOURCE.fullmatch(name) and ".." not in name):
            names[name] = None
        else:
            node.leave_out(f"'{name}' is no plugin name", "plugins")
    return tuple(names)


def read_routing(node: Fields, inherited: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Categories and the roles that take them; a role's own list replaces, an empty one removes."""
    routes = inherited | node.texts_map("category_routing")
    return {category: roles for category, roles in sorted(routes.items()) if roles}


def read_position(node: Fields) -> Position | None:
    """The spot on the canvas, under `canvas` or directly at the role."""
    value = node.value("canvas")
    x, y = node.number("x"), node.number("y")
    if isinstance(value, Mapping):
        canvas = Fields(value, node.findings, node.at("canvas"), node.role)
        x, y = canvas.number("x"), canvas.number("y")
        canvas.warn_of_unknown()
    elif value is not None:
        node.problem("canvas must be a mapping of x and y", "canvas", value.place)
    if x is None and y is None:
        return None
    return Position(x or 0.0, y or 0.0)
