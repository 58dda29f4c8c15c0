"""Does server.toml say what is wrong with it, and is what is shown what is in force?"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import settings
from server.config import Broker, Gates, Labeler, Rollout, ServerConfig, load_config
from server.errors import ServerConfigError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
configs = st.builds(
    ServerConfig,
    broker=st.builds(Broker, url=texts, port=st.integers(0, 65535)),
    labeler=st.builds(Labeler, kind=texts, files=st.lists(texts, max_size=3).map(tuple)),
    gates=st.builds(Gates, min_gain=st.floats(allow_nan=False)),
    rollout=st.builds(Rollout, rings=st.lists(texts, max_size=3).map(tuple)),
)


def write(folder: Path, text: str) -> Path:
    path = folder / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path


@given(configs)
def test_what_is_shown_is_what_is_in_force(config: ServerConfig) -> None:
    assert settings.parse(settings.show(config), ServerConfig, where="x") == config


def test_an_empty_file_is_enough_and_paths_are_meant_from_it(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[labeler]\nfiles = ["a.npz", "/abs/b.npz"]\n'))
    assert config.server.data_dir == str(tmp_path / "winnow-server-data")
    assert config.labeler.files == (str(tmp_path / "a.npz"), "/abs/b.npz")
    assert config.broker.password_file == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[teach]\nprocesses = 2", r"\[teach\] launch = 'here' is one process"),
        ("[teach]\nlaunch = 'torchrun'\nnodes = 2", r"\[teach\] rendezvous = '': expected host:port of this machine"),
        (
            "[teach]\nlaunch = 'torchrun'\nnodes = 3\nrendezvous = 'gpu-1'",
            r"\[teach\] rendezvous = 'gpu-1': .* the other 2",
        ),
        ("[teach]\nlaunch = 'ray'\nnodes = 2", r"\[teach\] nodes = 2: Ray knows its machines"),
        ("[teach]\nepoch = 3", r"unknown key \[teach\] epoch \(did you mean 'epochs'\?\)"),
        ("[rollot]\n", r"unknown key rollot \(did you mean 'rollout'\?\)"),
        ("[gates]\nmax_drop = 2.0", "gates.max_drop: Expected `float` <= 1.0"),
        ('[rollout]\nrings = "canary"', "rollout.rings: Expected `array`, got `str`"),
        ('[server]\nfleet = "a/b"', r"\[server\] fleet = 'a/b'"),
    ],
)
def test_a_mistake_is_the_servers_error_and_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ServerConfigError, match=rf"server\.toml: {said}"):
        load_config(write(tmp_path, text))


def stated(folder: Path, text: str) -> ServerConfig:
    return load_config(write(folder, text))


def test_the_catalogue_may_be_elsewhere(tmp_path: Path) -> None:
    assert not stated(tmp_path, "").store.shared
    near = stated(tmp_path, '[store]\nurl = "sqlite:///fleet.db"\n').store
    assert near.url == f"sqlite:///{tmp_path}/fleet.db"
    far = stated(tmp_path, '[store]\nurl = "postgresql://winnow@db/winnow"\npassword_file = "word"\n').store
    assert (far.shared, far.password_file) == (True, str(tmp_path / "word"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://db/winnow", r"\[store\] url: got 'mysql://db/winnow', expected postgresql://"),
        ("postgresql://db", r"\[store\] url: got 'postgresql://db', expected postgresql://"),
        ("sqlite://fleet.db/x", "with three slashes"),
        ("postgresql://winnow:hunter2@db/winnow", "holds a password"),
        ("postgresql://winnow@db/winnow?password=hunter2", "holds a password"),
        ("mysql://winnow:hunter2@db/winnow", "expected"),
    ],
)
def test_a_url_that_cannot_be_meant_is_an_error_and_no_password_is_shown(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ServerConfigError, match=said) as found:
        stated(tmp_path, f'[store]\nurl = "{url}"\n')
    assert "hunter2" not in str(found.value)


def test_blobs_lie_in_a_folder_beside_the_file_or_in_a_bucket(tmp_path):
    assert stated(tmp_path, "").store.blobs == ""
    assert stated(tmp_path, '[store]\nblobs = "bytes"\n').store.blobs == str(tmp_path / "bytes")
    far = stated(tmp_path, '[store]\nblobs = "s3://fleet/farm"\ns3_endpoint = "http://10.0.0.5:8333"\n').store
    assert (far.blobs, far.s3_endpoint) == ("s3://fleet/farm", "http://10.0.0.5:8333")


@pytest.mark.parametrize(
    ("stating", "said"),
    [
        ('blobs = "s3:/fleet"', r"\[store\] blobs: got 's3:/fleet', expected s3://bucket/prefix or a folder"),
        ('blobs = "gs://fleet/farm"', "expected s3://bucket/prefix or a folder"),
        ('blobs = "s3://Fleet"', "expected s3://bucket/prefix or a folder"),
        ('blobs = "s3://key:secret@fleet/farm"', r"got 's3://key:\.\.\.@fleet/farm', expected s3://bucket"),
        ('s3_endpoint = "10.0.0.5:8333"', "expected https://host:port"),
        ('s3_endpoint = "https://key:secret@host"', r"got 'https://key:\.\.\.@host', expected https://host:port; keys"),
    ],
)
def test_blobs_that_lie_nowhere(tmp_path, stating, said):
    with pytest.raises(ServerConfigError, match=said):
        stated(tmp_path, f"[store]\n{stating}\n")
