"""Where an agent listens."""

from __future__ import annotations

from molecule_ai.runtime.server import open_listener
from molecule_ai.runtime.settings import read_settings
from tests.support import free_port


def test_the_port_of_the_environment_wins_over_that_of_the_configuration() -> None:
    port = free_port()
    settings = read_settings({"WORKSPACE_ID": "w", "AGENT_HOST": "127.0.0.1", "AGENT_PORT": str(port)})
    with open_listener(settings, 1) as listener:
        assert listener.getsockname() == ("127.0.0.1", port)
