"""`molecule demo`: watch an organization come to life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.live import Live

from molecule_ai.demo.platform import DemoFailed, Platform, server
from molecule_ai.demo.story import OFFLINE, Story
from molecule_ai.demo.tally import Tally
from molecule_ai.demo.view import View

from .session import Session

_KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "OLLAMA_BASE_URL", "OLLAMA_HOST")


def demo(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Leave after the summary.")] = False,
    model: Annotated[
        str, typer.Option(help="provider:model for every role; default: the offline model.")
    ] = OFFLINE,
    home: Annotated[
        str, typer.Option(envvar="MOLECULE_HOME", help="Data folder; the demo keeps to a part of it.")
    ] = "~/.molecule",
    port: Annotated[int, typer.Option("--port", "-p", envvar="PORT", help="Listening port.")] = 8080,
) -> None:
    """Bring up an organization of agents, give it work, and show what happens."""
    session: Session = context.obj
    folder = Path(home).expanduser().absolute() / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(_demo(folder, port, model, once=once, as_json=session.as_json))
    except DemoFailed as failure:
        typer.echo(f"Error: the demo failed: {failure}", err=True)
        raise typer.Exit(1) from failure
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


async def _demo(home: Path, port: int, model: str, *, once: bool, as_json: bool) -> None:
    console = Console(stderr=as_json)
    if model == OFFLINE:
        console.print("No model given: the agents run on the offline demo model, which follows fixed rules.")
    tally = Tally()
    started = time.monotonic()
    async with server(home, port, {}) as platform:
        console.print(f"Server on {platform.url} (API browser: {platform.url}/docs)")
        story = await _play(platform, tally, console, model)
        story.started = started
        summary = story.summary()
        _print_summary(console, story, summary)
        if as_json:
            print(json.dumps(summary, separators=(",", ":")), flush=True)
        if not once:
            console.print(
                f"\nStill running on {platform.url}; try `molecule workspace tree --api-url {platform.url}`. "
                f"The admin token is in {home / 'admin-token'}. Ctrl-C stops everything."
            )
            await _until_interrupted()


async def _play(platform: Platform, tally: Tally, console: Console, model: str) -> Story:
    started = time.monotonic()
    view = View(tally, "Launch Studio")

    def say(step: str) -> None:
        view.step = step
        if not console.is_terminal:
            console.print(f"{time.monotonic() - started:6.1f} s  {step}")

    story = Story(platform, tally, say, secrets=_secrets(model))
    following = asyncio.create_task(_follow(platform, tally, started))
    live = Live(view, console=console, refresh_per_second=8, screen=False) if console.is_terminal else None
    try:
        with live or contextlib.nullcontext():
            await story.run()
    finally:
        following.cancel()
    return story


async def _follow(platform: Platform, tally: Tally, started: float) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            await platform.follow(lambda frame: tally.take(frame, time.monotonic() - started))
        await asyncio.sleep(0.2)


def _secrets(model: str) -> dict[str, str]:
    """What makes every role run on a real model: its name, and the vendors' keys of this environment."""
    if model == OFFLINE:
        return {}
    return {"MODEL": model} | {name: os.environ[name] for name in _KEYS if os.environ.get(name)}


def _print_summary(console: Console, story: Story, summary: dict[str, Any]) -> None:
    console.print("\nThe top role answered:", style="bold")
    console.print(story.answer[:1500] or "(nothing)", markup=False)
    console.print()
    for name, value in summary.items():
        console.print(f"  {name.replace('_', ' '):22} {value}")


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
