from itertools import pairwise
from uuid import UUID, uuid4

import pytest

from molecule_ai.server.mailbox import chain as chains
from molecule_ai.server.mailbox.chain import Chain, Exceeded, Limits, Task

A, B, C, D = (UUID(int=n) for n in range(1, 5))
LIMITS = Limits()


def task(chain: Chain, *, children: int = 0) -> Task:
    return Task(
        holder=uuid4(),
        message_id="m",
        chain_id=chain.chain_id,
        depth=chain.depth,
        hops=chain.hops,
        path=chain.path,
        children=children,
    )


def walk(*workspaces: UUID, chain: Chain | None = None) -> Chain:
    """The chain of the last message when each workspace answers a message by writing to the next."""
    current = chain
    for caller, target in pairwise(workspaces):
        under_way = task(current) if current is not None else None
        current = chains.follow(caller, target, None, under_way, fresh=UUID(int=99))
    assert current is not None
    return current


def test_a_message_without_a_cause_begins_its_own_chain() -> None:
    chain = chains.follow(A, B, None, None, fresh=UUID(int=99))
    assert (chain.chain_id, chain.hops, chain.depth, chain.path) == (UUID(int=99), 1, 1, (A,))


def test_the_chain_goes_on_without_any_word_of_the_agents() -> None:
    chain = walk(A, B, C)
    assert (chain.path, chain.hops, chain.depth) == ((A, B), 2, 2)


def test_a_way_back_up_is_not_deeper() -> None:
    assert walk(A, B, C, B).depth == 1
    assert walk(A, B, A, B, A, B).depth == 1
    assert walk(A, B, A, B, A, B).hops == 5


def test_an_agent_cannot_count_itself_younger() -> None:
    chain = walk(A, B, C)
    said = Chain(chain_id=chain.chain_id, hops=0, path=())
    assert chains.follow(C, D, said, task(chain), fresh=uuid4()).hops == 3


def test_a_loop_ends_at_the_hop_limit() -> None:
    limits = Limits(hops=7, visits=100)
    ring = [A, B, C] * 5
    for length in range(2, len(ring)):
        chain = walk(*ring[:length])
        broken = chains.exceeded(chain, ring[length - 1], limits)
        if length - 1 > 7:
            assert broken == Exceeded("hops", 7)
            return
        assert broken is None
    pytest.fail("the loop never ended")


def test_coming_back_too_often_is_a_cycle() -> None:
    limits = Limits(visits=2)
    assert chains.exceeded(walk(A, B, A), A, limits) is None
    assert chains.exceeded(walk(A, B, A, B, A), A, limits) == Exceeded("cycle", 2)


def test_depth_and_fan_out_have_limits_of_their_own() -> None:
    line = [UUID(int=n) for n in range(10, 30)]
    assert chains.exceeded(walk(*line), line[-1], LIMITS) == Exceeded("depth", 16)
    assert chains.exceeded(walk(A, B), B, LIMITS, siblings=64) == Exceeded("fan_out", 64)
    assert chains.exceeded(walk(A, B), B, LIMITS, siblings=63) is None


def test_the_cause_is_the_task_of_the_named_chain_else_the_newest() -> None:
    one, other = task(walk(A, B)), task(Chain(chain_id=uuid4()))
    assert chains.cause(one.chain, [one, other]) is one
    assert chains.cause(None, [one, other]) is other
    assert chains.cause(Chain(chain_id=uuid4()), [one, other]) is None
    assert chains.cause(None, []) is None


def test_of_one_chain_the_deepest_task_is_the_cause() -> None:
    chain = Chain(chain_id=uuid4())
    deep = task(Chain(chain_id=chain.chain_id, hops=4, path=(A, B, A, B)))
    assert chains.cause(None, [deep, task(chain)]) is deep


@pytest.mark.parametrize(
    "told",
    [
        None,
        7,
        {},
        {"chain_id": "x"},
        {"chain_id": str(A), "hops": -1},
        {"chain_id": str(A), "path": ["nobody"]},
        {"chain_id": str(A), "path": [str(A)] * 300},
    ],
)
def test_what_cannot_be_read_is_no_chain(told: object) -> None:
    assert chains.claimed({"metadata": {"molecule": told}}) is None


def test_a_chain_survives_its_own_metadata() -> None:
    chain = walk(A, B, C)
    assert chains.claimed({"metadata": {"molecule": chain.metadata()}}) == chain
