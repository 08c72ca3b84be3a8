"""What holds across the real worker processes of one server."""

import asyncio

import psutil

from tests.conftest import ADMIN_TOKEN, MakeServer
from tests.support import add_workspace, bearer, serve


async def test_a_revoked_token_is_refused_a_thousand_times_by_every_worker(
    make_server: MakeServer, dsn: str
) -> None:
    workspace_id = await add_workspace(await make_server())
    async with serve(dsn, workers=2) as served, served.client(ADMIN_TOKEN) as admin, served.client() as agent:
        assert len(served.worker_pids()) == 2
        minted = (await admin.post(f"/workspaces/{workspace_id}/tokens")).json()

        async def ask() -> int:
            answer = await agent.get(
                f"/workspaces/{workspace_id}/tokens", headers=bearer(minted["auth_token"])
            )
            return answer.status_code

        assert {await ask() for _ in range(20)} == {200}
        await admin.delete(f"/workspaces/{workspace_id}/tokens/{minted['id']}")
        refused = [status for _ in range(20) for status in await asyncio.gather(*(ask() for _ in range(50)))]
        assert len(refused) == 1000
        assert set(refused) == {401}
        assert all(_talks(pid) for pid in served.worker_pids())


def _talks(pid: int) -> bool:
    """Whether a worker has one of the connections over which we asked."""
    return any(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process(pid).net_connections("tcp"))
