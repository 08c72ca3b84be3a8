"""The files of a workspace that lives on this machine."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import BinaryIO, TypeVar
from uuid import UUID, uuid4

from molecule_ai.kernel import archives
from molecule_ai.kernel.archives import TAR_LIMITS, TarLimits
from molecule_ai.kernel.paths import PathRejected, Tree, relative
from molecule_ai.provisioners.base import ExecResult, FileEntry, Root
from molecule_ai.provisioners.errors import FileMissing, FileProtected, FileTooLarge, IsDirectory

from . import scan
from .ending import end
from .execute import execute
from .identity import identify
from .layout import CREDENTIALS, Layout

MiB = 1024 * 1024
SKIPPED_DIRECTORIES = frozenset({".git", "__pycache__", "node_modules"})  # contract 06 §5.2
SKIPPED_FILES = frozenset({".DS_Store"})
MAX_LISTED = 10_000

T = TypeVar("T")


class LocalFiles:
    """Reads and writes in the directories themselves, also while no agent runs."""

    def __init__(
        self, layout: Layout, workspace_id: UUID, scanner: scan.Scanner, environment: Mapping[str, str]
    ) -> None:
        self._layout = layout
        self._workspace_id = workspace_id
        self._scanner = scanner
        self._environment = environment

    async def stat(self, root: Root, path: str) -> FileEntry | None:
        def look(tree: Tree) -> FileEntry:
            return _entry(path, tree.stat(_clean(path)))

        try:
            return await self._within(root, look)
        except FileMissing:
            return None

    async def read(self, root: Root, path: str, *, max_bytes: int = 5 * MiB) -> bytes:
        def read(tree: Tree) -> bytes:
            with os.fdopen(tree.open(relative(path)), "rb") as file:
                info = os.fstat(file.fileno())
                if self._is_credential(info):
                    raise FileProtected
                content = file.read(max_bytes + 1)
                if len(content) > max_bytes:
                    raise FileTooLarge
                return content

        return await self._within(root, read)

    async def write(self, root: Root, path: str, content: bytes, *, mode: int = 0o644) -> None:
        def write(tree: Tree) -> None:
            self._refuse_credential(root, path)
            tree.write(relative(path), content, stat.S_IMODE(mode) & 0o777)

        await self._within(root, write, create=True)

    async def write_many(self, root: Root, files: Mapping[str, bytes], *, prune: bool = False) -> None:
        contents = {relative(path): content for path, content in files.items()}

        def write(tree: Tree) -> None:
            for path in contents:
                self._refuse_credential(root, path)
            # Everything that can fail for lack of space or rights has happened before the first rename.
            with ExitStack() as staged:
                for path, content in contents.items():
                    staged.enter_context(tree.staged(path, content))
            if prune:
                self._prune(tree, contents)

        await self._within(root, write, create=True)

    async def list(self, root: Root, path: str = "", *, depth: int = 1) -> list[FileEntry]:
        def look(tree: Tree) -> list[FileEntry]:
            return sorted(_listed(tree, _clean(path), depth), key=lambda entry: entry.path)

        try:
            return await self._within(root, look)
        except FileMissing:
            return []

    async def delete(self, root: Root, path: str) -> None:
        def delete(tree: Tree) -> None:
            self._refuse_credential(root, path)
            tree.delete(relative(path))

        await self._within(root, delete)

    async def tar_in(self, root: Root, path: str, archive: BinaryIO, limits: TarLimits = TAR_LIMITS) -> int:
        def unpack(tree: Tree) -> int:
            return archives.unpack(tree, _clean(path), archive, limits, self._excludes(root))

        return await self._within(root, unpack, create=True)

    async def tar_out(self, root: Root, path: str = "", *, max_bytes: int = 256 * MiB) -> BinaryIO:
        def pack(tree: Tree) -> BinaryIO:
            return archives.pack(tree, _clean(path), max_bytes=max_bytes, excludes=self._excludes(root))

        return await self._within(root, pack)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        root: Root = Root.WORKSPACE,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
        max_output_bytes: int = MiB,
    ) -> ExecResult:
        directory = self._layout.root(root)
        await asyncio.to_thread(directory.mkdir, 0o700, True, True)
        call_id = uuid4()

        async def sweep() -> None:
            await end(partial(self._scanner.look, self._workspace_id, call_id))

        return await execute(
            argv,
            directory=directory,
            environment={**self._environment, **self._marks(call_id)},
            stdin=stdin,
            timeout=timeout,
            max_output_bytes=max_output_bytes,
            sweep=sweep,
        )

    def _marks(self, call_id: UUID) -> dict[str, str]:
        me = identify(os.getpid())
        return {
            scan.HOME_MARK: self._scanner.home_id,
            scan.WORKSPACE_MARK: str(self._workspace_id),
            scan.INSTANCE_MARK: str(call_id),
            scan.OWNER_MARK: f"{me.pid}:{me.started_at}" if me else "",
        }

    async def _within(self, root: Root, act: Callable[[Tree], T], *, create: bool = False) -> T:
        return await asyncio.to_thread(self._act, root, act, create)

    def _act(self, root: Root, act: Callable[[Tree], T], create: bool) -> T:
        directory = self._layout.root(root)
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _as_answers(), Tree(directory) as tree:
            return act(tree)

    def _prune(self, tree: Tree, kept: Mapping[str, bytes]) -> None:
        for entry in _listed(tree, "", depth=archives.MAX_DEPTH, skip=False):
            if not entry.is_dir and entry.path not in kept and entry.path not in CREDENTIALS:
                tree.delete(entry.path)

    def _refuse_credential(self, root: Root, path: str) -> None:
        if self._names_credential(root, relative(path)):
            raise FileProtected

    def _excludes(self, root: Root) -> archives.Excludes:
        return lambda path, info: (
            self._names_credential(root, path) or (info is not None and self._is_credential(info))
        )

    @staticmethod
    def _names_credential(root: Root, path: str) -> bool:
        # In any directory: a link inside the root may give the one that counts a second path.
        return root is Root.CONFIGS and path.rpartition("/")[2] in CREDENTIALS

    def _is_credential(self, info: os.stat_result) -> bool:
        """Compare by the file itself, so that another name for it opens no way around."""
        for name in CREDENTIALS:
            try:
                known = (self._layout.configs / name).lstat()
            except FileNotFoundError:
                continue
            if (known.st_dev, known.st_ino) == (info.st_dev, info.st_ino):
                return True
        return False


def _clean(path: str) -> str:
    """Clean a path that may also be the root, given as nothing or as a dot."""
    return "" if path in ("", ".", "./", "/") else relative(path)


def _entry(path: str, info: os.stat_result) -> FileEntry:
    return FileEntry(
        path=path,
        size=info.st_size,
        is_dir=stat.S_ISDIR(info.st_mode),
        mode=stat.S_IMODE(info.st_mode),
        modified_at=info.st_mtime,
    )


def _listed(tree: Tree, path: str, depth: int, *, skip: bool = True) -> Iterator[FileEntry]:
    """The entries below a directory, at most so deep and so many; links are named, not followed."""
    pending = [("", depth)]
    count = 0
    while pending:
        name, left = pending.pop()
        try:
            fd = tree.open_directory(f"{path}/{name}".strip("/"))
        except (FileNotFoundError, PathRejected):
            if not name:
                raise
            continue
        try:
            for entry in os.listdir(fd):
                if count >= MAX_LISTED:
                    return
                if skip and entry in SKIPPED_FILES:
                    continue
                try:
                    info = os.stat(entry, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                child = f"{name}/{entry}" if name else entry
                count += 1
                yield _entry(child, info)
                if stat.S_ISDIR(info.st_mode) and left > 1 and not (skip and entry in SKIPPED_DIRECTORIES):
                    pending.append((child, left - 1))
        finally:
            os.close(fd)


@contextmanager
def _as_answers() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissing from error
    except IsADirectoryError as error:
        raise IsDirectory from error
    except PermissionError as error:
        raise PathRejected("path cannot be used") from error
