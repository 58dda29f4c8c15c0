"""Does a snapshot come back out of what other programs read?"""

from __future__ import annotations

import csv
import hashlib
import json
import tracemalloc
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from device_words import FLEET, NOW_MS, SELECTION, image, message, uploads
from PIL import Image

from edge_agent.contract.images import Codec
from edge_agent.contract.wire import encode_sample, sample_frames
from server.__main__ import main
from server.collect.ingest import Ingest
from server.errors import StoreError
from server.store import labels, samples, snapshots, trail
from server.store.labels import Label
from server.store.store import Store
from server.teach import data_rule
from server.teach.export import journal as journals
from server.teach.export.run import export
from server.teach.snapshot import freeze

NAMES = ["cat", "dog / ../wolf"]
COUNT = 14


@pytest.fixture
def store(tmp_path):
    """Pictures of cam-1, sent as arrays; of cam-2, sent as JPEG; recordings of mic-1; each fourth is held out."""
    store = Store.open(tmp_path / "data")
    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq in range(COUNT):
        selection = msgspec.structs.replace(SELECTION, reason="random" if seq % 4 == 3 else "informative")
        ingest.take(uploads("cam-1", seq, data=image(seq, (9, 12)), selection=selection))
    with store.database.write() as connection:
        labels.ensure_names(connection, NAMES)
        labels.add(connection, [Label(f"cam-1.main.1.{seq}", seq % 2, "ann", 1) for seq in range(COUNT)])
    yield store
    store.close()


def add(store, device: str, arrays, *, codec: Codec | None = None) -> None:
    from device_words import sample

    from server.store.schema import sample as table

    ingest = Ingest(store, fleet=FLEET, offline_after_s=90.0)
    for seq, array in enumerate(arrays):
        header, body = encode_sample(sample(device, seq, data=array), codec=codec)
        found = ingest.take([message(device, "sample", frame) for frame in sample_frames(header, body)])
        for picture in found.pictures:
            from server.collect.inbound import Upload

            ingest.take([Upload(*picture)])
    with store.database.write() as connection:
        rows = connection.execute(table.select().where(table.c.device == device)).all()
        labels.add(connection, [Label(row.id, 0, "bob", 1) for row in rows])


def expected(store, snapshot) -> dict[str, tuple[str, str, np.ndarray]]:
    with store.database.read() as connection:
        rows = snapshots.members(connection, snapshot.id)
    return {row.id: (row.frozen_split, NAMES[row.class_index], samples.sample_array(store, row)) for row in rows}


def exported(store, folder: Path, form: str, **how):
    return export(store, freeze(store, now_ms=NOW_MS).id, folder, form=form, now_ms=NOW_MS, **how)


