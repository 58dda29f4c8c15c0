"""Labelled data with boxes, several classes or numbers: it comes in, goes out as COCO, and what is wrong is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edge_agent.contract.task import Task
from server.__main__ import main
from server.errors import StoreError
from server.label.labeler import Question
from server.label.oracle import Oracle
from server.store import labels, samples, trail, truth_arrays
from server.store.store import Store
from server.teach import imports, listing
from server.teach.export.run import export
from server.teach.imports import Imported, import_file
from server.teach.snapshot import freeze

NOW_MS = 1_700_000_000_000
X = np.random.default_rng(0).integers(0, 256, (4, 20, 40, 3)).astype(np.uint8)


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "data")
    yield made
    made.close()


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "first.npz"
    np.savez(path, **({"x": X, "names": np.array(["person", "dog"])} | arrays))
    return path


def take(store: Store, file: Path, task: Task, **how: Any) -> Imported:
    return import_file(store, file, split=how.pop("split", "train"), now_ms=NOW_MS, task=task, **how)


def truths(store: Store) -> dict[int, Any]:
    with store.database.read() as connection:
        rows = connection.execute(labels.in_force().add_columns(labels.in_force_.c.truth)).all()
    return {int(row.sample_id.rsplit(".", 1)[1]): row.truth for row in rows}


BOXES = np.array([[0, 0, 0.1, 0.2, 0.5, 0.9], [0, 1, 0.5, 0.5, 0.75, 1.0], [2, 1, 0.0, 0.0, 1.0, 1.0]])


def test_boxes_of_an_npz_come_in_once(store: Store, tmp_path: Path) -> None:
    file = npz(tmp_path, boxes=BOXES)
    assert take(store, file, "detection") == Imported(4, 0, 0)
    assert take(store, file, "detection") == Imported(0, 4, 0)
    found = truths(store)
    assert found[0] == {"boxes": [[0, 0.1, 0.2, 0.5, 0.9, 1.0], [1, 0.5, 0.5, 0.75, 1.0, 1.0]]}
    assert found[1] == found[3] == {"boxes": []}


def test_classes_and_numbers_of_an_npz_come_in(store: Store, tmp_path: Path) -> None:
    take(store, npz(tmp_path, applies=np.array([[1, 0], [0, 0], [1, 1], [0, 1]])), "multilabel")
    assert [len(truths(store)[row]["applies"]) for row in range(4)] == [1, 0, 2, 1]
    values = np.array([[1.5, np.nan], [np.nan, 1.0], [-2.0, 3.0], [0.0, 0.0]])
    other = npz(tmp_path, values=values).rename(tmp_path / "second.npz")
    assert take(store, other, "regression") == Imported(4, 0, 0)
    assert [[0, 1.5, 0.0]] in [truth["values"] for truth in truths(store).values() if "values" in truth]


@pytest.mark.parametrize(
    ("task", "arrays", "says"),
    [
        ("detection", {"boxes": BOXES[:, :5]}, r"boxes is \(3, 5\), expected \(M, 6\)"),
        ("detection", {"boxes": np.array([[4, 0, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: sample 4, expected 0..3"),
        ("detection", {"boxes": np.array([[0.5, 0, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: sample 0.5"),
        ("detection", {"boxes": np.array([[-1, 0, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: sample -1"),
        ("detection", {"boxes": np.array([[np.nan, 0, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: sample nan"),
        ("detection", {"boxes": np.array([[0, np.inf, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: class inf"),
        ("detection", {"boxes": np.array([[0, 2, 0.1, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: class 2, expected 0..1"),
        ("detection", {"boxes": np.array([[0, 0, 0.3, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: box 0.3"),
        ("detection", {"boxes": np.array([[0, 0, np.nan, 0.1, 0.2, 0.2]])}, r"boxes\[0\]: box nan"),
        ("multilabel", {"applies": np.zeros((4, 3))}, r"applies is \(4, 3\), expected \(4, 2\)"),
        ("multilabel", {"applies": np.full((4, 2), 0.5)}, r"applies\[0\]: expected 0 or 1"),
        ("regression", {"values": np.full((4, 2), np.inf)}, r"values\[0\]: .*inf"),
        ("regression", {"values": np.full((4, 2), np.nan)}, r"values\[0\]: .*expected a number"),
        ("regression", {"values": np.array([["a", "b"]] * 4)}, "expected numbers"),
        ("classification", {"boxes": BOXES}, r"is labelled for detection, and this server is for classification"),
        (
            "detection",
            {"y": np.zeros(4, np.int64)},
            r"is labelled for classification, and this server is for detection",
        ),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_comes_in(
    store: Store, tmp_path: Path, task: Task, arrays: Any, says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        take(store, npz(tmp_path, **arrays), task)
    assert truths(store) == {}


def test_the_oracle_knows_boxes(tmp_path: Path) -> None:
    oracle = Oracle([npz(tmp_path, boxes=BOXES)])
    asked = [Question("cam-1.main.1.0", ref, "", 0.0, lambda: X[0]) for ref in ("first:2", "first:1", "first:9", "x:0")]
    told: list[Any] = [{"boxes": [["dog", 0.0, 0.0, 1.0, 1.0]]}, {"boxes": []}, None, None]
    assert oracle.label(asked) == told


# --- COCO ---


def coco(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """Three pictures with boxes by pixels."""
    images = folder / "pictures"
    images.mkdir(exist_ok=True)
    for number in range(3):
        Image.fromarray(X[number]).save(images / f"{number}.png")
    document = {
        "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": 40, "height": 20} for n in range(3)],
        "categories": [{"id": 7, "name": "person"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [4, 5, 10, 10], "iscrowd": 0},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [20, 0, 20.5, 20]},  # a little outside
            {"id": 3, "image_id": 12, "category_id": 3, "bbox": [0, 0, 8, 4]},
            {"id": 4, "image_id": 12, "category_id": 3, "bbox": [0, 0, 8, 4], "iscrowd": 1},
        ],
    } | changes
    file = folder / "found.json"
    file.write_text(json.dumps(document))
    return file, images


def test_coco_comes_in_and_goes_out_and_cocoeval_finds_them_the_same(store: Store, tmp_path: Path) -> None:
    file, images = coco(tmp_path)
    assert take(store, file, "detection", images=images) == Imported(3, 0, 0)
    found = truths(store)
    assert found[0]["boxes"] == [[0, 0.1, 0.25, 0.35, 0.75, 1.0], [1, 0.5, 0.0, 1.0, 1.0, 1.0]]
    assert found[1] == {"boxes": []}
    with store.database.read() as connection:
        row = samples.rows(connection, ["import.found.0.0"])[0]
        assert row.encoding == "png"
    np.testing.assert_array_equal(samples.sample_array(store, row), X[0])
    assert take(store, file, "detection", images=images) == Imported(0, 3, 0)

    read = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    made = freeze(store, now_ms=NOW_MS)
    export(store, made.id, tmp_path / "out", form="coco", now_ms=NOW_MS)
    out = tmp_path / "out" / "annotations" / "instances_train.json"
    mine = read.COCO(str(out))
    assert [len(mine.getAnnIds(imgIds=one)) for one in sorted(mine.getImgIds())] == [2, 0, 1]
    guesses = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.9}
        for one in mine.dataset["annotations"]
    ]
    judge = COCOeval(mine, mine.loadRes(guesses), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0)
    again = Store.open(tmp_path / "again")
    folder = tmp_path / "out" / "images"
    assert import_file(again, out, split="train", now_ms=NOW_MS, images=folder, task="detection").new == 3
    assert sorted(map(str, truths(again).values())) == sorted(map(str, found.values()))
    again.close()


IMAGE = {"id": 1, "file_name": "0.png", "width": 40, "height": 20}
CATEGORY = {"id": 7, "name": "person"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"annotations": [{"image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]}]}, r"annotations\[0\]: image 99"),
        ({"annotations": [{"image_id": 10, "category_id": 7, "bbox": [0, 0, 99, 1]}]}, r"annotations\[0\]: bbox"),
        ({"annotations": [{"image_id": 10, "category_id": 7, "bbox": [0, 0, 0, 1]}]}, r"annotations\[0\]: box 0, 0, 0"),
        ({"annotations": [{"image_id": 10, "category_id": 7}]}, r"missing required field `bbox` - at `\$.annotations"),
        ({"images": [IMAGE | {"file_name": "../../x"}], "annotations": []}, r"images\[0\]: '../../x' is not inside"),
        ({"images": [IMAGE | {"file_name": "9.png"}], "annotations": []}, "No such file"),
        ({"images": [IMAGE | {"width": 41}], "annotations": []}, "40 x 20 pixels, and the document says 41 x 20"),
        ({"images": [IMAGE, IMAGE], "annotations": []}, "different ids"),
        ({"categories": [CATEGORY, CATEGORY | {"id": 8}], "annotations": []}, "different ids and names"),
    ],
)
def test_a_wrong_document_is_refused_with_the_place(store: Store, tmp_path: Path, changes: Any, says: str) -> None:
    file, images = coco(tmp_path, **changes)
    with pytest.raises(StoreError, match=says):
        take(store, file, "detection", images=images)
    assert truths(store) == {}


def test_what_is_wrong_far_down_is_refused_before_anything_is_taken_in(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_ROWS_AT_ONCE", 1)
    file, images = coco(tmp_path)
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:12])  # the last of them
    with pytest.raises(StoreError, match="image 2: .*2.png"):
        take(store, file, "detection", images=images)
    (images / "2.png").write_bytes(b"GIF89a")
    with pytest.raises(StoreError, match="image 2: .*2.png: expected png, jpeg, webp"):
        take(store, file, "detection", images=images)
    with store.database.read() as connection:
        assert (truths(store), trail.last_id(connection)) == ({}, 0)


def test_a_table_of_numbers_comes_in_by_the_command(tmp_path: Path) -> None:
    _, images = coco(tmp_path)
    (tmp_path / "speeds.csv").write_text("file,speed,angle\n0.png,1.5,\n2.png,-3,0.25\n")
    (tmp_path / "server.toml").write_text(
        f'[server]\nfleet = "f"\ndata_dir = "{tmp_path / "data"}"\ntask = "regression"\n'
    )
    words = ["data", "import", str(tmp_path / "speeds.csv"), "--images", str(images), str(tmp_path / "server.toml")]
    assert main(words) == 0
    store = Store.open(tmp_path / "data")
    assert truths(store) == {0: {"values": [[0, 1.5, 0.0]]}, 1: {"values": [[0, -3.0, 0.0], [1, 0.25, 0.0]]}}
    store.close()
    (tmp_path / "speeds.csv").write_text("file,speed\n0.png,fast\n")
    assert main(words) == 1


def test_other_formats_carry_truths_and_a_folder_a_class_refuses(store: Store, tmp_path: Path) -> None:
    take(store, npz(tmp_path, boxes=BOXES), "detection")
    made = freeze(store, now_ms=NOW_MS)
    export(store, made.id, tmp_path / "table", form="parquet", now_ms=NOW_MS)
    table = pq.read_table(tmp_path / "table" / "data").to_pydict()
    assert table["label"] == ["person, dog", "nothing", "dog", "nothing"]
    assert json.loads(table["truth"][2]) == {"boxes": [["dog", 0.0, 0.0, 1.0, 1.0, 1.0]]}
    export(store, made.id, tmp_path / "sheet", form="csv", now_ms=NOW_MS)
    assert '""boxes""' in (tmp_path / "sheet" / "samples.csv").read_text()
    with pytest.raises(StoreError, match="4 more than a class: .*--format coco"):
        export(store, made.id, tmp_path / "images", form="images", now_ms=NOW_MS)
    view = listing.shown(store, made.id)
    assert (view["by_class"], view["whole"]) == ({"dog": 2, "nothing": 2, "person": 1}, True)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    found = truth_arrays.read(npz(tmp_path, boxes=BOXES))
    assert (found.task, found.names, len(found.said)) == ("detection", ("person", "dog"), 4)
