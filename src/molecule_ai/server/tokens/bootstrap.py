"""The operator's first credential where none was configured (contract 01 §5.2)."""

from __future__ import annotations

from pathlib import Path

from molecule_ai.kernel import log
from molecule_ai.kernel.crypto import create_whole, mint_token
from molecule_ai.server.settings import Settings

FILE = "admin-token"


def admin_token(home: Path) -> tuple[str, bool]:
    """The token in `home/admin-token` and whether it was made just now. Raises `OSError`.

    All processes of one home share it: the file appears complete or not at all, and whoever comes
    second reads the first one's.
    """
    file = home / FILE
    home.mkdir(parents=True, exist_ok=True)
    if file.exists():
        existing = _read(file)
        if existing:
            return existing, False
        file.unlink(missing_ok=True)
    made = mint_token()
    create_whole(file, f"{made}\n".encode())
    kept = _read(file)
    return kept, kept == made


def bootstrap_token(settings: Settings) -> str:
    """What the server itself takes like an admin token; "" where an operator has other means."""
    if settings.admin_token.strip() or settings.strict or settings.saas:
        return ""
    try:
        token, is_new = admin_token(settings.home)
    except (OSError, UnicodeDecodeError) as problem:
        log.get().warning("bootstrap_admin_token_unavailable", error=str(problem))
        return ""
    if is_new:
        log.get().warning("bootstrap_admin_token_created", file=str(settings.home / FILE))
    return token


def _read(file: Path) -> str:
    return file.read_text(encoding="ascii").strip()
