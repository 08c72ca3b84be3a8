"""Workspace templates: directories with a `config.yaml` that new workspaces start from (contract 06 §2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from molecule_ai.kernel.paths import PathRejected, inside

from . import launch_config, runtimes
from .errors import InvalidTemplate

MAX_FILES = 500
MAX_BYTES = 5 * 1024 * 1024
# Secrets and history stay where they are (contract 06 §2.4).
_SKIPPED_DIRECTORIES = frozenset({".git", ".external-cache", "__pycache__", "node_modules"})
_SKIPPED_SUFFIXES = (".pem", ".key")


class DirectoryFiles(Struct, frozen=True):
    """The text files of one directory, and what was left out."""

    files: dict[str, str]
    left_out: list[str]


class Template(Struct, frozen=True, kw_only=True):
    """One template, read."""

    name: str
    files: dict[str, str]
    config: dict[str, Any]
    left_out: list[str]

    @property
    def runtime(self) -> str | None:
        """What `runtime:` says."""
        return _text(self.config.get("runtime"))

    @property
    def model(self) -> str | None:
        """What `model:` says, else `runtime_config.model`."""
        nested = self.config.get("runtime_config")
        return _text(self.config.get("model")) or (
            _text(nested.get("model")) if isinstance(nested, dict) else None
        )


class Templates:
    """The template directory. Every method reads the disk: call it in a thread."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def check(self, name: str) -> None:
        """Raise `InvalidTemplate` for a name that leaves the root, whether or not there is one."""
        try:
            inside(self._root or Path("/nowhere"), name)
        except PathRejected as problem:
            raise InvalidTemplate from problem

    def exists(self, name: str) -> bool:
        """Whether a template of that name is there."""
        return self._directory(name) is not None

    def find(self, name: str) -> Template | None:
        """Read a template. Raises `InvalidTemplate` for a path that escapes or a config that is no YAML."""
        directory = self._directory(name)
        if directory is None:
            return None
        read = read_directory(directory)
        try:
            config = launch_config.read(read.files.get(launch_config.CONFIG, ""))
        except launch_config.InvalidConfigFile as problem:
            raise InvalidTemplate(detail=f"{name}/config.yaml: {problem}") from problem
        return Template(name=name, files=read.files, config=config, left_out=read.left_out)

    def provision_timeouts(self) -> dict[str, int]:
        """The longest `runtime_config.provision_timeout_seconds` that templates of a runtime declare."""
        found: dict[str, int] = {}
        for path in sorted(self._root.glob(f"*/{launch_config.CONFIG}")) if self._root else ():
            try:
                config = launch_config.read(path.read_text("utf-8-sig"))
            except (OSError, UnicodeDecodeError, launch_config.InvalidConfigFile):
                continue
            section = config.get("runtime_config")
            seconds = section.get("provision_timeout_seconds") if isinstance(section, dict) else None
            if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0:
                runtime = _text(config.get("runtime")) or runtimes.DEFAULT
                found[runtime] = max(seconds, found.get(runtime, 0))
        return found

    def _directory(self, name: str) -> Path | None:
        if self._root is None:
            return None
        try:
            directory = inside(self._root, name)
        except PathRejected as problem:
            raise InvalidTemplate from problem
        return directory if directory.is_dir() and directory != self._root else None


def read_directory(directory: Path) -> DirectoryFiles:
    """The text files below a directory; binary ones, secrets and what exceeds the limits are left out."""
    files: dict[str, str] = {}
    left_out: list[str] = []
    budget = MAX_BYTES
    root = directory.resolve()
    for path in _walk(directory):
        name = path.relative_to(directory).as_posix()
        if path.name.startswith(".env") or path.name.endswith(_SKIPPED_SUFFIXES):
            continue
        if not path.resolve().is_relative_to(root) or len(files) >= MAX_FILES:
            left_out.append(name)
            continue
        with path.open("rb") as file:
            content = file.read(budget + 1)
        text = _decoded(content) if len(content) <= budget else None
        if text is None:
            left_out.append(name)
            continue
        budget -= len(content)
        files[name] = text
    return DirectoryFiles(files, left_out)


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name not in _SKIPPED_DIRECTORIES:
                yield from _walk(path)
        elif path.is_file():
            yield path


def _decoded(content: bytes) -> str | None:
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
