"""What of a stream of packets is taken at once, wherever it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from server.collect.reader import Published, packed, published

TOPICS = st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text)
BODIES = st.one_of(st.binary(max_size=40), st.integers(100, 20_000).map(bytes))
MESSAGES = st.lists(st.tuples(TOPICS, BODIES, st.integers(1, 65_535)), max_size=6)


def taken_of(data):
    """Of bytes at the end of a buffer that holds others before them."""
    found = published(memoryview(b"\xff" + data), 1, 1 + len(data))
    return found._replace(until=found.until - 1)


@given(MESSAGES, st.integers(0, 60_000))
def test_messages_that_are_whole_are_taken_and_acknowledged_and_the_rest_waits(messages, cut):
    packets = [packed(topic.encode(), number, body) for topic, body, number in messages]
    data = b"".join(packets)[:cut]
    whole, ends = 0, 0
    while whole < len(packets) and ends + len(packets[whole]) <= len(data):
        ends += len(packets[whole])
        whole += 1
    taken = taken_of(data)
    assert taken.found == [Published(topic, body) for topic, body, _ in messages[:whole]]
    assert taken.acks == b"".join(b"\x40\x02" + number.to_bytes(2, "big") for _, _, number in messages[:whole])
    assert taken.until == ends
    if len(data) - ends > 4:  # all digits of its length are here
        assert taken.begun == len(packets[whole])
    else:
        assert bool(taken.begun) == (len(data) > ends)


@given(MESSAGES, st.sampled_from([b"\xd0\x00", b"\x40\x03\x00\x01\x00", b"\x34\x05\x00\x01a\x00\x01", b"\x30\x01\x00"]))
def test_what_else_the_protocol_has_is_left_to_paho(messages, other):
    data = b"".join(packed(topic.encode(), number, body) for topic, body, number in messages)
    taken = taken_of(data + other + data)
    assert (len(taken.found), taken.until) == (len(messages), len(data))


@given(MESSAGES, st.lists(st.integers(1, 65_535), max_size=3))
def test_acknowledgements_between_messages_are_taken_with_them(messages, numbers):
    acks = b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in numbers)
    data = b"".join(packed(topic.encode(), number, body) + acks for topic, body, number in messages)
    taken = taken_of(data)
    assert (len(taken.found), taken.acked, taken.until) == (len(messages), numbers * len(messages), len(data))


@given(st.binary(max_size=200))
def test_no_bytes_can_raise(data):
    taken = taken_of(data)
    assert 0 <= taken.until <= len(data)


def test_a_message_of_no_importance_is_taken_and_not_acknowledged():
    taken = taken_of(b"\x30\x05\x00\x01abc")
    assert (taken.found, taken.acks) == ([Published("a", b"bc")], b"")


def test_a_topic_that_is_no_text_is_set_aside_as_none():
    assert taken_of(packed(b"\xff", 1, b"x")).found == [Published("", b"x")]
