from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from molecule_ai.kernel.archives import (
    ArchiveRejected,
    ArchiveTooLarge,
    TarLimits,
    pack,
    unpack,
)
from molecule_ai.kernel.paths import PathRejected, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").write_text("outside")
    with Tree(tmp_path / "root") as tree:
        yield tree


@pytest.fixture
def root(tmp_path: Path, tree: Tree) -> Path:
    return tmp_path / "root"


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer


def member(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    return info


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_what_is_packed_unpacks_the_same(tree: Tree, root: Path) -> None:
    (root / "src" / "empty").mkdir(parents=True)
    (root / "src" / "run.sh").write_text("#!/bin/sh")
    (root / "src" / "run.sh").chmod(0o755)
    (root / "src" / ("long" * 40)).write_bytes(os.urandom(100_000))
    (root / "src" / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "src" / "pipe")
    with pack(tree, "src") as packed:
        assert unpack(tree, "copy", packed) == 2
    assert names(root / "copy") == ["empty", "long" * 40, "run.sh"]
    assert (root / "copy" / ("long" * 40)).read_bytes() == (root / "src" / ("long" * 40)).read_bytes()
    assert os.access(root / "copy" / "run.sh", os.X_OK)


def test_packing_is_repeatable_and_names_no_user(tree: Tree, root: Path) -> None:
    (root / "b").write_text("b")
    (root / "a").mkdir()
    with pack(tree) as first, pack(tree) as second:
        content = first.read()
        assert content == second.read()
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert {(info.uid, info.uname) for info in tar} == {(0, "")}


def test_what_is_excluded_is_not_packed(tree: Tree, root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "token").write_text("secret")
    (root / "d" / "other").write_text("other")
    with pack(tree, "d", excludes=lambda path, _: path == "d/token") as packed:
        content = packed.read()
    assert b"other" in content
    assert b"secret" not in content


def test_a_compressed_archive_unpacks(tree: Tree, root: Path) -> None:
    compressed = io.BytesIO(gzip.compress(archive((member("a/b"), b"x")).getvalue()))
    assert unpack(tree, "", compressed) == 1
    assert (root / "a" / "b").read_text() == "x"


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/etc/cron.d/x"),
        member("a/../../outside"),
        member("link", tarfile.SYMTYPE, link="/etc"),
        member("hard", tarfile.LNKTYPE, link="../outside"),
        member("device", tarfile.CHRTYPE),
        member("block", tarfile.BLKTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("x" * 600),
    ],
    ids=lambda info: info.name[:20],
)
def test_one_bad_entry_condemns_the_whole_archive(tree: Tree, root: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises((ArchiveRejected, PathRejected)):
        unpack(tree, "", archive((member("good"), b"x"), (bad, b"")))
    assert names(root) == []
    assert (root.parent / "outside").read_text() == "outside"


def test_a_link_in_the_target_does_not_lead_out(tree: Tree, root: Path) -> None:
    (root / "dir").symlink_to("..")
    with pytest.raises(PathRejected):
        unpack(tree, "", archive((member("dir/outside"), b"x")))
    assert (root.parent / "outside").read_text() == "outside"


def test_entries_bytes_and_expansion_are_limited(tree: Tree, root: Path) -> None:
    with pytest.raises(ArchiveTooLarge, match="entries"):
        unpack(tree, "", archive(*((member(f"f{n}"), b"") for n in range(5))), TarLimits(max_entries=4))
    with pytest.raises(ArchiveTooLarge):
        unpack(
            tree, "", archive((member("a"), b"x" * 60), (member("b"), b"x" * 60)), TarLimits(max_bytes=100)
        )
    bomb = io.BytesIO(gzip.compress(archive((member("zeros"), bytes(64 * 1024 * 1024))).getvalue()))
    with pytest.raises((ArchiveTooLarge, ArchiveRejected)):
        unpack(tree, "", bomb, TarLimits(max_entries=1, max_bytes=1024))
    assert names(root) == []


def test_a_header_that_promises_too_much_is_refused(tree: Tree) -> None:
    lying = member("big")
    lying.size = 1 << 40
    with pytest.raises(ArchiveTooLarge):
        unpack(tree, "", io.BytesIO(lying.tobuf() + bytes(1024)))
    oversized = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    oversized.size = 1 << 30
    with pytest.raises(ArchiveRejected, match="oversized header"):
        unpack(tree, "", io.BytesIO(oversized.tobuf() + bytes(1024)))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x1f\x8b", b"not a tar" * 200, gzip.compress(b"x" * 600, mtime=0)[:-9]]
)
def test_nonsense_is_a_refusal_or_empty(tree: Tree, root: Path, content: bytes) -> None:
    with suppress(ArchiveRejected):
        assert unpack(tree, "", io.BytesIO(content)) == 0
    assert names(root) == []


def test_a_cut_archive_leaves_nothing(tree: Tree, root: Path) -> None:
    whole = archive((member("a"), b"x" * 5_000), (member("b"), b"y" * 5_000)).getvalue()
    with pytest.raises(ArchiveRejected):
        unpack(tree, "", io.BytesIO(whole[:8_000]))
    assert names(root) == []


def test_a_file_never_takes_the_place_of_a_directory(tree: Tree, root: Path) -> None:
    (root / "a").mkdir()
    (root / "b").write_text("b")
    for bad in (member("a"), member("b", tarfile.DIRTYPE)):
        with pytest.raises(ArchiveRejected):
            unpack(tree, "", archive((member("new"), b""), (bad, b"")))
    assert names(root) == ["a", "b"]


def test_too_much_is_not_packed(tree: Tree, root: Path) -> None:
    (root / "big").write_bytes(bytes(100_000))
    with pytest.raises(ArchiveTooLarge):
        pack(tree, max_bytes=50_000)
    deep = root
    for _ in range(70):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(ArchiveTooLarge):
        pack(tree)
