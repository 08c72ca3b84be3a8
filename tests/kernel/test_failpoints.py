"""Points at which a test kills a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REACH = "import sys; from molecule_ai.kernel.failpoints import reach; [reach(p) for p in sys.argv[1:]]"


def reach(*points: str, **environment: str) -> int:
    """The exit status of a process that reaches these points."""
    return subprocess.run([sys.executable, "-c", REACH, *points], env=environment, check=False).returncode


def test_an_armed_point_kills_at_its_count() -> None:
    assert reach("a", "b", MOLECULE_FAILPOINTS="b") == -signal.SIGKILL
    assert reach("b", MOLECULE_FAILPOINTS="b:2") == 0
    assert reach("b", "b", MOLECULE_FAILPOINTS="b:2") == -signal.SIGKILL
    assert reach("a", "b") == 0


def test_a_point_armed_in_the_folder_kills_one_process_once(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    folder = str(tmp_path)
    assert reach("b", MOLECULE_FAILPOINTS_DIR=folder) == 0
    assert reach("a", MOLECULE_FAILPOINTS_DIR=folder) == -signal.SIGKILL
    assert reach("a", MOLECULE_FAILPOINTS_DIR=folder) == 0
