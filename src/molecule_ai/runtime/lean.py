"""Loading heavy libraries when they are first needed, and keeping them small.

An agent that waits for its first message has none of them in memory: importing them costs
one to two seconds of CPU, which a hundred agents that start at once would feel (docs/runtime.md).
"""

import asyncio
import ctypes
import gc
import importlib
import logging
import sys
import time
from types import ModuleType

log = logging.getLogger(__name__)

M_ARENA_MAX = -8  # glibc's <malloc.h>
# httpx imports its own command line when click, rich and pygments happen to be installed: 6 MB and 0.2 s
# for nothing. A None entry makes its guarded import take the fallback. It stands here because every
# process that becomes an agent, or forks one, imports this module before httpx.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # the documented way to refuse

_loading: dict[str, asyncio.Task[ModuleType]] = {}


def one_arena() -> None:
    """Let all threads share one malloc arena; the default is eight per core."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(M_ARENA_MAX, 1)


async def load_module(name: str) -> ModuleType:
    """Import a module in a thread, so that heartbeats and probes go on meanwhile."""
    if name in sys.modules and name not in _loading:
        return sys.modules[name]
    if name not in _loading:
        _loading[name] = asyncio.ensure_future(asyncio.to_thread(_import, name))
    try:
        return await asyncio.shield(_loading[name])
    finally:
        if name in _loading and _loading[name].done():
            _loading.pop(name, None)


def _import(name: str) -> ModuleType:
    started = time.monotonic()
    gc.disable()  # collecting while modules pile up takes a sixth of the time and frees nothing
    try:
        module = importlib.import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
    log.info("loaded module=%s seconds=%.2f", name, time.monotonic() - started)
    return module
