"""The demo's terminal as a picture: `python -m molecule_ai.demo.picture FILE.svg` runs it and takes one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from .platform import Platform, server
from .story import Story
from .tally import Tally
from .view import View

_WIDTH, _HEIGHT = 120, 26
_PORT = 8080
# The picture must not load a font from anybody: the viewer's own monospaced one does.
_FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def take() -> str:
    """Run the demo in a home of its own; return an SVG of its view when all of it has happened."""
    with tempfile.TemporaryDirectory(prefix="molecule-picture-") as home:
        async with server(Path(home), _PORT, {}) as platform:
            return _svg(await _watch(platform))


async def _watch(platform: Platform) -> View:
    started = time.monotonic()
    tally = Tally()
    view = View(tally, "Launch Studio")

    def say(step: str) -> None:
        view.step = step

    following = asyncio.create_task(
        platform.follow(lambda frame: tally.take(frame, time.monotonic() - started))
    )
    try:
        await Story(platform, tally, say, secrets={}).run()
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    view.step = "done"
    return view


def _svg(view: View) -> str:
    console = Console(
        record=True,
        width=_WIDTH,
        height=_HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(view)
    return _FONT_FACES.sub("", console.export_svg(title="make demo"))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(asyncio.run(take()))
