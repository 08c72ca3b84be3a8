"""Keep secrets out of what an agent writes down or shows."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MIN_SECRET_LENGTH = 8  # shorter values would blank ordinary words
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|DSN)(_|$)", re.IGNORECASE)
PATTERNS = tuple(
    (re.compile(pattern), label)
    for pattern, label in (
        (r"(?i)\b\w*(?:API_KEY|TOKEN|SECRET|PASSWORD)\s*=\s*\S+", "SECRET"),
        (r"(?i)\bBearer\s+\S+", "BEARER_TOKEN"),
        (r"\bsk-[A-Za-z0-9_-]{16,}", "SK_TOKEN"),
        (r"\b(?:gh[pos]_|github_pat_)\w{16,}", "TOKEN"),
        (r"\bAKIA[0-9A-Z]{16}\b", "API_KEY"),
        (r"\bxox[bap]-[\w-]{10,}", "TOKEN"),
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----", "PRIVATE_KEY"),
        (r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)", "URL_CREDENTIALS"),
    )
)


class Redactor:
    """Replaces the secrets that this process knows, and everything that looks like one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = sorted(
            {value for value in secrets if len(value) >= MIN_SECRET_LENGTH}, key=len, reverse=True
        )
        self._values = re.compile("|".join(map(re.escape, values))) if values else None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *more: str) -> "Redactor":
        """Know every variable whose name says that it holds a secret."""
        return cls([*(value for name, value in environ.items() if SECRET_NAME.search(name)), *more])

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        if self._values is not None:
            text = self._values.sub("[REDACTED:SECRET]", text)
        for pattern, label in PATTERNS:
            text = pattern.sub(f"[REDACTED:{label}]", text)
        return text


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a JSON value whose texts hold no secrets."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(item, redact) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, redact) for item in value]
    return value
