"""Who may work on a data folder beside whom?"""

from __future__ import annotations

import itertools

import pytest

from server.errors import ServerError, StoreError
from server.store.lock import held, one_of_several, one_server, only_one, taking_in


def test_one_at_a_time_works_on_a_folder(tmp_path):
    assert held(tmp_path) == ""
    with only_one(tmp_path):
        assert held(tmp_path) == "alone"
        with pytest.raises(ServerError, match="another winnow-server works here"), only_one(tmp_path):
            pass
    assert held(tmp_path) == ""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError), only_one(tmp_path / "file"):
        pass


WAYS = (only_one, one_server, one_of_several, taking_in)
BESIDE = {
    (one_of_several, one_of_several),
    (taking_in, taking_in),
    (taking_in, one_of_several),
    (taking_in, one_server),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.product(WAYS, repeat=2)))
def test_who_may_be_beside_whom(tmp_path, first, second):
    with first(tmp_path):
        if (first, second) in BESIDE or (second, first) in BESIDE:
            with second(tmp_path):
                pass
        else:
            with pytest.raises(ServerError, match="stop"), second(tmp_path):
                pass


def test_processes_of_one_part_each_are_named_to_whom_they_are_in_the_way(tmp_path):
    with one_of_several(tmp_path):
        assert held(tmp_path) == "shared"
        with pytest.raises(ServerError, match="as several processes"), one_server(tmp_path):
            pass
    with taking_in(tmp_path), pytest.raises(ServerError, match="winnow-server ingest works here"), only_one(tmp_path):
        pass
