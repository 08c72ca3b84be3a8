"""Keeps this process's slots alive and writes what traffic notes in passing."""

from __future__ import annotations

from .service import Traffic

_SWEEP_EVERY = 720  # ticks: an hour


class TrafficKeeper:
    """Renews slots six times within their lease."""

    name = "traffic"
    interval_seconds = 5.0

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._ticks = 0

    async def tick(self) -> object:
        """Renew, write, and once an hour forget what is old."""
        held = await self._traffic.renew()
        await self._traffic.flush()
        if self._ticks % _SWEEP_EVERY == 0:
            await self._traffic.sweep()
        self._ticks += 1
        return {"slots": held}
