"""`molecule agent`: from the environment to a living agent, and its exit status."""

import asyncio
import logging
import os
import sys
from typing import NoReturn

from molecule_ai.runtime.agent import Agent
from molecule_ai.runtime.lean import one_arena
from molecule_ai.runtime.lock import AgentLock, AlreadyRunning
from molecule_ai.runtime.redact import Redactor
from molecule_ai.runtime.settings import InvalidEnvironment, RuntimeSettings, read_settings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


async def run_agent(settings: RuntimeSettings) -> int:
    """Live as the agent of one workspace; returns the exit status (sysexits.h)."""
    try:
        with AgentLock(settings.workspace_config_path):
            await Agent(settings).run()
    except AlreadyRunning as error:
        logging.getLogger(__name__).error("already_running %s", error)
        return os.EX_TEMPFAIL
    except OSError as error:
        logging.getLogger(__name__).error("start_failed error=%s", error)
        return os.EX_OSERR
    return os.EX_OK


class WithoutSecrets(logging.Formatter):
    """Libraries log what a model's API answers, and that may quote a key."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__(LOG_FORMAT)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, its traceback included."""
        return self._redact(super().format(record))


def log_to_stderr(settings: RuntimeSettings, redact: Redactor) -> None:
    """Log our own lines at the chosen level; libraries only warn, unless we debug."""
    level = logging.getLevelNamesMapping().get(settings.agent_log_level.upper(), logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WithoutSecrets(redact))
    others = level if level < logging.INFO else max(level, logging.WARNING)
    logging.basicConfig(level=others, handlers=[handler])
    logging.getLogger("molecule_ai").setLevel(level)
    # The SDK logs whole requests when it refuses them; what the caller needs is in the answer.
    logging.getLogger("a2a").setLevel(logging.CRITICAL)


def main() -> NoReturn:
    """Run until the end and exit."""
    try:
        settings = read_settings()
    except InvalidEnvironment as error:
        sys.stderr.write(f"molecule agent: {error}\n")
        sys.exit(os.EX_CONFIG)
    log_to_stderr(settings, Redactor.from_environment(os.environ))
    one_arena()
    sys.exit(asyncio.run(run_agent(settings)))
