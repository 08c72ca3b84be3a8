"""The runtimes that stand on a library, and how each is pointed at the stub of its model API."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from molecule_ai.runtime.adapters import ADAPTERS
from molecule_ai.runtime.adapters.library import Library, is_installed
from tests.adapters.model_api import KEY


@dataclass(frozen=True)
class Case:
    """One runtime with one model."""

    runtime: str
    model: str
    key: str
    base: str
    """The variable that moves the model's API."""
    path: str = ""
    more: dict[str, str] = field(default_factory=dict, hash=False)
    other: str = "offline:demo"
    """A model that this runtime cannot have."""
    streams: bool = True

    @property
    def name(self) -> str:
        return f"{self.runtime}-{self.model.partition(':')[0]}"

    def environ(self, url: str) -> dict[str, str]:
        return {self.key: KEY, self.base: f"{url}{self.path}", "MOLECULE_MODEL": self.model, **self.more}


OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1")
ANTHROPIC = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
GEMINI = ("GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL")

CASES = [
    Case("deepagents", "anthropic:claude-opus-4-7", *ANTHROPIC, other="martian:one"),
    Case("deepagents", "openai:gpt-5", *OPENAI, other="martian:one"),
    Case("langgraph", "openai:gpt-5", *OPENAI, other="martian:one"),
    Case("claude-code", "sonnet", *ANTHROPIC, other="openai:gpt-5"),
    Case("crewai", "openai:gpt-5", *OPENAI),
    Case("crewai", "anthropic:claude-opus-4-7", *ANTHROPIC),
    Case("crewai", "google_genai:gemini-2.5-pro", *GEMINI),
    Case("autogen", "openai:gpt-5", *OPENAI),
    Case("autogen", "anthropic:claude-opus-4-7", *ANTHROPIC),
    Case("google-adk", "google_genai:gemini-2.5-pro", *GEMINI),
    Case("google-adk", "anthropic:claude-opus-4-7", *ANTHROPIC),
    Case("openai-agents", "openai:gpt-5", *OPENAI),
    Case("openai-agents", "groq:llama", "GROQ_API_KEY", "GROQ_BASE_URL", "/v1"),
]
# The environments of `make test-adapters`: whose cases run where.
BY_ENVIRONMENT = {"deepagents": ("deepagents", "langgraph")}


def cases() -> list[Case]:
    """The cases of the environment under test; none where no environment is named."""
    wanted = os.environ.get("MOLECULE_TEST_ADAPTER", "")
    runtimes = BY_ENVIRONMENT.get(wanted, (wanted,))
    return [case for case in CASES if case.runtime in runtimes]


def libraries() -> dict[str, Library]:
    return {name: target for name, target in ADAPTERS.items() if isinstance(target, Library)}


def missing() -> list[str]:
    """Runtimes whose library this environment does not have."""
    return [name for name, library in libraries().items() if not all(map(is_installed, library.packages))]