def read_parquet(folder: Path) -> dict[str, tuple[str, str, np.ndarray]]:
    found = {}
    for path in sorted((folder / "data").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            array = np.frombuffer(row["data"], np.dtype(row["dtype"]).newbyteorder("<")).reshape(row["shape"])
            found[row["sample_id"]] = (row["split"], row["label"], array)
    return found


def assert_same(found, wanted) -> None:
    assert found.keys() == wanted.keys()
    for name, (split, label, array) in wanted.items():
        assert found[name][:2] == (split, label)
        np.testing.assert_array_equal(found[name][2], array)


def test_parquet_gives_the_same_samples_again(store, tmp_path):
    add(store, "mic-1", np.random.default_rng(0).normal(size=(3, 40, 2)).astype(np.float32))
    data_rule.change(store, "mic-1/*", {"licence": "CC0-1.0", "region": "EU"}, who="ann", why="", now_ms=1)
    done = exported(store, tmp_path / "out", "parquet", chunk_rows=5)
    snapshot = freeze(store, now_ms=NOW_MS)
    assert_same(read_parquet(tmp_path / "out"), expected(store, snapshot))
    assert done.records == {"train": 14, "holdout": 3}
    table = pq.read_table(tmp_path / "out" / "data" / "train-00002.parquet")
    assert table.schema.metadata[b"winnow.snapshot"].decode() == snapshot.id
    (row,) = [row for row in table.to_pylist() if row["sample_id"] == "mic-1.main.1.2"]
    assert (row["licence"], row["region"], row["labeler"], row["selection_probability"]) == (
        "CC0-1.0",
        "EU",
        "bob",
        0.25,
    )
    assert row["captured_at_ms"].timestamp() * 1000 == NOW_MS - 5


def test_croissants_own_library_reads_it(store, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    data_rule.change(store, "*/*", {"licence": "CC-BY-4.0"}, who="ann", why="", now_ms=1)
    exported(store, tmp_path / "out", "parquet", chunk_rows=6)
    dataset = mlcroissant.Dataset(tmp_path / "out" / "croissant.json")
    assert (dataset.metadata.ctx.issues.errors, dataset.metadata.license) == (set(), ["CC-BY-4.0"])
    found = {}
    for record in dataset.records("members"):
        of = {key.partition("/")[2]: value for key, value in record.items()}
        array = np.frombuffer(of["data"], of["dtype"].decode()).reshape(9, 12)
        found[of["sample_id"].decode()] = (of["split"].decode(), of["label"].decode(), array)
    assert_same(found, expected(store, freeze(store, now_ms=NOW_MS)))


def test_a_folder_of_images_gives_the_same_pictures_again(store, tmp_path):
    add(
        store,
        "cam-2",
        [np.kron(image(seed, (3, 4, 3)), np.ones((8, 8, 1), np.uint8)) for seed in range(4)],
        codec=Codec("jpeg", 90),
    )
    done = exported(store, tmp_path / "out", "images", chunk_rows=4)
    assert done.records == {"train": 15, "holdout": 3}
    found = {}
    for path in (tmp_path / "out").glob("*/*/*.*"):
        with Image.open(path) as picture:
            found[path.stem] = (path.parent.parent.name, path.parent.name, np.asarray(picture))
    wanted = expected(store, freeze(store, now_ms=NOW_MS))
    folders = {"cat": "000-cat", "dog / ../wolf": "001-dog-wolf"}
    assert_same(found, {name: (split, folders[label], array) for name, (split, label, array) in wanted.items()})
    assert {path.suffix for path in (tmp_path / "out" / "train" / "000-cat").iterdir()} == {".png", ".jpg"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert {line["sample_id"]: line["label"] for line in lines} == {
        name: label for name, (split, label, _) in wanted.items() if split == "train"
    }
    assert all((tmp_path / "out" / "train" / line["file_name"]).exists() for line in lines)
    assert not (tmp_path / "out" / "parts").exists()


COCO = {  # cocodataset.org/#format-data
    "type": "object",
    "required": ["info", "images", "annotations", "categories", "licenses"],
    "properties": {
        "images": {"items": {
            "required": ["id", "width", "height", "file_name", "license", "date_captured"],
            "properties": {"id": {"type": "integer"}, "width": {"type": "integer"}, "file_name": {"type": "string"}},
        }},
        "annotations": {"minItems": 1, "items": {
            "required": ["id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd"],
            "properties": {
                "id": {"type": "integer"}, "image_id": {"type": "integer"}, "category_id": {"type": "integer"},
                "bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "number"}},
                "iscrowd": {"enum": [0, 1]},
            },
        }},
        "categories": {"minItems": 2, "items": {"required": ["id", "name", "supercategory"]}},
        "licenses": {"minItems": 1, "items": {"required": ["id", "name", "url"]}},
    },
}  # fmt: skip


def test_coco_is_coco_and_gives_the_same_pictures_again(store, tmp_path):
    exported(store, tmp_path / "out", "coco", chunk_rows=4)
    coco = pytest.importorskip("pycocotools.coco")
    found = {}
    for split in ("train", "holdout"):
        path = tmp_path / "out" / "annotations" / f"instances_{split}.json"
        jsonschema.validate(json.loads(path.read_text()), COCO)
        read = coco.COCO(str(path))
        for annotation in read.loadAnns(read.getAnnIds()):
            (picture,) = read.loadImgs(annotation["image_id"])
            (category,) = read.loadCats(annotation["category_id"])
            with Image.open(tmp_path / "out" / "images" / picture["file_name"]) as opened:
                found[picture["winnow"]["sample_id"]] = (split, category["name"], np.asarray(opened))
            assert annotation["bbox"] == [0, 0, 12, 9]
    assert_same(found, expected(store, freeze(store, now_ms=NOW_MS)))


# --- cut off ----------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != journals.NAME
    }


@pytest.mark.parametrize("form", ["parquet", "images", "coco"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_export_that_was_cut_off_goes_on_and_is_the_same(store, tmp_path, monkeypatch, form, after):
    exported(store, tmp_path / "whole", form, chunk_rows=4)
    add_chunk, count = journals.Journal.add, iter(range(100))

    def cut(self, chunk):
        if next(count) == after:
            self._path.write_bytes(self._path.read_bytes() + b'{"torn')
            raise KeyboardInterrupt
        add_chunk(self, chunk)

    monkeypatch.setattr(journals.Journal, "add", cut)
    with pytest.raises(KeyboardInterrupt):
        exported(store, tmp_path / "out", form, chunk_rows=4)
    monkeypatch.undo()
    assert said(store) == ["export", "export whole", "export"]  # what a kill leaves is known to be somewhere
    done = exported(store, tmp_path / "out", form, chunk_rows=4)
    assert done.went_on == after
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "out" / journals.NAME).read_text().splitlines()]
    hashes = {file["path"]: file["sha256"] for line in lines for file in line.get("files", ())}
    assert hashes == {name: hashlib.sha256(data).hexdigest() for name, data in files(tmp_path / "out").items()}
    again = exported(store, tmp_path / "out", form, chunk_rows=4)  # it is finished
    assert (again.went_on, again.records) == (4, done.records)
    assert said(store).count("export whole") == 2


def said(store) -> list[str]:
    with store.database.read() as connection:
        return [entry.what for entry in trail.entries(connection)]


def test_another_export_does_not_mix_in(store, tmp_path):
    first = exported(store, tmp_path / "out", "parquet").snapshot
    with pytest.raises(StoreError, match="holds another export, with another format"):
        exported(store, tmp_path / "out", "images")
    rule(store, "mic-1/*", region="EU")
    with pytest.raises(StoreError, match="with another state of the data rules: expected an empty folder"):
        export(store, first, tmp_path / "out", form="parquet", now_ms=NOW_MS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match="holds other files"):
        exported(store, tmp_path / "mine", "parquet")


def test_memory_is_bounded(store, tmp_path, monkeypatch):
    """Bodies of 0.6 MB, in groups of 0.1 MB: never more than a few at once."""
    monkeypatch.setattr("server.teach.export.parquet.GROUP_BYTES", 100_000)
    add(
        store, "mic-1", (np.random.default_rng(seq).integers(0, 9, (1500, 100)).astype(np.float32) for seq in range(12))
    )
    exported(store, tmp_path / "first", "parquet")  # what is loaded and made once
    tracemalloc.start()
    exported(store, tmp_path / "out", "parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 600_000 / 2


# --- what may leave ---------------------------------------------------------------------------------------------------


def rule(store, scope, **said):
    data_rule.change(store, scope, said, who="ann", why="", now_ms=1)


def test_what_may_not_be_exported_stays(store, tmp_path):
    add(store, "mic-1", np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32))
    snapshot = freeze(store, now_ms=NOW_MS)
    rule(store, "cam-1/*", consent="withdrawn")  # since it was frozen
    done = export(store, snapshot.id, tmp_path / "out", form="parquet", now_ms=NOW_MS)
    assert (done.records, done.left_out) == ({"train": 3, "holdout": 0}, {"not_allowed": COUNT})
    assert {name.partition(".")[0] for name in read_parquet(tmp_path / "out")} == {"mic-1"}


def test_sharing_is_a_use_of_its_own(store, tmp_path):
    with pytest.raises(StoreError, match="nothing to share as parquet: 14 not allowed: see `winnow-server data rule"):
        exported(store, tmp_path / "out", "parquet", share=True)
    rule(store, "*/*", uses="train,evaluate,share", licence="MIT")
    assert exported(store, tmp_path / "two", "parquet", share=True).records == {"train": 11, "holdout": 3}
    with pytest.raises(StoreError, match="nothing to export"):
        exported(store, tmp_path / "three", "parquet")


def test_what_is_no_picture_is_said(store, tmp_path):
    add(store, "mic-1", np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32))
    assert exported(store, tmp_path / "out", "images").left_out == {"no_picture": 3}
    rule(store, "cam-1/*", uses="none")
    with pytest.raises(StoreError, match="as coco: .*3 no picture.*--format parquet"):
        exported(store, tmp_path / "two", "coco")


@pytest.mark.parametrize("form", ["parquet", "images"])
def test_what_is_damaged_is_left_out_and_counted(store, tmp_path, form):
    snapshot = freeze(store, now_ms=NOW_MS)
    with store.database.read() as connection:
        row = snapshots.members(connection, snapshot.id)[2]
    store.blobs.delete(row.body_sha256)
    assert exported(store, tmp_path / "out", form).left_out == {"damaged": 1}


def test_by_command(store, tmp_path, capsys):
    snapshot = freeze(store, now_ms=NOW_MS)
    toml = tmp_path / "server.toml"
    toml.write_text(f'[server]\nfleet = "{FLEET}"\ndata_dir = "{tmp_path / "data"}"\n')
    words = ["snapshot", "export", snapshot.id[:8], str(tmp_path / "out"), "--format", "coco"]
    assert main([*words, "--by", "ann", "--why", "a paper", str(toml)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 11 train, 3 holdout of snapshot {snapshot.id[:12]}\n"
    with store.database.read() as connection:
        entry, whole = trail.entries(connection)
    assert entry.detail == {"format": "coco", "to": str(tmp_path / "out")}
    assert (whole.what, whole.detail["records"]) == ("export whole", {"train": 11, "holdout": 3})
    assert (entry.what, entry.who, entry.why, entry.subject) == ("export", "ann", "a paper", f"snapshot {snapshot.id}")


def test_a_table_has_a_line_for_each_member_and_no_formula(store, tmp_path):
    with store.database.write() as connection:
        labels.ensure_names(connection, ["=1+1"])
        labels.add(connection, [Label("cam-1.main.1.2", 2, "ann", 2)])
    add(store, "mic-1", [np.linspace(0, 1, 5000, dtype=np.float32)])  # no picture, and yet a line
    done = exported(store, tmp_path / "out", "csv", chunk_rows=4)
    with open(tmp_path / "out" / "samples.csv", newline="") as file:
        rows = {row["sample_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == sum(done.records.values()) == COUNT + 1
    assert rows["cam-1.main.1.2"]["label"] == "'=1+1"
    assert rows["cam-1.main.1.1"]["label"] == NAMES[1]
    assert rows["mic-1.main.1.0"]["shape"] == "5000"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"samples.csv", journals.NAME}
    again = exported(store, tmp_path / "out", "csv", chunk_rows=4)
    assert again.records == done.records
