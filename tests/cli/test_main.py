import json
import subprocess
import sys
from pathlib import Path

import pytest

from molecule_ai.cli.main import hoist


@pytest.mark.parametrize(
    ("given", "hoisted"),
    [
        (["workspace", "list", "--json"], (["--json"], ["workspace", "list"])),
        (["workspace", "list", "-o", "yaml"], (["-o", "yaml"], ["workspace", "list"])),
        (["api", "GET", "/x", "--token=t"], (["--token=t"], ["api", "GET", "/x"])),
        (["workspace", "ask", "id", "--", "--json"], ([], ["workspace", "ask", "id", "--", "--json"])),
        (["--output"], (["--output"], [])),
    ],
)
def test_options_of_the_first_level_may_stand_anywhere(
    given: list[str], hoisted: tuple[list[str], list[str]]
) -> None:
    assert hoist(given) == hoisted


def molecule(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "molecule_ai.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "MOLECULE_HOME": str(home), "HOME": str(home)},
        cwd=home,
        check=False,
    )


def test_the_doctor_finds_this_machine_in_order(tmp_path: Path) -> None:
    result = molecule("doctor", "--json", home=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {"python", "database", "home", "memory"} <= {row["check"] for row in json.loads(result.stdout)}


def test_nobody_there_is_one_line_and_status_1(tmp_path: Path) -> None:
    result = molecule("workspace", "list", "--api-url", "http://127.0.0.1:9", home=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: cannot reach http://127.0.0.1:9/workspaces")
    assert result.stdout == ""


def test_an_unknown_verb_is_status_2(tmp_path: Path) -> None:
    assert molecule("workspace", "frobnicate", home=tmp_path).returncode == 2
