"""The targets of `make fuzz`, by hypothesis: mutations of golden files raise nothing but what the decoders say."""

import pytest
from fuzz import decoders
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = decoders.targets()


@st.composite
def mutated(draw, target):
    data = bytearray(draw(st.sampled_from(sorted(decoders.seeds(target).values()))))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["insert", "delete", "replace", "cut", "double"]))
        some = draw(st.binary(min_size=1, max_size=6))
        if how == "insert":
            data[place:place] = some
        elif how == "delete":
            del data[place : place + len(some)]
        elif how == "replace":
            data[place : place + len(some)] = some
        elif how == "cut":
            del data[place:]
        else:
            data[place:place] = data[place : place + 40]
    return bytes(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutated_messages_raise_nothing_but_what_the_decoders_say(name):
    @given(mutated(name))
    @settings(max_examples=150, deadline=None)
    def run(data):
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_takes_its_seeds(name):
    assert decoders.seeds(name)
    for data in decoders.seeds(name).values():
        TARGETS[name](data)
