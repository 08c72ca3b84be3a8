import multiprocessing
import multiprocessing.synchronize
import os
import time
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


def _hold(home: Path, seconds: float, ready: multiprocessing.synchronize.Event) -> None:
    lock = HomeLock(home)
    lock.describe("http://127.0.0.1:8080")
    if os.fork() == 0:
        ready.set()
        time.sleep(seconds)
        os._exit(0)
    os._exit(0)


def test_the_workers_of_a_killed_server_are_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    main = context.Process(target=_hold, args=(tmp_path, 1.0, ready))
    main.start()
    main.join()
    assert ready.wait(30)
    HomeLock(tmp_path).release()
