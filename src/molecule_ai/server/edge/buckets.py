"""Counters of fixed windows in memory that the workers of one server share.

One file, mapped into each worker: a table of a fixed number of slots, so that nobody who invents keys
can make it grow. Two workers that count the same key in the same microsecond may count one request
less; a limiter can live with that, and needs no lock.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from pathlib import Path

from molecule_ai.kernel import log

SLOTS = 1 << 17  # contract 01 §16.1 asks for room for 100,000 buckets
WINDOW_SECONDS = 60.0
_SLOT = struct.Struct("<QdII")  # key, start of the window, count, unused
_PROBES = 8


class Buckets:
    """How often each key came in its current window."""

    def __init__(self, *, slots: int = SLOTS) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, slots * _SLOT.size)

    def share(self, folder: Path) -> None:
        """Count together with the other workers of this server from now on.

        Where the folder cannot be written, this worker goes on alone.
        """
        size = self._slots * _SLOT.size
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{os.getppid()}.limits"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(descriptor, size)
                self._memory = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as problem:
            log.get().warning("rate_limits_not_shared", error=str(problem))

    def take(self, key: int, now: float) -> tuple[int, int]:
        """Count one; returns the count of this window and the whole seconds until the next.

        `now` is the machine's monotonic clock, which all workers read alike. A window begins with the
        first request after the last one is over.
        """
        offset, start, count = self._find(key, now)
        if now - start >= WINDOW_SECONDS:
            start, count = now, 0
        count += 1
        _SLOT.pack_into(self._memory, offset, key, start, min(count, 0xFFFFFFFF), 0)
        return count, max(1, math.ceil(start + WINDOW_SECONDS - now))

    def _find(self, key: int, now: float) -> tuple[int, float, int]:
        """The key's slot, or the one that gives way to it: empty, or the longest unused of its row."""
        first = key % self._slots
        best, oldest = 0, math.inf
        for probe in range(_PROBES):
            offset = (first + probe) % self._slots * _SLOT.size
            found, start, count, _ = _SLOT.unpack_from(self._memory, offset)
            if found == key:
                return offset, start, count
            if start < oldest:
                best, oldest = offset, start
        return best, now - WINDOW_SECONDS, 0
