import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from molecule_ai.cli.main import GROUPS, VERBS, hoist


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


def molecule(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "MOLECULE_HOME": str(home), "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "molecule_ai.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=own | environment,
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


def test_the_overview_says_what_the_verbs_say() -> None:
    for module, line in GROUPS.values():
        assert import_module(f"molecule_ai.cli.{module}").app.info.help == line
    for verb, line in VERBS.items():
        command = getattr(import_module(f"molecule_ai.cli.{verb}"), verb)
        assert str(command.__doc__).partition("\n")[0] == line


def test_the_overview_names_every_verb_and_loads_none(tmp_path: Path) -> None:
    result = molecule("--help", home=tmp_path)
    assert result.returncode == 0
    assert all(f" {verb} " in result.stdout for verb in (*GROUPS, *VERBS, "up", "serve"))
    code = (
        "import sys; sys.argv = ['molecule', '--help']\n"
        "from molecule_ai.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('httpx', 'yaml', 'asyncpg', 'molecule_ai.cli.workspaces') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert loaded.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "offered"), [("molecule work", "workspace"), ("molecule workspace hib", "hibernate")]
)
def test_the_shell_completes_verbs(tmp_path: Path, line: str, offered: str) -> None:
    program = Path(sys.executable).with_name("molecule")
    result = subprocess.run(
        [str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "_MOLECULE_COMPLETE": "complete_zsh",
            "_TYPER_COMPLETE_ARGS": line,
        },
    )
    assert offered in result.stdout, result.stderr
