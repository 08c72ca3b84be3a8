"""The workspace token, and the secret by which the agent knows the platform."""

import hmac
from pathlib import Path

from molecule_ai.runtime.files import read_text, write_private

TOKEN_FILE = ".auth_token"  # noqa: S105  (a file name)
INBOUND_SECRET_FILE = ".platform_inbound_secret"  # noqa: S105  (a file name)


class Credentials:
    """The token of this workspace; the file wins over the environment, because it can change."""

    def __init__(self, config_dir: Path, from_environment: str) -> None:
        self._path = config_dir / TOKEN_FILE
        self._inbound_path = config_dir / INBOUND_SECRET_FILE
        self._from_environment = from_environment
        self._refused = ""
        self.token = self._stored() or from_environment
        self._inbound = (read_text(self._inbound_path) or "").strip()

    def save(self, token: str) -> None:
        """Keep a token that the platform has just minted."""
        self.token = token
        write_private(self._path, token)

    def save_inbound(self, secret: str) -> None:
        """Keep the secret that the platform will present."""
        if secret != self._inbound:
            self._inbound = secret
            write_private(self._inbound_path, secret)

    def refresh(self, refused: str) -> bool:
        """After a 401 look for another token; False when there is none to try."""
        if self.token != refused:
            return True  # another call has found it meanwhile
        for candidate in (self._stored(), self._from_environment):
            if candidate and candidate not in (refused, self._refused):
                self._refused, self.token = refused, candidate
                return True
        return False

    def accepts(self, authorization: str) -> bool:
        """Say whether a request is the platform's, or carries this workspace's own token; fails closed."""
        presented = authorization.removeprefix("Bearer ").strip()
        if not presented:
            return False
        known = (self._inbound, self.token, self._stored())
        return any(hmac.compare_digest(presented.encode(), one.encode()) for one in known if one)

    def _stored(self) -> str:
        return (read_text(self._path) or "").strip()
