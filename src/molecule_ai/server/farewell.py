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

_GRACE_SECONDS = 0.5
# The HTTP server runs the loop anew after the start, which resets the descriptor: look again.
_ARM_SECONDS = (0.01, 0.1, 0.5, 2.0)
_ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT})


class Farewell:
    """Calls `leave` at SIGTERM and SIGINT, half a second before anybody else reacts to them."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
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
        for seconds in _ARM_SECONDS:
            self._loop.call_later(seconds, self._listen)

    def _told_early(self, number: int, _frame: object) -> None:
        self._early = number

    def _listen(self) -> None:
        if self._is_told:
            return
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
        self._loop.call_later(_GRACE_SECONDS, self._pass_on, numbers)

    def _pass_on(self, numbers: bytes) -> None:
        signal.set_wakeup_fd(self._loops_descriptor)
        os.write(self._loops_descriptor, numbers)
        self._close()

    def _close(self) -> None:
        self._here.close()
        self._there.close()
