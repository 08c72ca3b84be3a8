"""The causal chain of a message: where it began, and the way it took (moonshot 3).

A chain travels as `params.message.metadata.molecule`. An agent passes on what it received; whatever it
says, the platform counts on from what it knows of the task that the agent has under way, so that an agent
that strips the metadata does not leave the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

METADATA_KEY = "molecule"
_LONGEST_PATH = 256  # far beyond every limit; bounds what an agent can make us store


class Chain(Struct, frozen=True, kw_only=True):
    """The chain of one message. `path` names the workspaces behind it, oldest first, not the target."""

    chain_id: UUID
    parent_id: Annotated[str, Meta(max_length=256)] = ""
    """The messageId of the message that caused this one; "" at the root."""
    depth: Annotated[int, Meta(ge=0)] = 0
    """How deep the chain is nested: a message back to somebody on the path goes up again."""
    hops: Annotated[int, Meta(ge=0)] = 0
    """Messages between agents so far, this one included."""
    path: Annotated[tuple[UUID, ...], Meta(max_length=_LONGEST_PATH)] = ()

    def metadata(self) -> dict[str, Any]:
        """The chain as JSON, as it travels in the message."""
        return {
            "chain_id": str(self.chain_id),
            "parent_id": self.parent_id,
            "depth": self.depth,
            "hops": self.hops,
            "path": [str(workspace_id) for workspace_id in self.path],
        }

    def onward(self, caller: UUID, target: UUID, *, parent_id: str) -> Chain:
        """The chain of what `caller` sends to `target` while it works on a message of this chain."""
        path = (*self.path, caller)[-_LONGEST_PATH:]
        return Chain(
            chain_id=self.chain_id,
            parent_id=parent_id,
            depth=nesting((*path, target)),
            hops=max(self.hops + 1, len(path)),
            path=path,
        )


class Task(Struct, frozen=True, kw_only=True):
    """A message that a workspace has under way."""

    holder: UUID
    message_id: str
    chain_id: UUID
    depth: int
    hops: int
    path: tuple[UUID, ...]
    children: int

    @property
    def chain(self) -> Chain:
        return Chain(chain_id=self.chain_id, depth=self.depth, hops=self.hops, path=self.path)


class Limits(Struct, frozen=True, kw_only=True):
    """Where a chain ends: far above what a working org does, far below a night of looping."""

    depth: int = 16
    hops: int = 32
    visits: int = 8
    fan_out: int = 64
    pair_per_minute: int = 120


class Exceeded(Struct, frozen=True):
    """Which limit a message would break."""

    reason: str
    limit: int


def root(chain_id: UUID) -> Chain:
    """The chain of a message that no other message caused."""
    return Chain(chain_id=chain_id)


def claimed(message: dict[str, Any] | None) -> Chain | None:
    """The chain that a message says it belongs to; None when it says nothing that can be read."""
    metadata = (message or {}).get("metadata")
    told = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(told, dict):
        return None
    try:
        return msgspec.convert(told, Chain)
    except msgspec.ValidationError:
        return None


def cause(said: Chain | None, tasks: Sequence[Task]) -> Task | None:
    """The task of the caller that made it send a message, newest task last in `tasks`.

    Of the chain that the message names the deepest; without a name the newest task, and when all tasks
    belong to one chain its deepest.
    """
    if said is not None:
        of_chain = [task for task in tasks if task.chain_id == said.chain_id]
        return max(of_chain, key=lambda task: task.hops, default=None)
    if len({task.chain_id for task in tasks}) == 1:
        return max(tasks, key=lambda task: task.hops)
    return tasks[-1] if tasks else None


def follow(caller: UUID, target: UUID, said: Chain | None, task: Task | None, *, fresh: UUID) -> Chain:
    """The chain of a message from an agent, from what it says and what it is seen doing."""
    if task is not None:
        known = task.chain
        if said is not None and said.hops > known.hops:
            known = said  # it may count further than we saw, never less far
        return known.onward(caller, target, parent_id=task.message_id)
    if said is not None:
        return said.onward(caller, target, parent_id=said.parent_id)
    return root(fresh).onward(caller, target, parent_id="")


def exceeded(chain: Chain, target: UUID, limits: Limits, *, siblings: int = 0) -> Exceeded | None:
    """The first limit that a message of `chain` to `target` breaks; `siblings` have the same parent."""
    if chain.hops > limits.hops:
        return Exceeded("hops", limits.hops)
    if chain.depth > limits.depth:
        return Exceeded("depth", limits.depth)
    if chain.path.count(target) >= limits.visits:
        return Exceeded("cycle", limits.visits)
    if siblings >= limits.fan_out:
        return Exceeded("fan_out", limits.fan_out)
    return None


def nesting(path: Sequence[UUID]) -> int:
    """How deep the last of `path` lies when a return to somebody on the way is a way up."""
    stack: list[UUID] = []
    for workspace_id in path:
        if workspace_id in stack:
            del stack[stack.index(workspace_id) + 1 :]
        else:
            stack.append(workspace_id)
    return len(stack) - 1
