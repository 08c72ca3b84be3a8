"""Who is told what by one process."""

from molecule_ai.server.app import Server
from molecule_ai.server.auth.principal import Kind, Principal
from molecule_ai.server.events.delivery import Bundle
from molecule_ai.server.events.hub import GOING_AWAY
from tests.support import add_workspace


class Subscriber:
    """Keeps why it was closed."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.codes: list[int] = []

    def offer(self, bundle: Bundle) -> None:
        raise AssertionError("nothing happens here")

    def close(self, code: int) -> None:
        self.codes.append(code)

    def watch(self) -> None:
        pass


async def test_who_comes_in_while_the_process_goes_away_is_told_so(server: Server) -> None:
    hub, workspace_id = server.hub, await add_workspace(server)
    early, late, late_agent, late_stream = (Subscriber(Principal(kind=Kind.ADMIN)) for _ in range(4))
    hub.join(early, None)
    hub.close_all()
    hub.join(late, None)
    hub.join(late_agent, workspace_id)
    hub.join_stream(late_stream, workspace_id)
    assert [s.codes for s in (early, late, late_agent, late_stream)] == [[GOING_AWAY]] * 4
