from __future__ import annotations

import io
import tarfile
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from molecule_ai.kernel.archives import ArchiveRejected
from molecule_ai.kernel.errors import ApiError
from molecule_ai.kernel.paths import PathRejected
from molecule_ai.provisioners.base import Root, WorkspaceFiles
from molecule_ai.provisioners.errors import (
    CommandNotFound,
    FileMissing,
    FileProtected,
    FileTooLarge,
    IsDirectory,
)

from .backends import Backend, make_launch
from .conftest import wait_for

TOKEN = "t" * 43


@pytest.fixture
async def workspace_id(backend: Backend) -> UUID:
    """A workspace with credentials and a link out of each root; its agent does not run."""
    launch = make_launch(inbound_secret="inbound")
    handle = await backend.provisioner.start(launch)
    await backend.provisioner.stop(launch.workspace_id, handle, grace=0)
    files = backend.provisioner.files(launch.workspace_id)
    planted = await files.exec(["sh", "-c", 'ln -s / out; ln -s / "$WORKSPACE_CONFIG_PATH/out"'])
    assert planted.exit_code == 0, planted.stderr
    return launch.workspace_id


@pytest.fixture
def files(backend: Backend, workspace_id: UUID) -> WorkspaceFiles:
    return backend.provisioner.files(workspace_id)


async def test_what_is_written_is_read_byte_for_byte(files: WorkspaceFiles) -> None:
    content = b"\xff\x00 \n trailing \n"
    await files.write(Root.CONFIGS, "deep/er/file.bin", content, mode=0o755)
    assert await files.read(Root.CONFIGS, "deep/er/file.bin") == content
    entry = await files.stat(Root.CONFIGS, "deep/er/file.bin")
    assert entry is not None
    assert (entry.size, entry.is_dir, entry.mode) == (len(content), False, 0o755)
    assert await files.stat(Root.CONFIGS, "missing") is None


@pytest.mark.parametrize("root", [Root.CONFIGS, Root.WORKSPACE])
async def test_no_verb_leaves_its_root(files: WorkspaceFiles, root: Root) -> None:
    for path in ("../x", "/etc/passwd", "out/x", "a/../../x", "", ".", "a..b", "x\0"):
        for act in (
            lambda path=path: files.read(root, path),
            lambda path=path: files.write(root, path, b"x"),
            lambda path=path: files.write_many(root, {"fine": b"", path: b"x"}),
            lambda path=path: files.delete(root, path),
        ):
            with pytest.raises(ApiError) as refusal:
                await act()
            assert refusal.value.status == 400
    assert await files.stat(root, "fine") is None


async def test_bad_questions_get_answers_that_name_them(files: WorkspaceFiles) -> None:
    await files.write(Root.WORKSPACE, "dir/file", b"12345")
    with pytest.raises(FileMissing, match="file not found"):
        await files.read(Root.WORKSPACE, "missing")
    with pytest.raises(FileMissing):
        await files.delete(Root.WORKSPACE, "missing")
    with pytest.raises(IsDirectory, match="path is a directory"):
        await files.read(Root.WORKSPACE, "dir")
    with pytest.raises(IsDirectory):
        await files.write(Root.WORKSPACE, "dir", b"")
    with pytest.raises(FileTooLarge):
        await files.read(Root.WORKSPACE, "dir/file", max_bytes=4)
    with pytest.raises(PathRejected):
        await files.read(Root.WORKSPACE, "dir/file/below")


async def test_credentials_are_out_of_reach_by_any_name(files: WorkspaceFiles) -> None:
    tricks = "ln .auth_token innocent; ln -s .auth_token linked; ln -s . around"
    assert (await files.exec(["sh", "-c", tricks], root=Root.CONFIGS)).exit_code == 0
    for path in (".auth_token", "./.auth_token", ".platform_inbound_secret", "innocent", "linked"):
        with pytest.raises(FileProtected):
            await files.read(Root.CONFIGS, path)
    for path in (".auth_token", "around/.auth_token", ".platform_inbound_secret"):
        with pytest.raises(FileProtected):
            await files.write(Root.CONFIGS, path, b"stolen")
        with pytest.raises(FileProtected):
            await files.delete(Root.CONFIGS, path)
    with await files.tar_out(Root.CONFIGS) as packed:
        content = packed.read()
    assert b"config.yaml" in content
    assert TOKEN.encode() not in content
    assert b"inbound" not in content
    planted = io.BytesIO()
    with tarfile.open(fileobj=planted, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(".auth_token"))
    with pytest.raises(ArchiveRejected):
        await files.tar_in(Root.CONFIGS, "", planted)
    kept = await files.exec(["cat", ".auth_token"], root=Root.CONFIGS)
    assert kept.stdout.decode() == TOKEN


