"""`molecule agent`: from the environment to a living agent, and its exit status."""

import asyncio
import logging
import os
import sys
from typing import NoReturn

from molecule_ai.runtime.agent import Agent
from molecule_ai.runtime.lean import one_arena
from molecule_ai.runtime.lock import AgentLock, AlreadyRunning
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


def main() -> NoReturn:
    """Run until the end and exit."""
    try:
        settings = read_settings()
    except InvalidEnvironment as error:
        sys.stderr.write(f"molecule agent: {error}\n")
        sys.exit(os.EX_CONFIG)
    level = logging.getLevelNamesMapping().get(settings.agent_log_level.upper(), logging.INFO)
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)
    # The SDK logs whole requests when it refuses them; what the caller needs is in the answer.
    logging.getLogger("a2a").setLevel(logging.CRITICAL)
    one_arena()
    sys.exit(asyncio.run(run_agent(settings)))
