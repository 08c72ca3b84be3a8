"""Takes the secrets that an agent was given out of what it says, before anybody else reads it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from molecule_ai.kernel.db import Connection, Database

CHANNEL = "molecule_secrets"
MASK = "[REDACTED:SECRET]"
SHORTEST = 8  # characters; shorter values would blot out ordinary words
FORMER = 64  # values of a workspace that are remembered after they changed: the agent may still print them

Opened = Callable[[Connection, Sequence[UUID]], Awaitable[Mapping[UUID, Sequence[str]]]]
FindHolders = Callable[[Connection], Awaitable["Holders"]]


class Mask:
    """The values of one workspace, as texts and as they look inside of JSON."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = frozenset(value for value in values if len(value) >= SHORTEST)
        longest_first = sorted(self.values, key=len, reverse=True)
        self._texts = re.compile("|".join(map(re.escape, longest_first)))
        written = {msgspec.json.encode(value)[1:-1] for value in self.values} | {
            value.encode() for value in self.values
        }
        self._bytes = re.compile(b"|".join(map(re.escape, sorted(written, key=len, reverse=True))))

    def text(self, text: str) -> str:
        return self._texts.sub(MASK, text)

    def value(self, value: Any) -> Any:
        """The same value, or a copy without secrets."""
        match value:
            case str():
                return self.text(value) if len(value) >= SHORTEST else value
            case dict():
                return {key: self.value(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.value(inner) for inner in value]
            case msgspec.Raw():
                return msgspec.Raw(self._bytes.sub(MASK.encode(), bytes(value)))
            case _:
                return value


class Holders(Struct, frozen=True):
    """Who has secrets at all."""

    everybody: bool
    some: frozenset[UUID]

    def __contains__(self, workspace_id: object) -> bool:
        return self.everybody or workspace_id in self.some


class Redaction:
    """Knows the open values of whoever speaks; a notification makes every process read them again."""

    def __init__(self, db: Database, opened: Opened, holders: FindHolders) -> None:
        self._db = db
        self._opened = opened
        self._find_holders = holders
        self._version = 0
        self._holders: Holders | None = None
        self._masks: dict[UUID, Mask] = {}
        self._shared: dict[frozenset[str], Mask] = {}
        self._former: dict[UUID, frozenset[str]] = {}

    def forget(self, _payload: str = "") -> None:
        """Some secret changed."""
        self._version += 1
        self._holders = None
        self._former |= {workspace_id: mask.values for workspace_id, mask in self._masks.items()}
        self._masks.clear()
        self._shared.clear()

    async def clean(self, speakers: Sequence[UUID | None], value: Any, tx: Connection | None = None) -> Any:
        """`value`, text or what becomes JSON, without the secrets of these workspaces."""
        if not _says_something(value):
            return value
        for workspace_id in dict.fromkeys(speakers):
            mask = None if workspace_id is None else await self._mask(workspace_id, tx)
            if mask is not None and mask.values:
                value = mask.value(value)
        return value

    async def prepare(self, speakers: Sequence[UUID | None], tx: Connection) -> None:
        """Read at once what `clean` will need for these workspaces."""
        unknown = {one for one in speakers if one is not None and one not in self._masks}
        if self._holders is not None:
            unknown = {one for one in unknown if one in self._holders}
        if unknown:
            await self._load(sorted(unknown), tx)

    async def _mask(self, workspace_id: UUID, tx: Connection | None) -> Mask | None:
        known = self._masks.get(workspace_id)
        if known is not None:
            return known
        if self._holders is not None and not (workspace_id in self._holders or workspace_id in self._former):
            return None
        if tx is not None:
            return (await self._load([workspace_id], tx))[workspace_id]
        async with self._db.connection() as connection:
            return (await self._load([workspace_id], connection))[workspace_id]

    async def _load(self, workspace_ids: Sequence[UUID], connection: Connection) -> Mapping[UUID, Mask]:
        """What is read while a change arrives is used once and not kept."""
        version = self._version
        holders = self._holders or await self._find_holders(connection)
        some = [workspace_id for workspace_id in workspace_ids if workspace_id in holders]
        opened = await self._opened(connection, some) if some else {}
        masks = {}
        for workspace_id in workspace_ids:
            former = sorted(self._former.get(workspace_id, ()))[:FORMER]
            values = frozenset([*opened.get(workspace_id, ()), *former])
            masks[workspace_id] = self._shared.get(values) or Mask(values)
            if version == self._version:
                self._shared[values] = masks[workspace_id]
        if version == self._version:
            self._holders = holders
            self._masks |= {one: mask for one, mask in masks.items() if one in holders or mask.values}
        return masks


def _says_something(value: Any) -> bool:
    """Whether there is any text in it that could hold a secret."""
    match value:
        case str() | bytes():
            return len(value) >= SHORTEST
        case dict():
            return any(_says_something(inner) for inner in value.values())
        case list() | tuple():
            return any(_says_something(inner) for inner in value)
        case msgspec.Raw():
            return True
        case _:
            return False
