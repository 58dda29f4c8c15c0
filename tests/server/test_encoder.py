"""Is every sample that choosing looks at seen by the champion, once, and what when it cannot be?"""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from device_words import FLEET, NOW_MS, frames, image, message
from graphs import as_onnx
from quadrants import ARTIFACT, artifact, images

from edge_agent.contract.artifact import MODEL, OnnxFile, read_artifact, sha256_hex
from edge_agent.contract.errors import IncompatibleError
from models import evaluate
from server.collect.ingest import Ingest
from server.label import encoder
from server.label.encoder import Encoder
from server.release.registry import add_artifact
from server.store import embeddings, labels
from server.store.labels import Label
from server.store.schema import embedding, rollout, sample
from server.store.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


def take(store, *seqs: int, shape=(8, 8)) -> list[str]:
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in seqs:
        data = images(1, seed=seq)[0][0] if shape == (8, 8) else image(seq, shape)
        ingest.take([message("cam-1", "sample", frame) for frame in frames("cam-1", seq, data=data)])
    return [f"cam-1.main.1.{seq}" for seq in seqs]


def publish(store, tmp_path, number: int, **changes: object) -> None:
    add_artifact_of = tmp_path / f"artifact-{number}"
    artifact(add_artifact_of, version=number, **changes)
    add_artifact(store, add_artifact_of, weights=None, now_ms=NOW_MS)


def encode(store, *, waiting=100, labelled=100, one: Encoder | None = None, stopped=lambda: False):
    return (one or Encoder(store, waiting=waiting, labelled=labelled)).catch_up(stopped=stopped)


def rows(store) -> dict[str, tuple]:
    with store.database.read() as connection:
        return {
            row.sample_id: (row.version, row.vector is not None) for row in connection.execute(sa.select(embedding))
        }


def test_without_a_champion_there_is_nothing_to_go_by(store):
    take(store, 1)
    assert encode(store) is None
    assert rows(store) == {}


