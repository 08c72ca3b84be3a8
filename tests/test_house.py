"""What holds for the repository as a whole."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import molecule_ai

ROOT = Path(__file__).parent.parent

# Assembled, so that this file does not contain what it forbids.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("deb", "debian", "org"),
        ("repo1", "maven", "org"),
    )
]
WORKPLACE = re.compile(r"(?<![\w./$])/wor[k]/")
HOME = re.compile(r"(?<![\w./$])/(?:root|home/\w+|Users/\w+)/")


def tracked_text() -> list[tuple[Path, str]]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    files = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                files.append((path, content.decode()))
    return files


def test_the_changelog_knows_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert project["version"] == molecule_ai.__version__
    assert headings[0] == "Unreleased"
    if len(headings) > 1:
        assert headings[1] == molecule_ai.__version__


def test_no_tracked_file_names_a_package_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path, text in tracked_text()
        for host in REGISTRIES
        if host in text
    ]
    assert found == []


def test_no_tracked_file_names_a_place_on_somebodys_machine() -> None:
    found = []
    for path, text in tracked_text():
        name = path.relative_to(ROOT).as_posix()
        # Tests may speak of home directories: as what a path must not reach.
        patterns = [WORKPLACE] if name.startswith("tests/") else [WORKPLACE, HOME]
        found += [f"{name}: {match.group()}" for pattern in patterns for match in pattern.finditer(text)]
    assert found == []


def test_the_links_of_the_documents_lead_somewhere() -> None:
    broken = []
    for path, text in tracked_text():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
                if not (path.parent / target).exists():
                    broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []
