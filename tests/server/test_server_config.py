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
