"""What can go wrong with a secret, in the words of contract 05 §4."""

from __future__ import annotations

from molecule_ai.kernel.errors import ApiError, InvalidRequest, NotFound


class InvalidSecretKey(InvalidRequest):
    """invalid secret key"""

    code = "INVALID_SECRET_KEY"


class ReservedSecretKey(InvalidRequest):
    """reserved secret key"""

    code = "RESERVED_SECRET_KEY"


class InvalidSecretValue(InvalidRequest):
    """a secret value is 1 byte to 64 KiB of text"""

    code = "INVALID_SECRET_VALUE"


class InvalidDelivery(InvalidRequest):
    """delivery must be environment, command or broker"""

    code = "INVALID_SECRET_DELIVERY"


class TooManySecrets(InvalidRequest):
    """at most 200 secrets per store"""

    code = "TOO_MANY_SECRETS"


class SecretNotFound(NotFound):
    """secret not found"""

    code = "secret_not_found"


class SecretsBroken(ApiError):
    """one or more secrets failed to decrypt; refusing to return partial bundle"""

    code = "SECRET_DECRYPT"
