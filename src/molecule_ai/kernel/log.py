"""Structured logs: an event name and fields, one JSON object per line, or coloured text for a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_SECRET_FIELDS = frozenset({"token", "auth_token", "secret", "password", "authorization", "cookie", "key"})


def _mask_secrets(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for field in _SECRET_FIELDS & event.keys():
        event[field] = "***"
    return event


def configure(*, level: str = "info", json: bool | None = None) -> None:
    """Set up logging for this process; `json` defaults to "not a terminal". Logs go to standard error."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask_secrets,
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(message)s")


def get() -> structlog.typing.FilteringBoundLogger:
    """Return the logger; fields bound with `structlog.contextvars` appear on every line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger
