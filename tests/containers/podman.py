"""A container engine of the tests' own: Podman's Docker API on a private socket.

Its storage, its socket and its settings are apart from whatever else uses Podman on the machine, and the
image is kept between runs, under a name that changes with everything it is made of.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from tests.containers import rootfs

SETTINGS = """\
[engine]
runtime = "runc-without-rlimits"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
runc-without-rlimits = ["{home}/runc-without-rlimits"]
"""
# Podman's service gives every container a number of processes that root may not raise to inside a
# container or a small virtual machine, and nothing but the runtime's own file can take it back.
RUNTIME = """\
#!/bin/sh
previous=
for word; do
    case $previous in
        --bundle | -b) sed -i -E 's/\\{{"type":"RLIMIT_NPROC"[^}}]*\\}},?//; s/,\\]/]/' "$word/config.json" ;;
    esac
    previous=$word
done
exec runc "$@"
"""
STORAGE = """\
[storage]
driver = "{driver}"
graphroot = "{home}/graph"
runroot = "{home}/run"
"""
PROGRAMS = ("podman", "runc", "catatonit", "ldd")
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman"
TRIAL = ("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:4096")
START_SECONDS = 20.0
COMMAND_SECONDS = 120.0
TURN_SECONDS = 300.0
KEPT_IMAGES = 4


class NoEngine(Exception):
    """Why containers cannot run here."""


class Podman:
    """One engine: a folder, and a service on a socket in it while `serving`."""

    def __init__(self, home: Path, driver: str) -> None:
        self.home = home
        self.socket = home / "engine.sock"
        self._environment = {
            "PATH": PROGRAM_PATH,
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "CONTAINERS_CONF": str(home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
            "LC_ALL": "C.UTF-8",
        }
        for name in ("tmp", "graph", "run"):
            (home / name).mkdir(parents=True, exist_ok=True)
        (home / "containers.conf").write_text(SETTINGS.format(home=home))
        runtime = home / "runc-without-rlimits"
        runtime.write_text(RUNTIME.format())
        runtime.chmod(0o700)
        (home / "storage.conf").write_text(STORAGE.format(driver=driver, home=home))

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def run(self, *arguments: str, timeout: float = COMMAND_SECONDS) -> str:
        """Raises `NoEngine` with what Podman said."""
        done = subprocess.run(
            ["podman", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise NoEngine(f"podman {arguments[0]}: {done.stderr.strip()[-400:]}")
        return done.stdout

    @cached_property
    def image(self) -> str:
        """The agent's image, made when it is not there. Raises `NoEngine`."""
        reference = f"localhost/molecule-agent:{rootfs.digest()}"
        with (self.home / "image.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.run("images", "--quiet", reference).strip():
                with tempfile.TemporaryDirectory(dir=self.home / "tmp") as folder:
                    archive = Path(folder) / "rootfs.tar"
                    rootfs.build(archive)
                    command = 'CMD ["python3", "-m", "molecule_ai.runtime"]'
                    changes = ("--change", command, "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin")
                    self.run("import", *changes, str(archive), reference)
                self._forget_older_images()
        return reference

    def _forget_older_images(self) -> None:
        """Several checkouts may take turns; more than a few images would only fill the disk."""
        columns = ("--sort", "created", "--format", "{{.Repository}}:{{.Tag}}")
        known = self.run("images", *columns, "--filter", "reference=localhost/molecule-agent").split()
        if known[KEPT_IMAGES:]:
            self.run("rmi", "--force", *known[KEPT_IMAGES:])

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer on the socket; at the end nothing that was started is left."""
        self.socket.unlink(missing_ok=True)
        with (self.home / "service.log").open("ab") as output:
            process = subprocess.Popen(
                ["podman", "system", "service", "--time", "0", self.url],
                cwd=self.home,  # the monitor of a container that ran out of memory leaves a file there
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not self.socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NoEngine(f"podman system service: {(self.home / 'service.log').read_text()[-400:]}")
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def clear(self) -> None:
        """Remove every container and volume; the image stays."""
        for attempt in range(5):
            try:
                self.run("rm", "--all", "--force", "--volumes", "--time", "0")
                break
            except NoEngine:  # one that ends by itself at this moment cannot be stopped
                if attempt == 4:
                    raise
                time.sleep(0.5)
        self.run("volume", "rm", "--all", "--force")
        self.run("network", "prune", "--force")


@contextmanager
def engine() -> Iterator[Podman]:
    """The tests' engine, for one process at a time. Raises `NoEngine`, which says why there is none."""
    if os.geteuid() != 0:
        raise NoEngine("containers are run as root")
    for program in PROGRAMS:
        if shutil.which(program, path=PROGRAM_PATH) is None and program != "catatonit":
            raise NoEngine(f"{program} is not installed")
    home = Path(tempfile.gettempdir()) / "molecule-test-engine"
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "engine.lock").open("w") as lock:
        _wait_for_turn(lock.fileno())
        podman = Podman(home, _driver(home))
        podman.clear()
        podman.run(*TRIAL, podman.image, "python3", "-c", "import molecule_ai", timeout=60)
        with podman.serving():
            try:
                yield podman
            finally:
                podman.clear()


def _wait_for_turn(lock: int) -> None:
    deadline = time.monotonic() + TURN_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise NoEngine("other tests hold the engine") from None
            time.sleep(0.1)


def _driver(home: Path) -> str:
    """Overlay does not stand on itself: where temporary files are in one, content is copied."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        _, place, kind = line.split()[:3]
        if str(home).startswith(place.rstrip("/") + "/"):
            return "vfs" if kind in ("overlay", "tmpfs") else "overlay"
    return "vfs"
