from pathlib import Path

import pytest

from molecule_ai.host.lock import AlreadyRunning, HomeLock, running_server


def test_one_server_per_home(tmp_path: Path) -> None:
    assert running_server(tmp_path) is None
    lock = HomeLock(tmp_path)
    lock.describe("http://127.0.0.1:8080")
    with pytest.raises(AlreadyRunning, match="8080"):
        HomeLock(tmp_path)
    running = running_server(tmp_path)
    assert running is not None
    assert running.url == "http://127.0.0.1:8080"
    lock.release()
    assert running_server(tmp_path) is None
    HomeLock(tmp_path).release()
