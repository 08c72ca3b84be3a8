"""What the offline demo model does with a message, as one pure function.

Phrases it understands, case does not matter, `X` reaches to the end of the line:

- `ask for approval to X`, `request approval to X`, `needs approval: X`
- `remember X`, `remember that X`, `remember: X` at the start of a sentence
- `recall X`, `what do you remember about X`
- `tell the user X`, `tell the user that X`, `tell the user: X`
- a greeting, `ping`, `status`, `who are you`, `introduce yourself`

Everything else is a task: a leader hands it to each child at once and combines the answers, a
leaf answers itself. Work goes from parents to children only, so it always ends.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct

MARK = "[offline demo model]"
CANNOT_WORK = frozenset({"paused", "failed", "removed"})
MAX_ANSWER = 2000
PART_PREFIX = re.compile(r"^Your part as [^\n:]{1,200}: ")

_END = r"[ \t]*(?P<what>[^\n]+)"
APPROVAL = re.compile(rf"\b(?:(?:ask|asks) for approval to|request approval to|needs approval:){_END}", re.I)
REMEMBER = re.compile(rf"(?:^|[.!?\n][ \t]*)(?:please )?remember(?: that |: ?| ){_END}", re.I)
RECALL = re.compile(rf"(?:^|[.!?\n][ \t]*)(?:recall |what do you remember about ){_END}", re.I)
TELL_USER = re.compile(rf"\btell the user(?: that |: ?| ){_END}", re.I)
SMALL_TALK = re.compile(r"^\s*(?:hello|hi|hey|ping|status|who are you|introduce yourself)\b", re.I)
NOTICE = re.compile(r"^=== WORKSPACE RESTART CONTEXT ===|^Delegation results:")

STEPS = (
    "name the one outcome that matters and who checks it",
    "start with the smallest version that can be shown to somebody",
    "write down the open questions before the first decision",
    "compare two ways of doing it and keep the reversible one",
    "list the risks and give each an owner",
    "set a date to look at the result again",
)


class Persona(Struct, frozen=True):
    """Who the model speaks as."""

    name: str
    role: str

    @property
    def title(self) -> str:
        """Return the role in a few words, or the name when there is none."""
        return self.role.strip().split("\n")[0].rstrip(".")[:120] or self.name


class Use(Struct, frozen=True):
    """A wish to call a tool."""

    tool: str
    arguments: dict[str, Any]


class Done(Struct, frozen=True):
    """A tool call that came back."""

    tool: str
    arguments: dict[str, Any]
    result: str


Step = str | tuple[Use, ...]


def decide(persona: Persona, message: str, done: Sequence[Done], tools: frozenset[str]) -> Step:
    """Return the reply, or the tool calls that come before it."""
    for pattern, tool, arguments, report in ERRANDS:
        if (match := pattern.search(message)) and tool in tools:
            what = match.group("what").strip().rstrip(".!")
            if not done:
                return (Use(tool, arguments(what)),)
            return f"{MARK} {report(what, done[-1].result)}"
    if SMALL_TALK.match(message) or NOTICE.match(message):
        return f"{MARK} {persona.name} here, {persona.title}. I am ready and follow fixed rules, not a model."
    return _work(persona, message, done, tools)


def _work(persona: Persona, message: str, done: Sequence[Done], tools: frozenset[str]) -> Step:
    task = PART_PREFIX.sub("", message.strip())
    answers = [item for item in done if item.tool == "delegate_task"]
    if not {"list_peers", "delegate_task"} <= tools:
        return _own_answer(persona, task)
    if not done:
        return (Use("list_peers", {}),)
    children = _children(done[0].result)
    able = [child for child in children if child["status"] not in CANNOT_WORK]
    if not able:
        return _own_answer(persona, task, _unavailable(children))
    if not answers:
        return tuple(Use("delegate_task", {"workspace_id": c["id"], "task": _part(c, task)}) for c in able)
    return _combined(persona, children, answers)


def _children(listed: str) -> list[dict[str, str]]:
    try:
        peers = msgspec.json.decode(listed, type=list[dict[str, str]])
    except msgspec.DecodeError:
        return []  # "No peers found."
    return [peer for peer in peers if peer.get("relation") == "child"]


def _part(child: dict[str, str], task: str) -> str:
    return f"Your part as {Persona(child['name'], child['role']).title.replace(':', ',')}: {task}"


def _own_answer(persona: Persona, task: str, missing: str = "") -> str:
    step = STEPS[crc32(f"{persona.title}|{task}".encode()) % len(STEPS)]
    return f"{MARK} {persona.name}: I would {step}.{missing}"


def _combined(persona: Persona, children: list[dict[str, str]], answers: Sequence[Done]) -> str:
    names = {child["id"]: child["name"] for child in children}
    lines = []
    for item in answers:
        name = names.get(item.arguments.get("workspace_id", ""), "A colleague")
        lines.append(f"- {name}: {_indented(item.result, name)}")
    heading = f"{MARK} {persona.name}, with {len(lines)} colleague{'s' if len(lines) > 1 else ''}:"
    return "\n".join([heading, *lines]) + _unavailable(children)


def _unavailable(children: list[dict[str, str]]) -> str:
    away = [f"{child['name']} ({child['status']})" for child in children if child["status"] in CANNOT_WORK]
    return f"\nNot available: {', '.join(away)}." if away else ""


def _indented(answer: str, name: str) -> str:
    """The answer below its author's name, without the mark and the name it begins with itself."""
    text = answer.replace(f"{MARK} ", "").strip()[:MAX_ANSWER].removeprefix(name).lstrip(":, ")
    return text.replace("\n", "\n  ")


def _decision(what: str, result: str) -> str:
    try:
        outcome = msgspec.json.decode(result, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"I could not ask for approval to {what}. {result}"
    if outcome.get("status") == "pending":
        return f'Nobody has decided yet about "{what}", so I have not done it.'
    return f'Approval to "{what}": {outcome.get("status")} by {outcome.get("decided_by") or "nobody"}.'


Report = Callable[[str, str], str]
ERRANDS: tuple[tuple[re.Pattern[str], str, Callable[[str], dict[str, Any]], Report], ...] = (
    (
        APPROVAL,
        "request_approval",
        lambda what: {"action": what, "reason": "Asked for in the task."},
        _decision,
    ),
    (RECALL, "recall_memory", lambda what: {"query": what}, lambda what, result: f'About "{what}": {result}'),
    (
        REMEMBER,
        "commit_memory",
        lambda what: {"content": what},
        lambda what, result: result if result.startswith("Error") else f'I will remember "{what}".',
    ),
    (
        TELL_USER,
        "send_message_to_user",
        lambda what: {"message": what},
        lambda what, result: result if result.startswith("Error") else f'I told the user "{what}".',
    ),
)
