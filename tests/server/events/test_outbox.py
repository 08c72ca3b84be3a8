from datetime import UTC, datetime
from uuid import UUID, uuid4

from molecule_ai.server.events.catalogue import Event
from molecule_ai.server.events.delivery import Bundle, Delivery, from_notification
from molecule_ai.server.events.outbox import LIMIT, Outbox
from molecule_ai.server.events.service import MAX_NOTIFICATION, pack

ONE, TWO = uuid4(), uuid4()


def delivery(event: str, workspace_id: UUID = ONE, text: str = "{}") -> Delivery:
    return Delivery(event, workspace_id, datetime.now(UTC), {}, text)


def test_a_slow_client_loses_only_what_it_can_do_without() -> None:
    outbox = Outbox()
    for number in range(LIMIT):
        event = Event.WORKSPACE_HEARTBEAT if number % 2 else Event.AGENT_MESSAGE
        assert outbox.put(delivery(event, ONE if number % 4 == 1 else TWO))
    assert outbox.put(delivery(Event.A2A_RESPONSE))
    events = [item.event for item in outbox.items]
    assert events.count(Event.AGENT_MESSAGE) == LIMIT // 2
    assert events.count(Event.WORKSPACE_HEARTBEAT) == 2
    assert events[-1] == Event.A2A_RESPONSE


def test_the_newest_heartbeat_is_the_one_that_stays() -> None:
    outbox = Outbox()
    for number in range(LIMIT):
        outbox.put(delivery(Event.WORKSPACE_HEARTBEAT, text=str(number)))
    outbox.put(delivery(Event.AGENT_MESSAGE, text="message"))
    assert [item.text for item in outbox.items] == [str(LIMIT - 1), "message"]


def test_a_client_that_would_miss_something_has_to_go() -> None:
    outbox = Outbox()
    for _ in range(LIMIT):
        assert outbox.put(delivery(Event.AGENT_MESSAGE))
    assert outbox.put(delivery(Event.WORKSPACE_HEARTBEAT))
    assert not outbox.put(delivery(Event.AGENT_MESSAGE))
    assert len(outbox.items) == LIMIT


def test_who_keeps_up_shares_the_message_of_a_bundle() -> None:
    bundle = Bundle([delivery(Event.AGENT_MESSAGE, text=str(number)) for number in range(3)])
    one, other = Outbox(), Outbox()
    assert one.put_all(bundle)
    assert other.put_all(bundle)
    assert one.take_all() is other.take_all()
    assert not one.items

    assert one.put_all(bundle)
    assert one.put(delivery(Event.AGENT_MESSAGE, text="3"))
    assert other.put(delivery(Event.AGENT_MESSAGE, text="3"))
    assert other.put_all(bundle)
    assert (one.take_all(), other.take_all()) == ("[0,1,2,3]", "[3,0,1,2]")


def test_a_bundle_that_does_not_fit_is_taken_event_by_event() -> None:
    outbox = Outbox()
    for number in range(LIMIT):
        outbox.put(delivery(Event.WORKSPACE_HEARTBEAT, text=str(number)))
    assert outbox.put_all(Bundle([delivery(Event.AGENT_MESSAGE, text=text) for text in ("one", "two")]))
    assert outbox.take_all() == f"[{LIMIT - 1},one,two]"


def test_notifications_are_filled_but_never_too_large() -> None:
    texts = [f'{{"n":{number},"é":"{"x" * (number * 7 % 900)}"}}' for number in range(100)]
    arrays, large = pack([*texts, "y" * 9000])
    assert large == ["y" * 9000]
    assert all(len(array.encode()) <= MAX_NOTIFICATION for array in arrays)
    assert len(arrays) < 10
    assert ",".join(array[1:-1] for array in arrays) == ",".join(texts)


def test_frames_come_alone_or_in_arrays() -> None:
    frame = '{"event":"X","workspace_id":null,"timestamp":"2026-06-14T12:00:00Z","payload":{"a":[1]}}'
    assert [item.text for item in from_notification(frame)] == [frame]
    assert [item.text for item in from_notification(f"[{frame},{frame}]")] == [frame, frame]
