"""Where the files of an installation and of a workspace are, and how a start prepares them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
from msgspec import Struct

from molecule_ai.kernel.paths import Tree, relative, remove_directory
from molecule_ai.provisioners.base import Handle, Launch, Root, WorkspaceAccess
from molecule_ai.provisioners.errors import NoConfigSource, StartFailed

TOKEN_FILE = ".auth_token"  # noqa: S105 - a file name
INBOUND_SECRET_FILE = ".platform_inbound_secret"  # noqa: S105 - a file name
CREDENTIALS = frozenset({TOKEN_FILE, INBOUND_SECRET_FILE})
CONFIG_FILE = "config.yaml"
SNAPSHOT_FILE = ".agent_snapshot.json"
SESSION_DIRECTORY = ".claude/sessions"  # of the claude-code runtime, below its home


class Layout(Struct, frozen=True):
    """The directories of one workspace. They need not exist."""

    base: Path

    @property
    def configs(self) -> Path:
        return self.base / "configs"

    @property
    def workspace(self) -> Path:
        return self.base / "workspace"

    @property
    def plugins(self) -> Path:
        return self.base / "plugins"

    @property
    def temporary(self) -> Path:
        return self.base / "tmp"

    @property
    def output(self) -> Path:
        return self.base / "agent.log"

    @property
    def handle(self) -> Path:
        return self.base / "handle.json"

    def root(self, root: Root) -> Path:
        match root:
            case Root.CONFIGS:
                return self.configs
            case Root.PLUGINS:
                return self.plugins
            case Root.WORKSPACE | Root.HOME | Root.AGENT_HOME:
                return self.workspace

    def prepare(self, launch: Launch) -> Path:
        """Make the directories and write what the launch brings; return the agent's own directory."""
        for directory in (self.base, self.configs, self.workspace, self.plugins, self.temporary):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with Tree(self.configs) as configs:
            _write_configs(configs, launch)
            if not _exists(configs, CONFIG_FILE):
                raise NoConfigSource("there is no config.yaml for this workspace")
            configs.write(TOKEN_FILE, launch.token.encode(), 0o600)
            if launch.inbound_secret is not None:
                configs.write(INBOUND_SECRET_FILE, launch.inbound_secret.encode(), 0o600)
        if launch.reset_session:
            self._forget_session()
        return self._own_directory(launch)

    def remember(self, handle: Handle) -> None:
        """Keep the handle beside the files, for a start that is repeated; without it, one starts anew."""
        try:
            write_private(self.handle, msgspec.json.encode(handle))
        except OSError as error:
            import structlog  # slow to load, and a call in a container loads this module each time

            structlog.get_logger(__name__).warning("handle_not_kept", path=str(self.handle), error=str(error))

    def recall(self) -> Handle | None:
        with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(self.handle.read_bytes(), type=Handle)
        return None

    def purge(self) -> None:
        with suppress(FileNotFoundError):
            remove_directory(self.base)

    def _forget_session(self) -> None:
        for root, path in ((self.configs, SNAPSHOT_FILE), (self.workspace, SESSION_DIRECTORY)):
            with Tree(root) as tree, suppress(FileNotFoundError):
                tree.delete(path)

    def _own_directory(self, launch: Launch) -> Path:
        if launch.workspace_dir is None or launch.workspace_access is WorkspaceAccess.NONE:
            return self.workspace
        if launch.workspace_access is WorkspaceAccess.READ_ONLY:
            # A process without a container could write there all the same.
            raise StartFailed("read-only access to a directory needs a container back end")
        directory = Path(launch.workspace_dir)
        if not directory.is_dir():
            raise StartFailed("the workspace directory does not exist")
        return directory


def _write_configs(configs: Tree, launch: Launch) -> None:
    files: Mapping[str, bytes] = {relative(path): content for path, content in launch.config_files.items()}
    if refused := CREDENTIALS & files.keys():
        raise StartFailed(f"{sorted(refused)[0]} is written by the platform alone")
    for path, content in files.items():
        if launch.overwrite or not _exists(configs, path):
            configs.write(path, content)


def _exists(tree: Tree, path: str) -> bool:
    try:
        tree.stat(path)
    except FileNotFoundError:
        return False
    return True


def write_private(path: Path, content: bytes) -> None:
    """Replace a file of ours as a whole; a reader sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    temporary.rename(path)


def node_id(home: Path) -> str:
    """The name of this machine's part of the installation, made when it is first asked for."""
    path = home / "node-id"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(2):
        with suppress(FileNotFoundError):
            if name := path.read_text("ascii").strip():
                return name
        temporary = path.with_name(f".node-id.{secrets.token_hex(8)}")
        temporary.write_text(f"{uuid4()}\n")
        with suppress(FileExistsError):  # of several processes at once, the first one names the node
            os.link(temporary, path)
        temporary.unlink()
    raise StartFailed(f"{path} is empty")


def workspaces_of(home: Path) -> Path:
    return home / "workspaces"


def layout_of(home: Path, workspace_id: UUID) -> Layout:
    return Layout(workspaces_of(home) / str(workspace_id))
