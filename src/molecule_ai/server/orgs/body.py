"""The body of `POST /org/import` in each of its shapes (contract 06 §3.2)."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.exceptions import SerializationException
from msgspec import Struct

from molecule_ai.kernel.errors import InvalidRequest
from molecule_ai.kernel.http import decode

from .errors import DocumentTooLarge, InvalidMode, NothingToImport, ReconcileNotOffered, SourceNotOffered
from .limits import MAX_DOCUMENT_BYTES
from .schemas import OrgImport

_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
_DOCUMENT_KEYS = ("workspaces", "roots")


class Request(Struct, frozen=True, kw_only=True):
    """What to import and how; exactly one of `directory`, `text` and `document` is set.

    `name_or_text` is a text that may also be the name of a directory.
    """

    directory: str | None = None
    name_or_text: str | None = None
    text: str | None = None
    document: dict[str, Any] | None = None
    force: bool = False
    mode: str = "merge"
    dry_run: bool = False


def parse(body: bytes, content_type: str, query: OrgImport) -> Request:
    """Understand a body; `query` holds the options of a body that is YAML itself."""
    if len(body) > MAX_DOCUMENT_BYTES:
        raise DocumentTooLarge(max_bytes=MAX_DOCUMENT_BYTES)
    if content_type.partition(";")[0].strip().lower() in _YAML:
        return Request(text=_text(body), force=query.force, mode=_mode(query.mode), dry_run=query.dry_run)
    try:
        value = decode(body)
    except (SerializationException, UnicodeDecodeError) as problem:
        raise InvalidRequest from problem
    if not isinstance(value, dict):
        raise InvalidRequest
    if any(key in value for key in _DOCUMENT_KEYS):
        return Request(document=value, force=query.force, mode=_mode(query.mode), dry_run=query.dry_run)
    try:
        asked = msgspec.convert(value, OrgImport)
    except msgspec.ValidationError as problem:
        raise InvalidRequest from problem
    return _request(asked)


def _request(asked: OrgImport) -> Request:
    if asked.source:
        raise SourceNotOffered
    options: dict[str, Any] = {
        "force": asked.force,
        "mode": _mode(asked.mode),
        "dry_run": asked.dry_run,
    }
    if asked.dir:
        return Request(directory=asked.dir, **options)
    if isinstance(asked.template, dict):
        return Request(document=asked.template, **options)
    if isinstance(asked.template, str) and asked.template.strip():
        return Request(name_or_text=asked.template, **options)
    if asked.yaml and asked.yaml.strip():
        return Request(text=asked.yaml, **options)
    raise NothingToImport


def _mode(text: str) -> str:
    if text in ("", "merge"):
        return "merge"
    raise ReconcileNotOffered if text == "reconcile" else InvalidMode


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InvalidRequest from problem
    if not text.strip():
        raise NothingToImport
    return text
