"""Programs that the command runtime knows: how each is called without a terminal, and how it answers.

Every one of them keeps conversations itself. Its state lives below the config directory, so that a
workspace has its own and continues it after a restart.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from molecule_ai.runtime.messages import Usage


class Spoken(Struct, frozen=True):
    """What a program has answered."""

    text: str
    session: str = ""
    usage: Usage | None = None
    error: str = ""


Read = Callable[[str, str], Spoken]


class Preset(Struct, frozen=True, kw_only=True):
    """One program. Words may hold {prompt}, {provider}, {model}, {session}, and {new_session} for a fresh id.

    Without {prompt} the task comes on standard input, where no list of processes shows it.
    """

    start: str
    resume: str
    read: Read
    lost: str
    """What it says when it does not know the session."""
    home: str
    """The variable that names the directory of its state."""
    keys: tuple[str, ...] = ()
    """One of them is needed, unless `login` lies in its home."""
    login: str = ""
    also: Mapping[str, str] = {}
    """Variables that it reads, each with the usual one whose value it gets."""


def read_text(written: str, errors: str) -> Spoken:
    """Take all that was written as the answer."""
    return Spoken(written)


def read_codex(written: str, errors: str) -> Spoken:
    """Read the events of `codex exec --json`."""
    text = session = error = ""
    usage = None
    for event in _objects(written):
        item = event.get("item") or {}
        match event.get("type"):
            case "thread.started":
                session = str(event.get("thread_id", ""))
            case "item.completed" if item.get("type") == "agent_message":
                text = str(item.get("text", ""))
            case "turn.completed":
                usage = _usage(event.get("usage"), "input_tokens", "output_tokens")
            case "turn.failed":
                error = str((event.get("error") or {}).get("message", "the turn failed"))
    return Spoken(text, session, usage, error)


def read_gemini(written: str, errors: str) -> Spoken:
    """Read the object of `gemini --output-format json`."""
    found = _object(written[written.find("{") :])
    failed = found.get("error") or {}
    return Spoken(
        str(found.get("response") or ""),
        str(found.get("session_id") or ""),
        None,
        str(failed.get("message", "")),
    )


def read_hermes(written: str, errors: str) -> Spoken:
    """Leave out its warnings, and find the session on standard error."""
    lines = [line for line in written.splitlines() if not line.lstrip().startswith("⚠")]
    named = [line.partition(":")[2].strip() for line in errors.splitlines() if line.startswith("session_id:")]
    return Spoken("\n".join(lines).strip(), named[-1] if named else "")


GEMINI = "gemini --output-format json --approval-mode yolo --skip-trust --model {model}"
HERMES = "hermes chat --quiet --yolo --source tool --provider {provider} --model {model} --query {prompt}"

PRESETS = {
    "codex": Preset(
        start="codex exec --json --skip-git-repo-check --sandbox workspace-write --model {model} -",
        resume="codex exec resume --json --skip-git-repo-check --model {model} {session} -",
        read=read_codex,
        lost="no rollout found",
        home="CODEX_HOME",
        keys=("OPENAI_API_KEY", "CODEX_API_KEY"),
        login="auth.json",
        also={"CODEX_API_KEY": "OPENAI_API_KEY"},
    ),
    "gemini-cli": Preset(
        start=f"{GEMINI} --session-id {{new_session}}",
        resume=f"{GEMINI} --resume {{session}}",
        read=read_gemini,
        lost="Error resuming session",
        home="GEMINI_CLI_HOME",
        keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        login=".gemini/oauth_creds.json",
        also={"GEMINI_API_KEY": "GOOGLE_API_KEY"},
    ),
    "hermes": Preset(
        start=HERMES,
        resume=f"{HERMES} --resume {{session}}",
        read=read_hermes,
        lost="Session not found",
        home="HERMES_HOME",
    ),
    "openclaw": Preset(
        start="openclaw agent --local --session-id {new_session} --message {prompt}",
        resume="openclaw agent --local --session-id {session} --message {prompt}",
        read=read_text,
        lost="session not found",
        home="OPENCLAW_STATE_DIR",
    ),
}


def _objects(written: str) -> list[dict[str, Any]]:
    return [_object(line) for line in written.splitlines() if line.startswith("{")]


def _object(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _usage(counts: Any, read: str, written: str) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    return Usage(int(counts.get(read) or 0), int(counts.get(written) or 0))
