"""What can go wrong when credentials are minted and revoked (contract 01 §10 to 13.1)."""

from __future__ import annotations

from molecule_ai.kernel.errors import InvalidRequest, NotFound, RateLimited


class TokenNotFound(NotFound):
    """token not found or already revoked"""

    code = "token_not_found"


class TooManyTokens(RateLimited):
    """maximum 50 active tokens per workspace"""

    code = "too_many_tokens"


class MintLimited(RateLimited):
    """rate limit exceeded"""

    code = "mint_limited"


class NameTooLong(InvalidRequest):
    """name too long (max 100 chars)"""

    code = "name_too_long"


class UnknownScope(InvalidRequest):
    """unknown scope"""

    code = "unknown_scope"


class InvalidExpiry(InvalidRequest):
    """expires_in_days must be between 1 and 3650"""

    code = "invalid_expiry"


class UnknownRole(InvalidRequest):
    """role must be admin, editor or reader"""

    code = "unknown_role"


class InvalidBinding(InvalidRequest):
    """workspace_ids must name 1 to 100 workspaces of this organization"""

    code = "invalid_binding"
