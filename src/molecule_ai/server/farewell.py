"""Time to say goodbye: sockets and streams end before the HTTP server hears that it has to stop.

The HTTP server waits for open requests, an event stream too, but drops open WebSockets as soon as it
is done waiting, without a close frame. Its signal handler belongs to the event loop, which reads
signals from the wake-up descriptor. So that descriptor is ours while we serve, and what arrives is
passed on to the loop's own a moment later.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable

_GRACE_SECONDS = 3.0  # for clients that are slow to let go
_LOOK_SECONDS = 0.02
_FLUSH_SECONDS = 0.05  # between the last goodbye that was said and its arrival
# The HTTP server runs the loop anew after the start, which resets the descriptor: look again for a while.
_ARM_SECONDS = 0.01
_ARM_TIMES = 200
_ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT})


class Farewell:
    """Calls `leave` at SIGTERM and SIGINT, and lets nobody else react before everybody `is_gone`."""

    def __init__(self, leave: Callable[[], None], is_gone: Callable[[], bool]) -> None:
        self._leave = leave
        self._is_gone = is_gone
        self._loop = asyncio.get_running_loop()
        self._early = 0
        self._is_told = False
        self._loops_descriptor = -1
        self._here, self._there = socket.socketpair()
        self._is_main = threading.current_thread() is threading.main_thread()
        for number in _ENDINGS if self._is_main else ():
            signal.signal(number, self._told_early)

    def arm(self) -> None:
        """Take over, once the start is complete; does nothing where signals are somebody else's."""
        if not self._is_main:
            return
        for end in (self._here, self._there):
            end.setblocking(False)
        self._loop.add_reader(self._here, self._told)
        self._loop.call_later(_ARM_SECONDS, self._listen, _ARM_TIMES)

    def _told_early(self, number: int, _frame: object) -> None:
        self._early = number

    def _listen(self, times: int) -> None:
        if self._is_told:
            return
        if times:
            self._loop.call_later(_ARM_SECONDS, self._listen, times - 1)
        before = signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        if before == self._there.fileno():
            return
        self._loops_descriptor = before
        if self._early:  # what came while the HTTP server started may have been lost on it
            os.kill(os.getpid(), self._early)

    def _told(self) -> None:
        numbers = self._here.recv(64)
        if not _ENDINGS.intersection(numbers):
            os.write(self._loops_descriptor, numbers)
            return
        self._is_told = True
        self._loop.remove_reader(self._here)
        self._leave()
        self._wait(numbers, self._loop.time() + _GRACE_SECONDS)

    def _wait(self, numbers: bytes, until: float) -> None:
        if self._is_gone() or self._loop.time() > until:
            self._loop.call_later(_FLUSH_SECONDS, self._pass_on, numbers)
        else:
            self._loop.call_later(_LOOK_SECONDS, self._wait, numbers, until)

    def _pass_on(self, numbers: bytes) -> None:
        signal.set_wakeup_fd(self._loops_descriptor)
        os.write(self._loops_descriptor, numbers)
        self._close()

    def _close(self) -> None:
        self._here.close()
        self._there.close()
