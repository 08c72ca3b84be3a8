"""The worker processes of one server, replaced whenever they die."""

from __future__ import annotations

import time
from typing import Any

from granian.server import MPServer

from molecule_ai.kernel import log

_GROWN_SECONDS = 15.0  # whoever lived that long has started well
# Before another worker follows one that died young; the first one may have been an accident.
_PAUSES_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0)
_MAX_FAILED_STARTS = 4


class WorkersFailed(Exception):
    """No worker can be kept alive."""


class Workers(MPServer):
    """Granian's main process, but one that does not end a server whose workers are killed.

    Granian takes two early deaths of one worker for a crash loop, shuts all workers down and leaves; a
    death that it hears of while it replaces another worker waits for the next one. Here each worker is
    replaced by itself, after a pause that grows while the young keep dying. Only a server whose workers
    end by themselves, none of them having grown up, `is_hopeless`.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self._has_grown = False
        self._young_deaths = 0
        self._failed_starts = 0
        self._due: dict[int, float] = {}

    @property
    def is_hopeless(self) -> bool:
        """Whether it is of no use to start another worker."""
        return not self._has_grown and self._failed_starts >= _MAX_FAILED_STARTS

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while not (self.interrupt_signal or self.is_hopeless):
            self.main_loop_interrupt.wait(self._patience())
            # Cleared before looking: whoever dies meanwhile is seen on the next round.
            self.main_loop_interrupt.clear()
            while self.interrupt_children:
                self._note_death(self.interrupt_children.pop(0))
            if self.reload_signal:
                self._due.clear()
                self._reload(spawn_target, target_loader)  # type: ignore[no-untyped-call]  # Granian's own
            for index in self._take_due():
                self._respawn_workers([index], spawn_target, target_loader)
        self.interrupt_children.clear()  # else Granian's end is a failure

    def _patience(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _note_death(self, index: int) -> None:
        now = time.monotonic()
        worker = self.wrks[index]
        lived = now - worker.birth
        pause = 0.0
        if lived >= _GROWN_SECONDS:
            self._has_grown = True
            self._young_deaths = 0
        else:
            pause = _PAUSES_SECONDS[min(self._young_deaths, len(_PAUSES_SECONDS) - 1)]
            self._young_deaths += 1
            self._failed_starts += worker.inner.exitcode >= 0  # negative: a signal ended it
        self._due[index] = now + pause
        log.get().warning(
            "worker_died", worker=index, lived_seconds=round(lived, 1), exit=worker.inner.exitcode
        )

    def _take_due(self) -> list[int]:
        if self.interrupt_signal or self.is_hopeless:
            return []
        now = time.monotonic()
        taken = [index for index, due in self._due.items() if due <= now]
        for index in taken:
            del self._due[index]
        return taken
