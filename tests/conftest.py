from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# A verdict on a commit is the same each time; `make fuzz` draws anew, and more.
settings.register_profile("repeatable", derandomize=True, deadline=None)  # how long it takes is not its verdict
settings.register_profile("brief", settings.get_profile("repeatable"), max_examples=25)  # what was drawn elsewhere, too
settings.register_profile("exploring", max_examples=1000, derandomize=False, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--catalogue",
        choices=("sqlite", "postgresql"),
        help="what keeps the catalogue in tests/server (else SQLite, and in those marked `catalogues` both)",
    )
    parser.addoption(
        "--blobs", choices=("shards", "bucket"), default="shards", help="what holds the bytes in tests/server"
    )


MEMORY, ROOM_BYTES = Path("/dev/shm"), 4_000_000_000


def pytest_configure() -> None:
    """What tests write is in memory where there is room: what is asked onto a disk is waited for, hundreds of times."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return
    there = os.statvfs(MEMORY)
    if there.f_bavail * there.f_frsize > ROOM_BYTES and not there.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # pytest's own word for where its folders are


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays: it need not be walked by every collection of garbage, which comes the sooner for that."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory):
    """New catalogues in files, for whoever opens many; see there."""
    from catalogue import Migrated  # here: the agent's tests run where the server is not installed

    return Migrated(tmp_path_factory.mktemp("migrated"))


@pytest.fixture
def secure_broker(tmp_path_factory: pytest.TempPathFactory):
    """The server's broker child with TLS, a fleet CA and access rules; `secure_broker.ca` makes members."""
    from fleet_ca import SecureBroker  # here: the agent's tests run where the server is not installed

    folder: Path = tmp_path_factory.mktemp("secure")
    broker = SecureBroker(folder)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory):
    """A real S3 with one bucket, and the credentials of its owner in the environment."""
    from s3 import S3Server, act_as  # here: the agent's tests run where the server is not installed

    with pytest.MonkeyPatch.context() as patch:
        act_as("owner", patch)
        server = S3Server(tmp_path_factory.mktemp("s3"))
        server.start()
        yield server
        server.kill()
