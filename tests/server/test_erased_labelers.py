"""What goes with a labeler who is to be forgotten, and what stays?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from device_words import NOW_MS
from erasing import World, files_with

from server.errors import GovernError
from server.govern.lineage import of_labeler
from server.label.labeler import Given
from server.label.queue import Queue, Rules
from server.store import labels, users
from server.store.labels import Label
from server.store.schema import duplicate, label, sample


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_what_a_labeler_answered_goes_with_the_name_and_the_samples_wait_again(world: World) -> None:
    done = world.erase("labeler", "ann")
    assert (done.counts["label"], done.counts["snapshot_member"]) == (8, 8)
    assert world.count(sample) == 16
    with world.store.database.read() as connection:
        assert labels.counts(connection).waiting == 8
    assert world.verified() == (8, 8, True)
    assert world.send("cam-1", 3) == {"cam-1.main.1.3": "duplicate"}


def test_a_snapshot_from_before_a_labeler_answered_keeps_its_members(world: World) -> None:
    world.publish()
    late = [Label(f"cam-1.main.1.{seq}", seq % 2, "eve", NOW_MS + 1) for seq in range(3)]
    taken_back = Label("cam-1.main.1.4", 0, "eve", NOW_MS - 2)
    with world.store.database.write() as connection:
        labels.add(connection, [*late, taken_back])
        connection.execute(sa.update(label).where(label.c.at_ms == NOW_MS - 2).values(undone_at_ms=NOW_MS - 1))
        assert of_labeler(connection, "eve")["versions"]["learned"] == {}
    done = world.erase("labeler", "eve")
    assert (done.learned, done.counts.get("snapshot_member", 0), done.counts["label"]) == ((), 0, 4)
    assert world.verified() == (16, 0, True)


def test_what_stood_with_a_sample_that_nobody_else_answered_waits_again(world: World) -> None:
    world.send("cam-2", 60, 61)
    with world.store.database.write() as connection:
        labels.spare(connection, {"cam-2.main.1.60": "cam-1.main.1.1", "cam-2.main.1.61": "cam-2.main.1.50"})
    world.erase("labeler", "ann")
    with world.store.database.read() as connection:
        left = connection.execute(sa.select(duplicate)).all()
        waiting = {row.id for row in labels.waiting(connection, limit=50)}
    assert [row.sample_id for row in left] == ["cam-2.main.1.61"]
    assert {"cam-1.main.1.1", "cam-2.main.1.60"} <= waiting


def test_answers_of_an_erased_labeler_that_come_again_are_not_kept(world: World) -> None:
    queue = Queue(world.store, Rules(), now_ms=lambda: NOW_MS, rng=np.random.default_rng(0))
    given = Given("cam-1.main.1.1", "dog", "label_studio:eve@example.org", "label_studio", 1.0, "label_studio:7:noon")
    assert queue.take_in([given], asked_as="label_studio") == 1
    world.erase("labeler", "label_studio:eve@example.org")
    queue.take_in([given], asked_as="label_studio")  # a server that was started anew asks for all of them once more
    assert files_with(world.folder, b"eve@example.org") == []
    queue.take_in([given._replace(key="label_studio:8:noon", labeler="label_studio:dan")], asked_as="label_studio")
    assert world.count(label, label.c.labeler == "label_studio:dan") == 1


def test_the_last_admin_is_not_erased(world: World) -> None:
    with world.store.database.write() as connection:
        users.add(connection, "ann", "admin", password_hash="", by="root", now_ms=NOW_MS)
        users.add(connection, "bob", "operator", password_hash="", by="root", now_ms=NOW_MS)
    with pytest.raises(GovernError, match="is the last admin who may sign in"):
        world.erase("labeler", "ann")
    with world.store.database.write() as connection:
        users.change(connection, "bob", role="admin", disabled=True, by="root", why="", now_ms=NOW_MS)
    with pytest.raises(GovernError, match="is the last admin who may sign in"):  # bob may not
        world.erase("labeler", "ann")
    with world.store.database.write() as connection:
        users.change(connection, "bob", disabled=False, by="root", why="", now_ms=NOW_MS)
    assert world.erase("labeler", "ann").counts["user"] == 1


def test_a_labeler_who_may_sign_in_has_no_account_any_more(world: World) -> None:
    with world.store.database.write() as connection:
        for name in ("ann", "dan"):
            users.add(connection, name, "labeler", password_hash="secret-of-" + name, by="root", now_ms=NOW_MS)
            users.open_session(
                connection, name, secret_sha256=name, csrf="c", now_ms=NOW_MS, expires_at_ms=NOW_MS + 1000
            )
            users.add_token(connection, name, "t", secret_sha256=name, expires_at_ms=None, by="root", now_ms=NOW_MS)
    done = world.erase("labeler", "ann")
    assert {name: done.counts[name] for name in ("user", "web_session", "api_token")} == {
        "user": 1, "web_session": 1, "api_token": 1,
    }  # fmt: skip
    assert files_with(world.folder, b"secret-of-ann") == []
    with world.store.database.read() as connection:
        assert users.of_session(connection, "ann", now_ms=NOW_MS) is None
        assert users.of_session(connection, "dan", now_ms=NOW_MS) is not None
    assert world.erase("labeler", "dan").counts == {"user": 1, "web_session": 1, "api_token": 1}  # answered nothing
