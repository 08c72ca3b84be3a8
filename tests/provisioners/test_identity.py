from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from msgspec import structs

from molecule_ai.provisioners.local import identity, scan
from molecule_ai.provisioners.local.identity import Identity

from .conftest import wait_for

HOME_ID = f"home-{os.getpid()}"  # other workers of the tests look for marked processes too


@pytest.fixture(params=["proc", "psutil"], autouse=True)
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read processes from /proc, and the way systems without it are read."""
    monkeypatch.setattr(identity, "HAS_PROC", request.param == "proc")
    monkeypatch.setattr(scan, "HAS_PROC", request.param == "proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    marks = {
        "MOLECULE_HOME_ID": HOME_ID,
        "WORKSPACE_ID": "11111111-1111-4111-8111-111111111111",
        "MOLECULE_INSTANCE_ID": "22222222-2222-4222-8222-222222222222",
    }
    child = subprocess.Popen(["sleep", "600"], env=marks, start_new_session=True)
    yield child
    child.kill()
    child.wait()


def identified(pid: int) -> Identity:
    found = identity.identify(pid)
    assert found is not None
    return found


def test_a_process_is_alive_by_its_whole_identity_only(child: subprocess.Popen[bytes]) -> None:
    known = identified(child.pid)
    assert identity.is_alive(known)
    assert not identity.is_alive(structs.replace(known, started_at=known.started_at - 1))
    assert not identity.is_alive(structs.replace(known, boot_id="earlier"))
    assert not identity.is_alive(structs.replace(known, pid=os.getpid()))


async def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    known = identified(child.pid)
    child.kill()
    await wait_for(lambda: not identity.is_alive(known))
    assert child.returncode is None
    child.wait()
    assert identity.identify(child.pid) is None


def test_a_signal_reaches_the_one_it_is_for_and_nobody_else(child: subprocess.Popen[bytes]) -> None:
    known = identified(child.pid)
    impostor = structs.replace(known, started_at=known.started_at - 1)
    assert not identity.send(impostor, signal.SIGKILL)
    assert not identity.send_to_group(impostor, signal.SIGKILL)
    assert child.poll() is None
    assert identity.send(known, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert not identity.send(known, signal.SIGKILL)


def test_a_group_is_signalled_through_its_living_leader_only() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    known = identified(leader.pid)
    assert identity.send_to_group(known, signal.SIGTERM)
    assert leader.wait() == -signal.SIGTERM
    assert not identity.send_to_group(known, signal.SIGKILL)
    assert not identity.send_to_group(identified(os.getpid()), signal.SIGCONT) or os.getpgid(0) == os.getpid()


def test_marked_processes_are_found_with_their_age(child: subprocess.Popen[bytes]) -> None:
    [found] = scan.marked(HOME_ID)
    assert found.identity == identified(child.pid)
    assert found.leads
    assert not found.is_owned
    assert 0 <= scan.age_seconds(found.identity) < 60
    assert scan.marked(HOME_ID[:-1]) == []
