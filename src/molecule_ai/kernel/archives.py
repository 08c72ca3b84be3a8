"""Tar archives to and from directories that somebody else may change meanwhile."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO, RawIOBase
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from msgspec import Struct

from .errors import InvalidRequest, TooLarge
from .paths import PathRejected, Tree, relative

MiB = 1024 * 1024
SPOOL_BYTES = 4 * MiB  # kept in memory before a temporary file is used
HEADER_BYTES = 64 * 1024  # of one extended header, which the reader holds in memory as a whole
MAX_DEPTH = 64  # of directories when packing
GZIP_MAGIC = b"\x1f\x8b"

Excludes = Callable[[str, os.stat_result | None], bool]
"""Whether a path is kept out, given what is there now."""


class TarLimits(Struct, frozen=True, kw_only=True):
    """What an archive may hold at most, counted while it is read, whatever its headers say."""

    max_entries: int = 10_000
    max_bytes: int = 256 * MiB
    max_path_chars: int = 512


TAR_LIMITS = TarLimits()


class ArchiveRejected(InvalidRequest):
    """invalid archive"""

    code = "invalid_archive"


class ArchiveTooLarge(TooLarge):
    """archive too large"""

    code = "archive_too_large"


def unpack(
    tree: Tree, path: str, archive: BinaryIO, limits: TarLimits = TAR_LIMITS, excludes: Excludes | None = None
) -> int:
    """Unpack a tar or tar.gz archive below `path` and return the number of its files.

    The whole archive is judged before the first file is written. Only directories and regular files
    are taken; a link, a device or a path that leaves the directory condemns all of it.
    """
    archive.seek(0)
    with _reading(archive, limits) as members:
        for member, content in members:
            _judge(tree, path, member, content, excludes)
    archive.seek(0)
    tree.make_directory(path)
    count = 0
    with _reading(archive, limits) as members:
        for member, content in members:
            target = f"{path}/{relative(member.name)}" if path else relative(member.name)
            if member.isdir():
                tree.make_directory(target)
            else:
                tree.write(target, content, 0o755 if member.mode & 0o111 else 0o644)
                count += 1
    return count


def pack(
    tree: Tree, path: str = "", *, max_bytes: int = 256 * MiB, excludes: Excludes | None = None
) -> BinaryIO:
    """Pack a directory into a tar archive, complete when this returns, sorted, without owners or links."""
    archive = cast(BinaryIO, SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, info in _walk(tree, path):
                source = f"{path}/{name}" if path else name
                if excludes and excludes(source, info):
                    continue
                # What vanished or became something else since it was listed is left out.
                with suppress(FileNotFoundError, IsADirectoryError, PathRejected):
                    _add(tar, tree, source, name, info)
                if archive.tell() > max_bytes:
                    raise ArchiveTooLarge
    except BaseException:
        archive.close()
        raise
    archive.seek(0)
    return archive


def _judge(
    tree: Tree, path: str, member: tarfile.TarInfo, content: BinaryIO, excludes: Excludes | None
) -> None:
    clean = relative(member.name)
    target = f"{path}/{clean}" if path else clean
    while content.read(MiB):
        pass
    try:
        present = tree.stat(target)
    except FileNotFoundError:
        present = None
    if present and stat.S_ISDIR(present.st_mode) != member.isdir():
        raise ArchiveRejected(f"{clean} is a file on one side and a directory on the other")
    if excludes and excludes(target, present):
        raise ArchiveRejected(f"{clean} is protected")


@contextmanager
def _reading(archive: BinaryIO, limits: TarLimits) -> Iterator[Iterator[tuple[tarfile.TarInfo, BinaryIO]]]:
    magic = archive.read(2)
    archive.seek(0)
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=archive)) if magic == GZIP_MAGIC else archive
    # Headers and padding come on top of the content: at most three blocks for an ordinary entry.
    source = _Limited(plain, limits.max_bytes + limits.max_entries * 3 * tarfile.BLOCKSIZE + MiB)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, source), mode="r|", tarinfo=_CautiousInfo) as tar:
            yield _members(tar, limits)
    except (tarfile.TarError, EOFError, zlib.error, OverflowError, UnicodeError, gzip.BadGzipFile) as error:
        raise ArchiveRejected from error


def _members(tar: tarfile.TarFile, limits: TarLimits) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    total = 0
    for count, member in enumerate(tar, start=1):
        if count > limits.max_entries:
            raise ArchiveTooLarge("archive has too many entries")
        if len(member.name) > limits.max_path_chars:
            raise PathRejected("path is too long")
        if member.name in (".", "./"):
            continue
        if member.issparse() or not (member.isreg() or member.isdir()):
            raise ArchiveRejected("archive holds something else than files and directories")
        total += member.size
        if total > limits.max_bytes:
            raise ArchiveTooLarge
        file = tar.extractfile(member) if member.isreg() else None
        yield member, cast(BinaryIO, file or BytesIO())


class _CautiousInfo(tarfile.TarInfo):
    """Refuses extended headers that would fill the memory before any limit of ours counts."""

    _LONG = frozenset(
        {
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        }
    )

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._LONG and self.size > HEADER_BYTES:
            raise ArchiveRejected("archive has an oversized header")
        processed: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]  # absent from the stubs
        return processed


class _Limited(RawIOBase):
    """A reader that stops an archive which unpacks to more than it may."""

    def __init__(self, source: BinaryIO, max_bytes: int) -> None:
        self._source = source
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ArchiveTooLarge
        return content


def _walk(tree: Tree, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every directory and regular file below, parents first, with names relative to `path`."""
    pending = [""]
    while pending:
        name = pending.pop()
        if name.count("/") >= MAX_DEPTH:
            raise ArchiveTooLarge("directories are nested too deeply")
        try:
            fd = tree.open_directory(f"{path}/{name}".strip("/"))
        except (FileNotFoundError, PathRejected):
            if not name:
                raise
            continue
        try:
            found = sorted(os.listdir(fd), reverse=True)
            infos = [(entry, os.stat(entry, dir_fd=fd, follow_symlinks=False)) for entry in found]
        finally:
            os.close(fd)
        for entry, info in infos:
            child = f"{name}/{entry}" if name else entry
            if stat.S_ISDIR(info.st_mode):
                pending.append(child)
                yield child, info
            elif stat.S_ISREG(info.st_mode):
                yield child, info


def _add(tar: tarfile.TarFile, tree: Tree, path: str, name: str, info: os.stat_result) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = int(info.st_mtime)
    member.mode = stat.S_IMODE(info.st_mode) & 0o755
    if stat.S_ISDIR(info.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
        return
    with os.fdopen(tree.open(path), "rb") as file:
        member.size = os.fstat(file.fileno()).st_size
        tar.addfile(member, _Exactly(file))


class _Exactly:
    """Gives zeros for what a file that shrinks meanwhile no longer has, as the header promised its size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = 0) -> bytes:
        return self._file.read(size).ljust(size, b"\0")
