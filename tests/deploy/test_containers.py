"""Are the images and compose.yaml sound, as far as that can be seen without Docker?

A real linter and the schema of the Compose specification look at them; the broker of compose.yaml is started, with the
files and by the commands of its set-up, and the server that goes with it. What the Dockerfiles run is run in plain
virtual environments by `make soak`. (`make test-deb` runs the agent's in a Debian of its own.)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quadrants import ARTIFACT, images
from test_install import ROOT
from tool import tool

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
MADE_BY_PEOPLE = {"prometheus.token"}
yaml = pytest.importorskip("ruamel.yaml")


def loaded(file: Path) -> Any:
    return yaml.YAML(typ="safe").load(file)


def services() -> dict[str, Any]:
    return loaded(COMPOSE / "compose.yaml")["services"]


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    done = subprocess.run([tool("hadolint"), str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_what_is_copied_into_an_image_is_there_and_gets_past_dockerignore(file: Path) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", file.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    assert {source for source in copied if not (ROOT / source).exists()} == set()
    assert set(copied) <= let_in
    assert "USER 10001:10001" in file.read_text()


def test_compose_follows_the_schema_of_its_specification() -> None:
    argv = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE / "compose.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_file_that_compose_mounts_is_there_and_every_image_has_a_version() -> None:
    mounts = [mount.split(":")[0] for service in services().values() for mount in service.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith(".")]
    assert len(files) >= 8
    assert {Path(name).name for name in files if not (COMPOSE / name).exists()} == MADE_BY_PEOPLE
    named = {mount for mount in mounts if not mount.startswith(".")}
    assert named == set(loaded(COMPOSE / "compose.yaml")["volumes"])
    images = {service["image"] for service in services().values()}
    assert {image for image in images if not re.search(r":v?\d+\.\d+\.\d+$", image)} == {"winnow-server"}
    for service in services().values():
        if "build" in service:
            assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_what_prometheus_and_grafana_are_given_is_understood(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    shutil.copy(COMPOSE / "prometheus.yml", folder / "prometheus.yml")
    (folder / "winnow.token").write_text("secret")
    argv = [tool("promtool"), "check", "config", str(folder / "prometheus.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source = loaded(COMPOSE / "grafana-source.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    kept = loaded(COMPOSE / "grafana-dashboards.yml")["providers"][0]["options"]["path"]
    assert any(f"{kept}/winnow.json" in mount for mount in services()["grafana"]["volumes"])
    json.loads((DEPLOY / "grafana/winnow.json").read_text())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_set_up_makes_what_broker_and_server_need(tmp_path: Path) -> None:
    """The commands of compose.yaml, its paths put elsewhere; then the two programs that it starts."""
    starts_as_composed(tmp_path, {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)})


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_image_of_the_server_is_made_and_starts_as_composed(tmp_path: Path) -> None:
    """Minutes, and what pip downloads, PyTorch included: TORCH_INDEX names where from, as `--build-arg` does."""
    made = built(DEPLOY / "server/Dockerfile", tmp_path / "image")
    assert str(made) in said_by(made / "bin/python", "import server; print(server.__file__)")
    starts_as_composed(tmp_path, {"PATH": str(made / "bin"), "PYTHONPATH": ""})


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_image_of_the_agent_is_made_and_starts(tmp_path: Path) -> None:
    made = built(DEPLOY / "agent/Dockerfile", tmp_path / "image")
    assert str(made) in said_by(made / "bin/python", "import edge_agent; print(edge_agent.__file__)")
    np.savez(tmp_path / "stream.npz", x=images(300)[0])
    (tmp_path / "agent.toml").write_text(
        f'[device]\nname = "cam"\n[model]\nartifact = "{ARTIFACT}"\nvariant = "cpu-fp32"\n'
        '[source]\nkind = "replay"\npath = "stream.npz"\nstop_at_end = true\n'
    )
    for words in (("run",), ("status",)):
        argv = [made / "bin/python", "-I", made / "bin/winnow-agent", *words, tmp_path / "agent.toml"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "300 read" in done.stdout


def built(file: Path, folder: Path) -> Path:
    """The virtual environment that the first stage of a Dockerfile makes, in that folder in place of a container's."""
    base, made = folder / "base", folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    environment = {**os.environ, "PYTHONPATH": ""}
    environment["PATH"] = f"{base / 'bin'}{os.pathsep}{os.environ['PATH']}"
    where = folder
    for word, rest in instructions(file):
        rest = rest.replace("/opt/winnow/venv", str(made))
        if word == "WORKDIR":
            where = folder / rest.lstrip("/")
            where.mkdir()
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                subprocess.run(["cp", "-r", ROOT / source, where / target], check=True)
        elif word == "ARG":
            name, _, value = rest.partition("=")
            environment.setdefault(name, value)
        elif word == "RUN":
            done = subprocess.run(
                ["sh", "-c", rest], cwd=where, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr[-2000:]
    return made


def instructions(file: Path) -> list[tuple[str, str]]:
    """Of the first stage: (word, the rest of its line)."""
    text = "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("#"))
    first = text.replace("\\\n", " ").split("\nFROM ")[0]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in first.splitlines())]


