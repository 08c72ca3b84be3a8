"""A root filesystem for test images, made of what runs the tests: no registry, no package mirror.

It holds this interpreter, the libraries of an agent, this source tree and a few commands of the system.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
AGENT_REQUIREMENTS = ("aiohttp", "a2a-sdk[http-server]", "msgspec", "psutil", "pyyaml", "structlog")
COMMANDS = ("sh", "cat", "env", "id", "ln", "ls", "mkdir", "setsid", "sleep")
MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr where the system has merged them
NOT_NEEDED = {"ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter"}
USER = 1000
STUB = "/opt/agent_stub.py"
STUB_SOURCE = ROOT / "tests" / "provisioners" / "agent_stub.py"


def build(target: Path) -> None:
    """Write the archive of a root filesystem."""
    with tarfile.open(target, "w") as tar:
        _directories(tar)
        for source, name in _content():
            tar.add(source, name.lstrip("/"), recursive=False)


def digest() -> str:
    """What the archive depends on: the sources, the libraries, the interpreter and this file."""
    known = hashlib.sha256(f"{sys.version}{sys.base_prefix}".encode())
    sources = sorted((ROOT / "src").rglob("*"))
    for path in [Path(__file__), STUB_SOURCE, *sources]:
        if path.is_file() and "__pycache__" not in path.parts:
            known.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for found in _distributions():
        known.update(f"{found.name}{found.version}".encode())
    return known.hexdigest()[:16]


def _content() -> Iterator[tuple[Path, str]]:
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = base / "lib" / version
    interpreter = base / "bin" / version
    commands = [Path(found) for name in COMMANDS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    files = [*_files_below(library), *_files_of_packages()]
    shared = [path for path in files if ".so" in path.name]
    yield interpreter, str(interpreter)
    yield interpreter, "/usr/local/bin/python3"
    for path in files:
        yield path, _place(path, library)
    for path in commands:
        yield path.resolve(), f"/usr/bin/{path.name}"
    for needed in _libraries([interpreter, *commands, *shared]):
        # Under the name by which the loader looks for it, at the place that the merged directories lead to.
        yield needed.resolve(), str(needed.parent.resolve() / needed.name)
    yield STUB_SOURCE, STUB
    for path in _files_below(ROOT / "src" / "molecule_ai"):
        yield path, f"{library}/site-packages/molecule_ai/{path.relative_to(ROOT / 'src' / 'molecule_ai')}"


def _place(path: Path, library: Path) -> str:
    """Where a file of this installation is in the image: all packages go to the one `site-packages`."""
    parts = path.parts
    if "site-packages" not in parts:
        return str(path)
    below = parts[parts.index("site-packages") + 1 :]
    return str(library / "site-packages" / Path(*below))


def _directories(tar: tarfile.TarFile) -> None:
    for name in MERGED:
        if Path(f"/{name}").is_symlink():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
    for name, mode, owner in (
        ("tmp", 0o1777, 0), ("etc", 0o755, 0), ("root", 0o755, 0), ("plugins", 0o755, USER),
        ("configs", 0o700, USER), ("workspace", 0o700, USER), ("home", 0o755, 0), ("home/agent", 0o700, USER),
    ):  # fmt: skip
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
        tar.addfile(folder)
    _file(tar, "etc/passwd", f"root:x:0:0::/root:/bin/sh\nagent:x:{USER}:{USER}::/home/agent:/bin/sh\n")
    _file(tar, "etc/group", f"root:x:0:\nagent:x:{USER}:\n")


def _file(tar: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text)
    tar.addfile(member, io.BytesIO(text.encode()))


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_wanted = not NOT_NEEDED & set(path.relative_to(folder).parts) and path.suffix != ".a"
        if is_wanted and path.is_file():
            yield path


def _files_of_packages() -> Iterator[Path]:
    for distribution in _distributions():
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file():
                yield path


def _distributions() -> list[metadata.Distribution]:
    """The libraries of an agent and everything that they require here."""
    found: dict[str, metadata.Distribution] = {}
    pending = [Requirement(text) for text in AGENT_REQUIREMENTS]
    while pending:
        requirement = pending.pop()
        name = requirement.name.lower().replace("_", "-")
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    return [found[name] for name in sorted(found)]


def _libraries(binaries: list[Path]) -> set[Path]:
    listed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", listed)}
