"""The one sanitizer for paths that come from outside.

Two kinds of check, for two kinds of place. `relative` and `inside` judge a path by its text and by where
its links lead now; that is enough where nobody hostile can write. `Tree` is for directories in which an
agent works meanwhile: it walks by directory descriptors and never gives the kernel a path with more
than one component, so that no link swapped in between can lead it out.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from .errors import InvalidRequest

MAX_LINKS = 40  # as many as Linux follows
SYSTEM_DIRECTORIES = tuple(
    PurePosixPath(path)
    for path in ("/etc", "/var", "/proc", "/sys", "/dev", "/boot", "/sbin", "/bin", "/lib", "/usr")
)  # contract 06 §0.3

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PathRejected(InvalidRequest):
    """invalid path"""

    code = "invalid_path"


def relative(path: str) -> str:
    """Clean a relative path, or refuse it (contract 06 §0.3, `validate_rel_path`).

    Two dots in a row are refused wherever they stand, also in `a..b`.
    """
    if "\0" in path:
        raise PathRejected("path contains a null byte")
    if path.startswith("/"):
        raise PathRejected("absolute paths are not allowed")
    if ".." in path:
        raise PathRejected("path escapes root")
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise PathRejected("path is not valid text") from error
    clean = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not clean:
        raise PathRejected("path is empty")
    return clean


def inside(root: Path, path: str) -> Path:
    """Join a path to a root and require that it stays there, its links followed.

    The root itself is allowed. For a directory that an agent can write to meanwhile, use `Tree`.
    """
    if not path:
        raise PathRejected("path is empty")
    if "\0" in path:
        raise PathRejected("path contains a null byte")
    if path.startswith("/"):
        raise PathRejected("absolute paths are not allowed")
    joined = Path(os.path.normpath(root / path))
    try:
        is_within = joined.is_relative_to(os.path.normpath(root)) and joined.resolve().is_relative_to(
            root.resolve()
        )
    except (OSError, RuntimeError, UnicodeError) as error:
        raise PathRejected("path cannot be resolved") from error
    if not is_within:
        raise PathRejected("path escapes root")
    return joined


def workspace_directory(path: str) -> PurePosixPath:
    """Accept a directory of the operator for an agent (contract 06 §0.3, `validate_workspace_dir`)."""
    directory = PurePosixPath(path)
    if "\0" in path or ".." in path or not directory.is_absolute():
        raise PathRejected("invalid workspace directory")
    clean = PurePosixPath("/" + str(directory).lstrip("/"))
    if clean == PurePosixPath("/") or any(clean.is_relative_to(system) for system in SYSTEM_DIRECTORIES):
        raise PathRejected("invalid workspace directory")
    return clean


class Tree:
    """A directory whose content somebody else may change at any moment.

    Paths are relative to it; the empty path is the directory itself. Links are followed while they stay
    inside. Every method is one short system task, to be run in a thread by whoever serves a loop.
    """

    def __init__(self, root: Path, *, owner: tuple[int, int] | None = None) -> None:
        self._root = Path(os.path.realpath(root))
        self._owner = owner
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def stat(self, path: str) -> os.stat_result:
        """Look at what is there, its links followed; raises `FileNotFoundError`."""
        with self._found(path) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def open(self, path: str) -> int:
        """Open a regular file for reading; anything else in its place is refused."""
        with self._found(path) as (directory, name), _translated():
            # Opening a pipe that nobody writes to would wait for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=directory)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return fd
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "path is a directory", path)
        raise PathRejected("path is not a regular file")

    def open_directory(self, path: str) -> int:
        with self._found(path) as (directory, name), _translated():
            return os.open(name, _DIRECTORY, dir_fd=directory)

    def make_directory(self, path: str) -> None:
        """Create a directory and its parents; one that exists is fine."""
        with self._found(f"{path}/." if path else "", create=True):
            return

    def write(self, path: str, content: bytes | BinaryIO, mode: int = 0o644) -> None:
        """Replace a file as a whole, creating its parents. A link in its place is replaced, not followed."""
        with self.staged(path, content, mode):
            return

    @contextmanager
    def staged(self, path: str, content: bytes | BinaryIO, mode: int = 0o644) -> Iterator[None]:
        """Write a file beside its place and move it there when the block ends without an error."""
        with self._found(path, create=True, follow_last=False) as (directory, name):
            self._refuse_directory(directory, name, path)
            temporary = f".{secrets.token_hex(8)}.tmp"
            self._create(directory, temporary, content, mode)
            try:
                yield
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise

    def delete(self, path: str) -> None:
        """Remove a file, a link or a whole directory; never the root."""
        with self._found(path, follow_last=False) as (directory, name), _translated():
            if name == ".":
                raise PathRejected("the root itself cannot be deleted")
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                remove_directory(name, directory)
            else:
                os.unlink(name, dir_fd=directory)

    def _create(self, directory: int, name: str, content: bytes | BinaryIO, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with _translated(), os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
            shutil.copyfileobj(BytesIO(content) if isinstance(content, bytes) else content, file)
            os.fchmod(file.fileno(), mode)
            if self._owner:
                os.fchown(file.fileno(), *self._owner)

    @staticmethod
    def _refuse_directory(directory: int, name: str, path: str) -> None:
        try:
            present = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(present.st_mode):
            raise IsADirectoryError(errno.EISDIR, "path is a directory", path)

    @contextmanager
    def _found(
        self, path: str, *, create: bool = False, follow_last: bool = True
    ) -> Iterator[tuple[int, str]]:
        """The directory that holds the last component, open, and the name of that component in it."""
        open_directories = [os.dup(self._fd)]
        try:
            with _translated():
                name = self._descend(open_directories, path, create, follow_last)
            yield open_directories[-1], name
        finally:
            for fd in open_directories:
                os.close(fd)

    def _descend(self, open_directories: list[int], path: str, create: bool, follow_last: bool) -> str:
        if "\0" in path:
            raise PathRejected("path contains a null byte")
        if path.startswith("/"):
            raise PathRejected("absolute paths are not allowed")
        pending = deque(path.split("/"))
        links = 0
        while pending:
            part = pending.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if len(open_directories) == 1:
                    raise PathRejected("path escapes root")
                os.close(open_directories.pop())
                continue
            if not pending and not follow_last:
                return part
            if (target := _link_target(open_directories[-1], part)) is not None:
                links += 1
                if links > MAX_LINKS:
                    raise PathRejected("path has too many links")
                pending.extendleft(reversed(self._relative_target(open_directories, target)))
            elif not pending:
                return part
            else:
                open_directories.append(self._enter(open_directories[-1], part, create))
        return "."

    def _relative_target(self, open_directories: list[int], target: str) -> list[str]:
        """The components to walk for a link; an absolute one is walked from the root if it points inside."""
        if not target.startswith("/"):
            return target.split("/")
        if not PurePosixPath(target).is_relative_to(self._root):
            raise PathRejected("path escapes root")
        while len(open_directories) > 1:
            os.close(open_directories.pop())
        return str(PurePosixPath(target).relative_to(self._root)).split("/")

    def _enter(self, directory: int, name: str, create: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            if not create:
                raise
        try:
            os.mkdir(name, 0o755, dir_fd=directory)
        except FileExistsError:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        if self._owner:
            os.fchown(fd, *self._owner)
        return fd


def remove_directory(name: str | Path, dir_fd: int | None = None) -> None:
    """Remove a directory and all it holds, however deep, without following a link.

    Nested directories are moved up into the one that goes, so that depth costs neither stack nor
    descriptors. What disappears meanwhile is no error.
    """
    top = _open_to_empty(os.fspath(name), dir_fd)
    try:
        while nested := _unlink_files(top):
            for directory in nested:
                _dissolve(directory, top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _dissolve(name: str, top: int) -> None:
    fd = _open_to_empty(name, top)
    try:
        for inner in _unlink_files(fd):
            os.rename(inner, f".{secrets.token_hex(8)}", src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=top)


def _unlink_files(fd: int) -> list[str]:
    """Unlink every file of a directory and return the names of its directories."""
    with os.scandir(fd) as entries:
        names_by_kind: tuple[list[str], list[str]] = ([], [])
        for entry in entries:
            names_by_kind[entry.is_dir(follow_symlinks=False)].append(entry.name)
    files, directories = names_by_kind
    for name in files:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
    return directories


def _open_to_empty(name: str, dir_fd: int | None) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=dir_fd)
        return os.open(name, _DIRECTORY, dir_fd=dir_fd)


def _link_target(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # it is there and not a link
            return None
        raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the kernel says about a hostile or impossible path into a refusal."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise PathRejected("path is not valid text") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO):
            raise PathRejected("path cannot be used") from error
        raise
