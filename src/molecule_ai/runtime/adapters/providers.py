"""`provider:model`, the key that belongs to it, and where it is served."""

from collections.abc import Collection

from msgspec import Struct

from molecule_ai.runtime.adapters.base import AdapterContext
from molecule_ai.runtime.messages import AgentTask
from molecule_ai.runtime.preflight import NotConfigured


class Provider(Struct, frozen=True):
    """What a provider's model needs."""

    keys: tuple[str, ...] = ()
    """Variables that may hold its key; one of them must."""
    base_url: str = ""
    """The variable that moves it elsewhere, a proxy for one."""
    openai_url: str = ""
    """Where it speaks OpenAI's chat completions."""


PROVIDERS = {
    "openai": Provider(("OPENAI_API_KEY",), "OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "anthropic": Provider(("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL"),
    "google_genai": Provider(
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        "GOOGLE_GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com/v1beta/openai",
    ),
    "ollama": Provider((), "OLLAMA_BASE_URL", "http://localhost:11434"),
    "openrouter": Provider(("OPENROUTER_API_KEY",), "OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
    "groq": Provider(("GROQ_API_KEY",), "GROQ_BASE_URL", "https://api.groq.com/openai/v1"),
    "deepseek": Provider(("DEEPSEEK_API_KEY",), "DEEPSEEK_BASE_URL", "https://api.deepseek.com/v1"),
    "mistralai": Provider(("MISTRAL_API_KEY",), "MISTRAL_BASE_URL", "https://api.mistral.ai/v1"),
    "xai": Provider(("XAI_API_KEY",), "XAI_BASE_URL", "https://api.x.ai/v1"),
}
OPENAI_COMPATIBLE = tuple(name for name, provider in PROVIDERS.items() if provider.openai_url)
NO_KEY = "none"  # clients insist on a key; a local model asks for none


class Model(Struct, frozen=True):
    """A model that can be called."""

    provider: str
    name: str
    key: str
    base_url: str
    """Where the operator has moved it; empty: where the library looks by itself."""

    @property
    def openai_url(self) -> str:
        """Return where it speaks OpenAI's chat completions."""
        if self.provider == "ollama":
            return f"{(self.base_url or PROVIDERS['ollama'].openai_url).rstrip('/')}/v1"
        return self.base_url or PROVIDERS[self.provider].openai_url

    def __repr__(self) -> str:
        return f"Model({self.provider}:{self.name})"  # never the key


def choose(context: AdapterContext, supported: Collection[str]) -> Model:
    """Return the model of a workspace; raises NotConfigured with what is missing."""
    provider, name = split(context.model)
    if provider not in supported:
        offered = ", ".join(f"{known}:…" for known in sorted(supported))
        raise NotConfigured(
            f"the {context.runtime} runtime has no model {context.model!r}; it takes {offered}"
        )
    return Model(
        provider, name, _key(context, provider), context.environ.get(PROVIDERS[provider].base_url, "")
    )


def split(model: str) -> tuple[str, str]:
    """Separate `provider:model`, or `provider/model` as other programs write it."""
    for mark in (":", "/"):
        provider, found, name = model.partition(mark)
        if found and name and (mark == ":" or provider in PROVIDERS):
            return provider, name
    raise NotConfigured(f"model must be written provider:model, not {model!r}")


def as_text(task: AgentTask) -> str:
    """Return a task with what was said before it, for a library that takes one text."""
    if not task.history:
        return task.text
    said = "\n".join(f"{turn.role}: {turn.text}" for turn in task.history)
    return f"Earlier in this conversation:\n{said}\n\nNow:\n{task.text}"


def require_key(context: AdapterContext) -> None:
    """Refuse a model of a known provider whose key is missing; the library judges the others."""
    provider, _ = split(context.model)
    if provider in PROVIDERS:
        _key(context, provider)


def _key(context: AdapterContext, provider: str) -> str:
    variables = PROVIDERS[provider].keys
    found = next((value for name in variables if (value := context.environ.get(name))), "")
    if variables and not found:
        raise NotConfigured(f"model {context.model} needs {' or '.join(variables)}, which is not set")
    return found or NO_KEY
