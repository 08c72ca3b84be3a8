"""The keys that seal secrets: from the settings, else from a file in the home."""

from __future__ import annotations

from molecule_ai.kernel.crypto import Keyring, KeyUnusable, create_key_file
from molecule_ai.server.settings import BadSetting, Settings

FILE_NAME = "secrets.key"


def keyring(settings: Settings) -> Keyring:
    """The installation's keyring. Raises `BadSetting`; production never makes a key of its own."""
    given = settings.secrets_encryption_keys or settings.secrets_encryption_key
    try:
        if given:
            return Keyring.parse(given)
        if settings.production:
            raise BadSetting("SECRETS_ENCRYPTION_KEY must be set in production")
        return create_key_file(settings.home / FILE_NAME)
    except OSError as problem:
        raise BadSetting(f"SECRETS_ENCRYPTION_KEY is not set and {FILE_NAME} cannot be made") from problem
    except KeyUnusable as problem:
        raise BadSetting(f"SECRETS_ENCRYPTION_KEY: {problem}") from problem
