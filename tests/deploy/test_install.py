"""Is what installs an agent sound, as far as that can be seen without installing one? (`make test-deb` installs.)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wheelhouse
from tool import tool

ROOT = Path(__file__).resolve().parent.parent.parent
AGENT = ROOT / "deploy/agent"
INSTALL = AGENT / "install.sh"
UNIT = AGENT / "winnow-agent.service"


def install(*options: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    """install.sh, by a plain sh; programs in `first` come before the system's."""
    path = f"{first}{os.pathsep}{os.environ['PATH']}" if first else os.environ["PATH"]
    argv = ["sh", str(INSTALL), *options]
    return subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=False)


def program(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("file", [INSTALL, *sorted((AGENT / "debian").glob("p*"))], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(file: Path) -> None:
    done = subprocess.run([tool("shellcheck"), str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_dry_run_says_every_step_and_does_none(tmp_path: Path) -> None:
    done = install("--dry-run", "--python", sys.executable, "--wheels", str(tmp_path), "--start")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    order = ["useradd", "install -d -m 0700 -o winnow", "-m venv", "--only-binary=:all:", "agent.toml", UNIT.name]
    places = [said.index(step) for step in order]
    assert places == sorted(places)
    assert f"--no-index --find-links {tmp_path}" in said
    assert all(line.startswith(("winnow: would", "    ")) for line in said.splitlines())
    assert not Path("/opt/winnow/venv").exists()


@pytest.mark.parametrize("machine", ["armv7l", "armv6l", "i686"])
def test_a_32_bit_system_is_refused_with_the_reason(tmp_path: Path, machine: str) -> None:
    done = install("--dry-run", first=program(tmp_path, "uname", f"echo {machine}"))
    assert done.returncode == 1
    assert f"32-bit ({machine}): onnxruntime has no wheel for it" in done.stderr


def test_a_32_bit_system_under_a_64_bit_kernel_is_refused_too(tmp_path: Path) -> None:
    program(tmp_path, "uname", "echo aarch64")
    program(tmp_path, "python3.11", 'case "$*" in *calcsize*) echo 32;; *) echo 3.11;; esac')
    done = install("--dry-run", "--python", "python3.11", first=tmp_path)
    assert done.returncode == 1
    assert "python3.11 is a 32-bit program under a 64-bit kernel" in done.stderr


def test_an_old_python_is_refused_and_named(tmp_path: Path) -> None:
    program(tmp_path, "old", "echo 3.9")
    done = install("--dry-run", "--python", "old", first=tmp_path)
    assert done.returncode == 1
    assert "Python 3.10 to 3.13 is needed; tried: old (3.9)" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--wheel", "x"), "--wheel: unknown option"),
        (("--wheels",), "--wheels: expected a value"),
        (("--wheels", "/nowhere"), "/nowhere: no such folder"),
        (("--token", "/nowhere"), "/nowhere: no such file"),
    ],
)
def test_what_is_mistyped_is_said(options: tuple[str, ...], words: str) -> None:
    done = install("--dry-run", "--python", sys.executable, *options)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(("option", "gone"), [("--uninstall", False), ("--purge", True)])
def test_only_a_purge_takes_configuration_and_data(option: str, gone: bool) -> None:
    said = install("--dry-run", option).stdout
    assert "rm -rf /opt/winnow/venv" in said
    assert ("/var/lib/winnow" in "".join(line for line in said.splitlines() if "rm -rf" in line)) == gone


def test_credentials_are_handed_on_while_they_are_there(tmp_path: Path) -> None:
    script, _, _ = INSTALL.read_text().rpartition('read_options "$@"')
    for name in ("ETC=/etc/winnow", "UNITS=/etc/systemd/system"):
        assert name in script
        script = script.replace(name, f"{name.partition('=')[0]}={tmp_path}")
    (tmp_path / "credentials").mkdir()
    secret, drop_in = tmp_path / "credentials/password", tmp_path / f"{UNIT.name}.d/credentials.conf"
    steps = f"{script}\nhas_systemd() {{ false; }}\npackaged=yes\ninstall_unit\n"
    for there in (False, True, False):
        secret.write_text("secret") if there else secret.unlink(missing_ok=True)
        subprocess.run(["sh", "-c", steps, str(INSTALL)], check=True)
        assert drop_in.exists() == there
        assert not there or f"LoadCredential=password:{secret}" in drop_in.read_text()


def wheel(folder: Path, name: str, module: str, code: str, *, needs: str = "") -> Path:
    made = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    needed = f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr(f"{module}.py", code)
        packed.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}")
        packed.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{info}/RECORD", f"{info}/RECORD,,\n")
    return made


class Board:
    """Where install.sh makes an environment, of wheels that hold a line each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wheels = folder, folder / "wheels"
        self.wheels.mkdir()
        wheel(self.wheels, "onnxruntime", "onnxruntime", "build = 'cpu'")
        self.gpu = wheel(self.wheels, "onnxruntime_gpu", "onnxruntime", "build = 'gpu'")
        self.bring("first")

    def bring(self, build: str) -> None:
        wheel(self.wheels, "winnow_edge", "edge_agent", f"build = {build!r}", needs="onnxruntime")

    def install(self, *, onnxruntime: Path | str = "") -> subprocess.CompletedProcess[str]:
        script, _, _ = INSTALL.read_text().rpartition('read_options "$@"')
        assert "PREFIX=/opt/winnow" in script
        script = script.replace("PREFIX=/opt/winnow", f"PREFIX={self.folder}")
        given = f"python={sys.executable}\npackage=winnow-edge\nwheels={self.wheels}\nonnxruntime={onnxruntime}"
        argv = ["sh", "-c", f"{script}\n{given}\ncheck_build\nmake_venv\n", str(INSTALL)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def build_of(self, module: str) -> str:
        argv = [self.folder / "venv/bin/python", "-I", "-c", f"import {module}; print({module}.build)"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return Board(tmp_path_factory.mktemp("board"))


def test_run_again_it_brings_a_build_of_the_same_number(board: Board) -> None:
    for build in ("first", "second"):
        board.bring(build)
        done = board.install()
        assert done.returncode == 0, done.stderr
        assert board.build_of("edge_agent") == build


def test_another_build_of_onnxruntime_is_still_there_after_the_script_ran_again(board: Board) -> None:
    """Two builds are two packages of the same files: taking the one away takes those of the other."""
    for _ in range(2):
        done = board.install(onnxruntime=board.gpu)
        assert done.returncode == 0, done.stderr
        assert board.build_of("onnxruntime") == "gpu"
    done = board.install()
    assert done.returncode == 1
    assert "onnxruntime_gpu-1.0 is installed" in done.stderr
    assert "--onnxruntime" in done.stderr


def test_script_image_and_package_bring_the_same_unless_told_otherwise() -> None:
    assert f"package='winnow-edge[{wheelhouse.EXTRAS}]'" in INSTALL.read_text()
    assert f"\nARG EXTRAS={wheelhouse.EXTRAS}\n" in (AGENT / "Dockerfile").read_text()
    assert "--package 'winnow-edge[@EXTRAS@]'" in (AGENT / "debian/postinst").read_text()


# --- the unit ---


@pytest.mark.parametrize("file", sorted(ROOT.glob("deploy/*/*.service")), ids=lambda path: path.name)
def test_systemd_takes_the_unit(file: Path, tmp_path: Path) -> None:
    unit = tmp_path / file.name  # it looks whether the program is there
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", file.read_text()))
    done = subprocess.run([tool("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if file.name in line]) == (0, [])


@pytest.mark.parametrize("file", sorted(ROOT.glob("deploy/*/*.service")), ids=lambda path: path.name)
def test_systemd_never_gives_a_unit_up_that_is_started_again(file: Path) -> None:
    """DefaultStartLimitBurst=5 starts in DefaultStartLimitIntervalSec=10s; systemd-system.conf(5)."""
    said = dict(re.findall(r"^(Restart|RestartSec|StartLimitIntervalSec)=(\S+)$", file.read_text(), re.MULTILINE))
    assert said["Restart"] == "always"
    assert said.get("StartLimitIntervalSec") == "0" or 5 * float(said["RestartSec"]) > 10.0


def test_the_unit_lets_every_sensor_at_its_devices() -> None:
    """By the names of /proc/devices: what libcamera opens of a Raspberry Pi, V4L2, ALSA and the serial ports."""
    allowed = set(re.findall(r"^DeviceAllow=char-(\w+) rw$", UNIT.read_text(), re.MULTILINE))
    assert allowed == {"video4linux", "media", "dma_heap", "alsa", "ttyUSB", "ttyACM", "ttyS", "ttyAMA"}
    assert "SupplementaryGroups=video audio dialout" in UNIT.read_text()
    jetson = (AGENT / "gpu.conf").read_text()
    assert "DevicePolicy=auto" in jetson
    assert "PrivateTmp=no" in jetson  # /tmp/argus_socket


def test_the_agents_unit_is_exposed_little(tmp_path: Path) -> None:
    argv = [tool("systemd-analyze"), "security", "--offline=true", "--threshold=25", str(UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd is older than 250")
    assert done.returncode == 0, done.stdout[-200:]  # 2.5 of 10


def test_an_agent_runs_where_memory_cannot_be_both_written_and_executed() -> None:
    """As MemoryDenyWriteExecute= has it, by the kernel's own prctl (6.3 on)."""
    code = (
        "import ctypes, mmap, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "try: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "except OSError: pass\n"
        "else: sys.exit(77)\n"
        "from pathlib import Path\n"
        "from edge_agent.model import Model\n"
        "import edge_agent.agent, edge_agent.identity.papers\n"
        f"Model(Path({str(ROOT / 'tests/golden/artifact-1')!r}), variant='cpu-fp32').check_golden()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
