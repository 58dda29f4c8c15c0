"""Does a configuration say what is wrong with it, and is what is shown what is in force?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import AgentConfig, Device, Log, Outbox, Source, load_config
from edge_agent.contract import settings
from edge_agent.contract.errors import ConfigError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
configs = st.builds(
    AgentConfig,
    device=st.builds(Device, name=texts, fleet=texts, data_dir=texts),
    source=st.builds(Source, path=texts, rate_per_s=st.floats(0, allow_nan=False), stop_at_end=st.booleans()),
    outbox=st.builds(Outbox, max_rows=st.integers(1, 2**62)),
    log=st.builds(Log, level=st.sampled_from(["debug", "info", "warning", "error"]), predictions=st.booleans()),
)


def parse(text: str) -> AgentConfig:
    return settings.parse(text, AgentConfig, where="agent.toml")


def write(folder: Path, text: str) -> Path:
    path = folder / "agent.toml"
    path.write_text(text, encoding="utf-8")
    return path


@hypothesis.settings(deadline=None)  # a loaded machine is no mistake
@given(configs)
def test_what_is_shown_is_what_is_in_force(config: AgentConfig) -> None:
    assert parse(settings.show(config)) == config


def test_one_key_is_enough() -> None:
    assert parse('[device]\nname = "cam-1"') == AgentConfig(device=Device(name="cam-1"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[device]\nname = "a"\n[choose]\nacquisitoin = "margin"',
            r"\[choose\] acquisitoin \(did you mean 'acquisition'",
        ),
        ('[device]\nname = "a"\n[outbx]\n', r"unknown key outbx \(did you mean 'outbox'\?\); known: device, source"),
        ('[device]\nname = "a"\nzzzzz = 1', r"unknown key \[device\] zzzzz; known: name, fleet, data_dir"),
        ("[source]\n", "missing required field `device`"),
        ("[device]\n", "device: .*missing required field `name`"),
        ('device = "cam-1"', "device: Expected `object`, got `str`"),
        ('[device]\nname = "a"\n[model]\nthreads = "2"', "model.threads: Expected `int`, got `str`"),
        ('[device]\nname = "a"\n[model]\nthreads = 0', "model.threads: Expected `int` >= 1"),
        ('[device]\nname = "a"\n[budget]\nlabel_share = 1.5', "budget.label_share: Expected `float` <= 1.0"),
        ('[device]\nname = "a"\n[budget]\nlabel_share = nan', "budget.label_share: Expected `float`"),
        (
            '[device]\nname = "a"\n[log]\nlevel = "loud"',
            "log.level: Invalid enum value 'loud'; expected one of debug",
        ),
        (
            '[device]\nname = "a"\n[choose]\nstrategy = "vesal"',
            r"choose.strategy: Invalid enum value 'vesal' \(did you mean 'vessal'\?\); expected one of novelty_",
        ),
        ('[device]\nname = "a"\n[model]\nproviders = ["cpu", "gpu"]', r"providers\[1\]: .*'gpu' \(did you mean 'cpu'"),
        ("[device\n", "not TOML: .*line 1"),
    ],
)
def test_a_mistake_is_named_with_its_file(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^agent.toml: .*{said}|^agent.toml: {said}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("name", "cam/1"), ("name", ""), ("name", "x" * 64), ("fleet", "a b"), ("name", "-a")]
)
def test_a_name_that_is_no_topic_level_is_refused(tmp_path: Path, key: str, value: str) -> None:
    table = {"name": "cam-1", key: value}
    path = write(tmp_path, "[device]\n" + "".join(f'{k} = "{v}"\n' for k, v in table.items()))
    with pytest.raises(ConfigError, match=rf"agent\.toml: \[device\] {key} = '{value}'"):
        load_config(path)


def test_relative_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[device]\nname = "a"\n[source]\npath = "in"\n[model]\nartifact = "/abs/7"\n[uplink]\nca_file = "ca.pem"\n',
    )
    config = load_config(path)
    assert config.source.path == str(tmp_path / "in")
    assert config.device.data_dir == str(tmp_path / "winnow-data")
    assert config.model.artifact == "/abs/7"
    assert (config.uplink.ca_file, config.uplink.key_file) == (str(tmp_path / "ca.pem"), "")


@pytest.mark.parametrize(
    ("device", "found"),
    [
        ("drive.mp4", "{here}/drive.mp4"),
        ("/dev/video0", "/dev/video0"),
        ("0", "0"),
        ("picamera2", "picamera2"),
        ("rtsp://10.0.0.7/a", "rtsp://10.0.0.7/a"),
        ("videotestsrc ! appsink", "videotestsrc ! appsink"),
    ],
)
def test_a_video_file_is_meant_from_there_too_and_no_other_camera(tmp_path: Path, device: str, found: str) -> None:
    toml = f'[device]\nname = "a"\n[source]\nkind = "camera"\n[source.camera]\ndevice = "{device}"\n'
    camera = load_config(write(tmp_path, toml)).source.camera
    assert camera is not None
    assert camera.device == found.format(here=tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "agent.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"agent\.toml"):
        load_config(path)


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret \n")
    assert settings.read_secret(str(tmp_path / "password")) == "s3cret "
    assert settings.read_secret("") == ""
    with pytest.raises(ConfigError, match="gone"):
        settings.read_secret(str(tmp_path / "gone"))


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):  # for want of [device] name
        parse(text)


@given(
    st.dictionaries(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1), st.integers(), min_size=1)
)
def test_every_unknown_key_is_refused(extra: dict[str, Any]) -> None:
    known = {field.name for field in msgspec.structs.fields(AgentConfig)}
    unknown = {key: value for key, value in extra.items() if key not in known}
    if unknown:
        with pytest.raises(ConfigError, match="unknown key"):
            parse("".join(f"{key} = {value}\n" for key, value in unknown.items()) + '[device]\nname = "a"\n')


@pytest.mark.parametrize("key", ["bytes_per_day", "labels_per_day", "depth_labels", "drift_reserve_labels"])
def test_a_budget_without_an_end_is_refused_for_it_would_send_nothing(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, f'[device]\nname = "a"\n[budget]\n{key} = inf\n')
    with pytest.raises(ConfigError, match=rf"\[budget\] {key}: got inf, expected a finite number"):
        load_config(path)
