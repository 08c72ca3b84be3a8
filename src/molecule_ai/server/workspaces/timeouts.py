"""How long an agent may take to register, by runtime (contract 02 §13)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta

from . import runtimes
from .templates import Templates

DEFAULT = timedelta(minutes=10)
FRESH_SECONDS = 30.0  # templates are files that somebody may edit


class Timeouts:
    """What the runtimes of this build and the templates of this installation declare."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._declared: Mapping[str, int] = {}
        self._read_at = -FRESH_SECONDS

    async def declared(self) -> Mapping[str, int]:
        """Seconds by runtime; of several templates of a runtime, the most patient one counts."""
        if time.monotonic() - self._read_at >= FRESH_SECONDS:
            self._declared = await asyncio.to_thread(self._read)
            self._read_at = time.monotonic()
        return self._declared

    def _read(self) -> Mapping[str, int]:
        found = {
            name: runtime.provision_timeout_seconds
            for name, runtime in runtimes.registry().items()
            if runtime.provision_timeout_seconds is not None
        }
        return found | self._templates.provision_timeouts()
