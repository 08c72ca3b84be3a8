from __future__ import annotations

import ctypes
import os
import stat
import threading
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molecule_ai.kernel import paths
from molecule_ai.kernel.paths import PathRejected, Tree

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # renameat2(2)
SEGMENT = st.sampled_from(["a", "b", "..", ".", "", "link", "out", "abs", "..a", "a..b", "\0", "ü", " "])
HOSTILE = st.lists(SEGMENT, max_size=8).map("/".join) | st.text(max_size=30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with links that stay inside and links that lead out."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("inside")
    (root / "link").symlink_to("a")
    (root / "absolute").symlink_to(root / "a" / "file")
    (root / "out").symlink_to("..")
    (root / "abs").symlink_to("/etc")
    (root / "to-secret").symlink_to("../secret")
    (root / "loop").symlink_to("loop")
    return root


@given(HOSTILE)
def test_a_cleaned_path_stays_below_whatever_it_is_joined_to(path: str) -> None:
    try:
        clean = paths.relative(path)
    except PathRejected:
        return
    assert not clean.startswith("/")
    assert ".." not in PurePosixPath(clean).parts
    assert os.path.normpath(f"/root/{clean}").startswith("/root/")
    assert paths.relative(clean) == clean


@pytest.mark.parametrize(
    "path", ["", ".", "./", "/a", "../a", "a/../b", "a..b", "a/..", "a\0b", "\ud800", "//", "..", "/"]
)
def test_what_is_no_plain_relative_path_is_refused(path: str) -> None:
    with pytest.raises(PathRejected):
        paths.relative(path)


@pytest.mark.parametrize(
    ("path", "clean"), [("./x", "x"), ("a/./b", "a/b"), (".env", ".env"), ("a//b/", "a/b")]
)
def test_harmless_spellings_are_cleaned(path: str, clean: str) -> None:
    assert paths.relative(path) == clean


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "path is empty"),
        ("/etc", "absolute paths are not allowed"),
        ("..", "path escapes root"),
        ("a/../../x", "path escapes root"),
        ("../root-2", "path escapes root"),
        ("out/secret", "path escapes root"),
        ("abs/passwd", "path escapes root"),
        ("to-secret", "path escapes root"),
        ("a\0", "path contains a null byte"),
    ],
)
def test_a_join_that_leaves_the_root_is_refused(root: Path, path: str, reason: str) -> None:
    with pytest.raises(PathRejected, match=reason):
        paths.inside(root, path)


def test_a_join_that_stays_is_allowed_the_root_included(root: Path) -> None:
    assert paths.inside(root, ".") == root
    assert paths.inside(root, "link/file") == root / "link" / "file"
    assert paths.inside(root, "a/../new") == root / "new"


@pytest.mark.parametrize(
    "path", ["/etc", "/etc/x", "/usr/lib", "/", "relative", "/home/../etc", "//etc", "", "/a\0"]
)
def test_a_directory_of_the_system_is_no_workspace(path: str) -> None:
    with pytest.raises(PathRejected):
        paths.workspace_directory(path)


def test_other_absolute_directories_can_be_workspaces() -> None:
    assert paths.workspace_directory("/srv/project") == PurePosixPath("/srv/project")
    assert paths.workspace_directory("/etcetera") == PurePosixPath("/etcetera")


def read(tree: Tree, path: str) -> str:
    with os.fdopen(tree.open(path)) as file:
        return file.read()


@pytest.mark.parametrize("path", ["a/file", "link/file", "absolute", "a/b/../file", "link/../a/file"])
def test_links_are_followed_while_they_stay_inside(root: Path, path: str) -> None:
    with Tree(root) as tree:
        assert read(tree, path) == "inside"


@pytest.mark.parametrize(
    "path", ["to-secret", "out/secret", "abs/passwd", "loop", "../secret", "/etc/passwd", "a\0", "\ud800"]
)
def test_nothing_outside_is_read(root: Path, path: str) -> None:
    with Tree(root) as tree, pytest.raises(PathRejected):
        tree.open(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(path=HOSTILE)
def test_no_path_writes_or_deletes_outside(root: Path, path: str) -> None:
    with Tree(root) as tree:
        for act in (
            lambda: tree.write(path, b"x"),
            lambda: tree.make_directory(path),
            lambda: tree.delete(path),
        ):
            try:
                act()
            except (PathRejected, OSError):
                continue
    assert sorted(entry.name for entry in root.parent.iterdir()) == ["root", "secret"]
    assert (root.parent / "secret").read_text() == "outside"


def test_a_link_is_replaced_by_a_write_and_its_target_left_alone(root: Path) -> None:
    with Tree(root) as tree:
        tree.write("to-secret", b"mine", 0o600)
    assert (root.parent / "secret").read_text() == "outside"
    assert (root / "to-secret").read_text() == "mine"
    assert stat.S_IMODE((root / "to-secret").lstat().st_mode) == 0o600


def test_a_link_swapped_in_at_any_moment_leads_nowhere(root: Path) -> None:
    """One thread swaps a directory with a link to the outside while another reads and writes through it."""
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "file").write_text("outside")
    (root / "swap").mkdir()
    (root / "swap" / "file").write_text("inside")
    (root / "swap-link").symlink_to("../elsewhere")
    stop = threading.Event()

    def swap() -> None:
        libc = ctypes.CDLL(None)
        here, there = os.fsencode(root / "swap"), os.fsencode(root / "swap-link")
        while not stop.is_set():
            assert libc.renameat2(AT_FDCWD, here, AT_FDCWD, there, RENAME_EXCHANGE) == 0

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    with Tree(root) as tree:
        for _ in range(2_000):
            try:
                seen.add(read(tree, "swap/file"))
                tree.write("swap/new", b"x")
            except (PathRejected, FileNotFoundError):
                continue
    stop.set()
    swapper.join()
    assert seen == {"inside"}
    assert [entry.name for entry in (root.parent / "elsewhere").iterdir()] == ["file"]


def test_a_pipe_or_directory_is_not_read(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with Tree(root) as tree:
        with pytest.raises(PathRejected, match="regular"):
            tree.open("pipe")
        with pytest.raises(IsADirectoryError):
            tree.open("a")


def test_a_reader_sees_the_old_or_the_new_content(root: Path) -> None:
    with Tree(root) as tree, os.fdopen(tree.open("a/file")) as reader:
        tree.write("a/file", b"new")
        assert reader.read() == "inside"
        assert read(tree, "a/file") == "new"
        with pytest.raises(IsADirectoryError):
            tree.write("a", b"x")
        with pytest.raises(RuntimeError), tree.staged("a/file", b"half"):
            raise RuntimeError
        assert read(tree, "a/file") == "new"
    assert sorted(entry.name for entry in (root / "a").iterdir()) == ["b", "file"]


def test_the_root_itself_is_never_deleted(root: Path) -> None:
    with Tree(root) as tree:
        for path in ("", ".", "a/.."):
            with pytest.raises(PathRejected):
                tree.delete(path)
        tree.delete("link")
        tree.delete("a/file")
        with pytest.raises(FileNotFoundError):
            tree.delete("a/file")
    assert (root / "a").is_dir()


def test_a_very_deep_directory_is_removed_without_following_links(root: Path) -> None:
    fd = os.open(root / "a", os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("deep", dir_fd=fd)
        inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.symlink("/etc", "link", dir_fd=fd)
    os.close(fd)
    with Tree(root) as tree:
        tree.delete("a")
    assert not (root / "a").exists()
    assert Path("/etc/passwd").exists()
