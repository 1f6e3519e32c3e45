import pytest

from kws.mqtt.outbox import Message, Outbox


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def outbox(now):
    return Outbox(max_queued=3, max_age_s=10.0, clock=lambda: now[0])


def event(i):
    return Message(f"event/{i}", b"x")


def taken(outbox):
    return [(one.topic, one.payload) for one in iter(outbox.take, None)]


def test_states_come_first_and_only_their_last_value(outbox):
    outbox.put(event(1))
    outbox.state("a", b"1")
    outbox.state("b", b"1")
    outbox.state("a", b"2")
    outbox.put(event(2))
    assert taken(outbox) == [("a", b"2"), ("b", b"1"), ("event/1", b"x"), ("event/2", b"x")]


def test_a_state_is_sent_when_it_changes_or_again(outbox):
    outbox.state("a", b"1")
    assert taken(outbox) == [("a", b"1")]
    outbox.state("a", b"1")
    assert taken(outbox) == []
    outbox.state("a", b"1", again=True)
    assert taken(outbox) == [("a", b"1")]
    outbox.send_states_again()
    assert taken(outbox) == [("a", b"1")]


def test_what_is_cleared_is_sent_empty_once(outbox):
    outbox.state("a", b"1")
    outbox.state("b", b"1")
    outbox.clear("a")
    assert taken(outbox) == [("a", b""), ("b", b"1")]
    outbox.clear_states()
    outbox.send_states_again()
    assert taken(outbox) == [("b", b"")]


def test_an_event_beyond_the_limit_is_dropped_and_counted(outbox):
    for i in range(5):
        outbox.put(event(i))
    assert (len(outbox), outbox.n_dropped) == (3, 2)
    assert taken(outbox) == [(f"event/{i}", b"x") for i in range(3)]
    outbox.put(event(7))
    assert [one.topic for one in outbox.take_events()] == ["event/7"]
    assert len(outbox) == 0


def test_an_event_that_has_waited_too_long_is_dropped_and_counted(outbox, now):
    outbox.put(event(1))
    now[0] = 5.0
    outbox.put(event(2))
    now[0] = 12.0
    assert taken(outbox) == [("event/2", b"x")]
    assert outbox.n_dropped == 1
