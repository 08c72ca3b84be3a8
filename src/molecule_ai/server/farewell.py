"""Time to say goodbye: sockets and streams end before the HTTP server hears that it has to stop.

The HTTP server waits for open requests, an event stream too, but drops open WebSockets as soon as it
is done waiting, without a close frame. Left to itself it also misses a signal that comes while it starts,
and a second one, as a terminal's Ctrl-C brings, stops the whole process dead. So the signals of a worker
are ours, and it hears of the first one, once, when everybody has been told.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Any

from granian import _signals
from granian._granian import WorkerSignal

_GRACE_SECONDS = 3.0  # for clients that are slow to let go
_LOOK_SECONDS = 0.02
_FLUSH_SECONDS = 0.05  # between the last goodbye that was said and its arrival
_ENDINGS = (signal.SIGTERM, signal.SIGINT)


class Farewell:
    """Calls `leave` at SIGTERM and SIGINT, and lets the HTTP server know when everybody `is_gone`.

    To be installed before the HTTP server asks for its signals, that is, where the app is made.
    """

    def __init__(self, leave: Callable[[], None], is_gone: Callable[[], bool]) -> None:
        self._leave = leave
        self._is_gone = is_gone
        self._is_told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = WorkerSignal()

    def install(self) -> None:
        """Take over the signals; does nothing where they are somebody else's."""
        if threading.current_thread() is not threading.main_thread():
            return
        # A handler of Python's own runs whether the loop does or not, which is started more than once.
        for number in _ENDINGS:
            signal.signal(number, self._told)
        _signals.set_loop_signals = self._listen

    def _listen(self, loop: asyncio.AbstractEventLoop) -> WorkerSignal:
        self._loop = loop
        if self._is_told:
            loop.call_soon(self._begin, loop)
        return self._end

    def _told(self, _number: int, _frame: Any) -> None:
        if self._is_told:
            return
        self._is_told = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin, self._loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leave()
        self._wait(loop, loop.time() + _GRACE_SECONDS)

    def _wait(self, loop: asyncio.AbstractEventLoop, until: float) -> None:
        if self._is_gone() or loop.time() > until:
            loop.call_later(_FLUSH_SECONDS, self._end.set)
        else:
            loop.call_later(_LOOK_SECONDS, self._wait, loop, until)
