"""The admin token of an installation: made once, kept in a file only its owner reads."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def admin_token(home: Path) -> tuple[str, bool]:
    """The token in `home/admin-token` and whether it was made just now."""
    file = home / "admin-token"
    home.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        existing = file.read_text().strip()
        if existing:
            return existing, False
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
    token = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as out:
        out.write(token + "\n")
        out.flush()
        os.fsync(out.fileno())
    return token, True
