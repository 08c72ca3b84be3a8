from __future__ import annotations

from uuid import uuid4

import pytest

from molecule_ai.provisioners.base import Handle, Provisioner
from molecule_ai.provisioners.errors import NoBackend
from molecule_ai.provisioners.none import NoProvisioner

from .conftest import make_launch


async def test_without_a_back_end_nothing_starts_and_nothing_has_to_end() -> None:
    provisioner: Provisioner = NoProvisioner()
    handle = Handle(instance_id=uuid4(), url="", node="")
    with pytest.raises(NoBackend) as refusal:
        await provisioner.start(make_launch())
    assert refusal.value.code == "NO_BACKEND"
    await provisioner.stop(uuid4(), handle)
    await provisioner.remove(uuid4(), handle, purge=True)
    assert not await provisioner.is_running(handle)
    assert await provisioner.find_orphans({}) == []
    with pytest.raises(NoBackend):
        provisioner.files(uuid4())
    await provisioner.close()
