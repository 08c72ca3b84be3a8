"""What an agent printed, without the secrets that it was given."""

from __future__ import annotations

from uuid import UUID

from molecule_ai.kernel import log
from molecule_ai.kernel.errors import ApiError
from molecule_ai.provisioners.base import Provisioner
from molecule_ai.provisioners.errors import Elsewhere, NoBackend, ProvisionError
from molecule_ai.server.secrets.service import Secrets

from .lifecycle_errors import ConsoleElsewhere, NoConsole

TAIL_BYTES = 8192
MAX_CONSOLE_BYTES = 256 * 1024


class BootLog:
    """Reads the end of an agent's output through its provisioner."""

    def __init__(self, provisioner: Provisioner, secrets: Secrets) -> None:
        self._provisioner = provisioner
        self._secrets = secrets
        self._log = log.get()

    async def tail(self, workspace_id: UUID) -> str:
        """The last lines for a report of a failure; "" when they cannot be had."""
        try:
            text = await self._provisioner.logs(workspace_id, TAIL_BYTES)
            return await self._redacted(workspace_id, text)
        except (ProvisionError, ApiError, OSError) as error:
            self._log.debug("boot_log_unavailable", workspace_id=str(workspace_id), error=str(error))
            return ""

    async def console(self, workspace_id: UUID, tail_bytes: int) -> str:
        """The last output for an operator. Raises `NoConsole` and `ConsoleElsewhere`."""
        try:
            text = await self._provisioner.logs(workspace_id, min(max(tail_bytes, 1), MAX_CONSOLE_BYTES))
        except NoBackend as none:
            raise NoConsole from none
        except Elsewhere as elsewhere:
            raise ConsoleElsewhere from elsewhere
        return await self._redacted(workspace_id, text)

    async def _redacted(self, workspace_id: UUID, text: str) -> str:
        cleaned: str = await self._secrets.redaction.clean([workspace_id], text)
        return cleaned