async def test_a_listing_goes_as_deep_as_asked_and_skips_what_nobody_wants(files: WorkspaceFiles) -> None:
    for path in ("a/b/c/file", "a/file", "node_modules/x/y", ".git/HEAD", ".DS_Store", "z"):
        await files.write(Root.WORKSPACE, path, b"x")

    async def listed(path: str = "", depth: int = 1) -> list[str]:
        return [entry.path for entry in await files.list(Root.WORKSPACE, path, depth=depth)]

    assert await listed() == [".git", "a", "node_modules", "out", "z"]
    assert await listed(depth=2) == [".git", "a", "a/b", "a/file", "node_modules", "out", "z"]
    assert await listed("a", depth=5) == ["b", "b/c", "b/c/file", "file"]
    assert await listed("missing") == []


async def test_many_files_are_written_all_or_none(files: WorkspaceFiles) -> None:
    await files.write_many(Root.CONFIGS, {"a": b"1", "d/b": b"2"})
    await files.write(Root.CONFIGS, "is/a-directory", b"")
    with pytest.raises(IsDirectory):
        await files.write_many(Root.CONFIGS, {"a": b"new", "is": b"in the way"})
    assert await files.read(Root.CONFIGS, "a") == b"1"
    await files.write_many(Root.CONFIGS, {"a": b"3", "config.yaml": b"name: x"}, prune=True)
    assert await files.read(Root.CONFIGS, "a") == b"3"
    assert await files.stat(Root.CONFIGS, "d/b") is None
    assert await files.stat(Root.CONFIGS, ".auth_token") is not None


async def test_a_directory_travels_as_an_archive(files: WorkspaceFiles) -> None:
    await files.write(Root.WORKSPACE, "skill/SKILL.md", b"# skill")
    await files.write(Root.WORKSPACE, "skill/run.sh", b"#!/bin/sh", mode=0o755)
    with await files.tar_out(Root.WORKSPACE, "skill") as packed:
        assert await files.tar_in(Root.PLUGINS, "copy", packed) == 2
    assert await files.read(Root.PLUGINS, "copy/SKILL.md") == b"# skill"


async def test_a_workspace_that_never_started_has_no_files_but_takes_some(backend: Backend) -> None:
    files = backend.provisioner.files(uuid4())
    assert await files.list(Root.CONFIGS) == []
    with pytest.raises(FileMissing):
        await files.read(Root.CONFIGS, "config.yaml")
    await files.write(Root.CONFIGS, "config.yaml", b"name: x")
    assert await files.read(Root.CONFIGS, "config.yaml") == b"name: x"


async def test_a_command_runs_beside_the_agent_without_secrets(files: WorkspaceFiles, canary: str) -> None:
    await files.write(Root.WORKSPACE, "mine", b"")
    result = await files.exec(["sh", "-c", "cat; env; ls; echo oops >&2; exit 3"], stdin=b"hello\n")
    assert result.exit_code == 3
    assert result.stdout.startswith(b"hello\n")
    assert result.stdout.endswith(b"mine\nout\n")
    assert result.stderr == b"oops\n"
    assert TOKEN.encode() not in result.stdout
    assert canary.encode() not in result.stdout


async def test_nothing_of_a_command_outlives_its_call(files: WorkspaceFiles, backend: Backend) -> None:
    background = await files.exec(["sh", "-c", "sleep 600 & setsid sleep 600 & echo done"])
    assert (background.exit_code, background.stdout) == (0, b"done\n")
    late = await files.exec(["sh", "-c", "sleep 600 & exec sleep 600"], timeout=timedelta(seconds=0.3))
    assert late.timed_out
    assert late.exit_code != 0

    async def is_over() -> bool:
        return await backend.living() == 0

    await wait_for(is_over)


async def test_output_is_cut_at_its_limit_and_said_to_be(files: WorkspaceFiles) -> None:
    result = await files.exec(["python3", "-c", "print('x' * 500_000)"], max_output_bytes=1_000)
    assert (len(result.stdout), result.truncated, result.exit_code) == (1_000, True, 0)


async def test_an_unknown_command_is_refused(files: WorkspaceFiles) -> None:
    with pytest.raises(CommandNotFound, match="no-such-command"):
        await files.exec(["no-such-command"])