def said_by(python: Path, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def starts_as_composed(tmp_path: Path, program: dict[str, str]) -> None:
    """What compose.yaml sets up and starts, with the programs in the PATH of `program`, is healthy."""
    mosquitto = tool("mosquitto")
    broker_port, web_port, portal_port = free_port(), free_port(), free_port()
    places = {
        "/var/lib/winnow-server": str(tmp_path / "data"),
        "/etc/mosquitto/winnow": str(tmp_path / "broker"),
        "/etc/winnow": str(tmp_path / "etc"),
        "/run/fleet.acl": str(DEPLOY / "broker/fleet.acl"),
        "winnow.lan": "localhost",
        '"0.0.0.0"': '"127.0.0.1"',
        ":8883": f":{broker_port}",
        "port = 8884": f"port = {portal_port}",
        "[web]": f"[web]\nport = {web_port}",
        "listener 8883": f"listener {broker_port} 127.0.0.1",
        "$$": "$",
    }

    def moved(text: str) -> str:
        for before, after in places.items():
            text = text.replace(before, after)
        return text

    for name in ("data", "broker", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/server.toml").write_text(moved((COMPOSE / "server.toml").read_text()))
    who = "user root\n" if os.geteuid() == 0 else ""  # in the container it is started as the user who owns the key
    (tmp_path / "mosquitto.conf").write_text(who + moved((DEPLOY / "broker/mosquitto.conf").read_text()))
    script = moved(services()["setup"]["command"][0])
    path = f"{program['PATH']}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **program, "PATH": path, "WINNOW_NAME": "localhost"}
    for _ in range(2):  # the second start of a fleet changes nothing
        subprocess.run(["sh", "-ec", script], env=environment, check=True, capture_output=True)
    server = ["winnow-server", "run", str(tmp_path / "etc/server.toml")]
    running = [
        subprocess.Popen([mosquitto, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL),
        subprocess.Popen(server, env=environment, stderr=subprocess.PIPE, text=True),
    ]
    try:
        assert becomes_healthy(running[1], port=web_port, environment=environment)
    finally:
        for process in running:
            process.terminate()
        said = running[1].communicate(timeout=30)[1]
        running[0].wait(timeout=30)
    assert f"broker mqtts://localhost:{broker_port}" in said


def becomes_healthy(server: subprocess.Popen[str], *, port: int, environment: dict[str, str]) -> bool:
    """Whether the HEALTHCHECK of the server's Dockerfile is content within a minute."""
    text = (DEPLOY / "server/Dockerfile").read_text()
    command = json.loads(re.findall(r"^HEALTHCHECK .* CMD (.*)$", text, re.MULTILINE)[0].replace("8080", str(port)))
    until_s = time.monotonic() + 60.0
    while time.monotonic() < until_s and server.poll() is None:
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.2)
    return False
