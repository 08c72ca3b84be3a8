"""Everything that can be answered to a client.

    ApiError
    ├── InvalidRequest      400   the request cannot be understood
    │   └── TooLarge        413
    ├── Unauthenticated     401   no credential, or one that proves nothing
    ├── NotPermitted        403   known caller, not allowed
    ├── NotFound            404   absent, or not yours to know
    │   └── Gone            410
    ├── Conflict            409   right request, wrong state
    │   ├── BudgetExceeded  402
    │   └── Unprocessable   422
    ├── RateLimited         429   come back after `retry_after` seconds
    ├── NotOffered          501   this installation has no back end for it
    └── Unavailable         503   a dependency is away; safe to retry
        ├── BadGateway      502
        └── Timeout         504

A room subclasses these and owns the exact text of the contract (contract 01 §2). The docstring of a
class is its default text, `code` is the stable machine-readable name.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApiError(Exception):
    """internal server error"""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(
        self, text: str | None = None, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        self.text = text or (type(self).__doc__ or "").strip()
        self.extra = extra
        self.headers = headers or {}
        super().__init__(self.text)

    def body(self) -> dict[str, Any]:
        """`{"error": text, "code": code, ...extra}`; an extra key may replace `code`."""
        return {"error": self.text, "code": self.code, **self.extra}


class InvalidRequest(ApiError):
    """invalid request body"""

    status = 400
    code = "invalid_request"


class TooLarge(InvalidRequest):
    """request body too large"""

    status = 413
    code = "too_large"


class Unauthenticated(ApiError):
    """unauthenticated"""

    status = 401
    code = "unauthenticated"

    def __init__(
        self, text: str | None = None, *, headers: dict[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(text, headers=headers, **extra)
        # RFC 9110 §11.6.1 asks for a challenge, RFC 6750 §3.1 for what was wrong with a token.
        reason = ', error="invalid_token"' if self.code.startswith("invalid_") else ""
        self.headers.setdefault("WWW-Authenticate", f'Bearer realm="molecule"{reason}')


class NotPermitted(ApiError):
    """not permitted"""

    status = 403
    code = "not_permitted"


class NotFound(ApiError):
    """not found"""

    status = 404
    code = "not_found"


class Gone(NotFound):
    """gone"""

    status = 410
    code = "gone"


class Conflict(ApiError):
    """conflict"""

    status = 409
    code = "conflict"


class BudgetExceeded(Conflict):
    """workspace budget limit exceeded"""

    status = 402
    code = "budget_exceeded"


class Unprocessable(Conflict):
    """unprocessable"""

    status = 422
    code = "unprocessable"


class RateLimited(ApiError):
    """rate limit exceeded"""

    status = 429
    code = "rate_limited"


class NotOffered(ApiError):
    """not available on this deployment"""

    status = 501
    code = "not_offered"


class Unavailable(ApiError):
    """service unavailable — retry shortly"""

    status = 503
    code = "unavailable"


class DatastoreUnavailable(Unavailable):
    """platform datastore unavailable — retry shortly"""

    code = "platform_unavailable"


class BadGateway(Unavailable):
    """upstream failed"""

    status = 502
    code = "bad_gateway"


class Timeout(Unavailable):
    """upstream timed out"""

    status = 504
    code = "timeout"