def test_it_is_what_the_device_would_compute(store, tmp_path):
    publish(store, tmp_path, 3)
    ids = take(store, *range(70))
    assert encode(store).version == 3
    manifest, data = read_artifact(ARTIFACT)
    session = evaluate.open_session(data)
    x = np.stack([images(1, seed=seq)[0][0] for seq in range(70)])
    logits, vectors = session.run([manifest.logits, manifest.embedding], {manifest.input.name: x})
    with store.database.read() as connection:
        found = embeddings.of(connection, version=3, ids=ids)
        assert embeddings.of(connection, version=2, ids=ids) == {}
    np.testing.assert_allclose([found[i].vector for i in ids], vectors, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose([found[i].logits for i in ids], logits / manifest.temperature, rtol=2e-3, atol=1e-3)


def test_nothing_is_computed_twice_and_a_new_champion_does_it_anew(store, tmp_path, monkeypatch):
    ran: list[int] = []
    run = encoder._Model.run
    monkeypatch.setattr(encoder._Model, "run", lambda model, x: (ran.append(len(x)), run(model, x))[1])
    publish(store, tmp_path, 1)
    take(store, 1, 2, 3)
    one = Encoder(store, waiting=100, labelled=100)
    encode(store, one=one)
    take(store, 4)
    encode(store, one=one)
    encode(store)  # after a restart
    assert ran == [3, 1]
    with store.database.write() as connection:
        labels.add(connection, [Label("cam-1.main.1.1", 0, "ann", 1)])
        connection.execute(
            sa.insert(rollout).values(
                version=1, previous=0, plan={}, state={}, status="done", started_at_ms=1, ended_at_ms=2
            )
        )
    publish(store, tmp_path, 2)
    encode(store, one=one, labelled=0)
    assert {version for version, _ in rows(store).values()} == {2}
    assert len(rows(store)) == 4


def test_what_is_labelled_is_looked_at_last_and_only_so_far_back(store, tmp_path):
    publish(store, tmp_path, 1)
    ids = take(store, *range(6))
    with store.database.write() as connection:
        labels.add(connection, [Label(i, 0, "ann", 1) for i in ids[:4]])
    with store.database.read() as connection:
        missing = embeddings.missing(connection, version=1, waiting=10, labelled=2)
    assert set(missing[:2]) == set(ids[4:])
    assert set(missing[2:]) == {ids[2], ids[3]}


def test_it_stops_between_commits_and_goes_on_there(store, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "COMMIT_ROWS", 4)
    publish(store, tmp_path, 1)
    take(store, *range(10))
    looks = iter([False, False, True])
    encode(store, stopped=lambda: next(looks))
    assert len(rows(store)) == 8
    encode(store)
    assert len(rows(store)) == 10


def test_another_shape_and_a_lost_body_are_complained_of_once_and_not_tried_again(store, tmp_path, caplog):
    publish(store, tmp_path, 1)
    take(store, 1, 2, 3, shape=(6, 6))
    take(store, 4, 5, 6)
    with store.database.read() as connection:
        lost = connection.scalar(sa.select(sample.c.body_sha256).where(sample.c.id == "cam-1.main.1.4"))
    store.blobs.delete(lost)
    with caplog.at_level(logging.WARNING):
        encode(store)
        encode(store)
    assert sorted(seen for _, seen in rows(store).values()) == [False] * 4 + [True] * 2
    assert len(caplog.records) == 2
    assert "(6, 6) uint8" in caplog.text
    assert f"no blob {lost}" in caplog.text


def test_a_sample_that_is_refused_costs_its_batch_nothing(store, tmp_path, monkeypatch, caplog):
    publish(store, tmp_path, 1)
    take(store, 1, 2, 3, 4)
    bad = images(1, seed=3)[0][0]
    run = encoder._Model.run

    def refusing(self, x):
        if any(np.array_equal(one, bad) for one in x):
            raise IncompatibleError("this one I do not take")
        return run(self, x)

    monkeypatch.setattr(encoder._Model, "run", refusing)
    with caplog.at_level(logging.WARNING):
        encode(store)
    assert {name: seen for name, (_, seen) in rows(store).items() if not seen} == {"cam-1.main.1.3": False}
    assert len(rows(store)) == 4
    assert "does not run on cam-1.main.1.3" in caplog.text


def test_a_champion_that_does_not_load_leaves_it_to_the_devices(store, tmp_path, caplog):
    take(store, 1)
    folder = tmp_path / "broken"
    manifest = artifact(folder)
    passes = as_onnx(b"nobody")  # and is no model
    (folder / MODEL).write_bytes(passes)
    broken = OnnxFile(sha256=sha256_hex(passes), bytes=len(passes))
    (folder / "manifest.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(manifest, version=1, files={"cpu-int8": broken}))
    )
    add_artifact(store, folder, weights=None, now_ms=NOW_MS)
    one = Encoder(store, waiting=10, labelled=10)
    with caplog.at_level(logging.WARNING):
        assert encode(store, one=one) is None
        assert encode(store, one=one) is None
    assert len(caplog.records) == 1
    assert "version 1 cannot be run here" in caplog.text


def test_a_graph_without_an_embedding_gives_its_logits(store, tmp_path):
    publish(store, tmp_path, 1, embedding="")
    ids = take(store, 1)
    encode(store)
    with store.database.read() as connection:
        found = embeddings.of(connection, version=1, ids=ids)[ids[0]]
    np.testing.assert_allclose(
        found.vector, found.logits.astype(float) * read_artifact(ARTIFACT)[0].temperature, rtol=2e-3
    )


def test_a_sample_takes_its_embedding_and_its_place_as_a_representative_along(store, tmp_path):
    publish(store, tmp_path, 1)
    one, two, three = take(store, 1, 2, 3)
    encode(store)
    with store.database.write() as connection:
        labels.spare(connection, {two: one, three: one})
        assert labels.counts(connection).duplicates == 2
        assert [row.id for row in labels.waiting(connection, limit=9)] == [one]
        connection.execute(sa.delete(sample).where(sample.c.id == one))
    assert set(rows(store)) == {two, three}
    with store.database.read() as connection:
        assert {row.id for row in labels.waiting(connection, limit=9)} == {two, three}
