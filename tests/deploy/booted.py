"""A Debian in a folder, started as a machine would: by its own systemd.

In namespaces of its own (mounts, processes, network, host name, cgroups), as a container is, with systemd told that it
is one. Its control groups have no controllers where the host keeps those for itself: limits of memory and processor are
taken, and not enforced.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

BOOT = """
folder=$1
mount --make-rprivate /
mount --bind "$folder" "$folder"
mount -t proc proc "$folder/proc"
mount -t sysfs sysfs "$folder/sys"
mount -t cgroup2 cgroup2 "$folder/sys/fs/cgroup"
for name in run tmp dev; do mount -t tmpfs tmpfs "$folder/$name"; done
for name in null zero full random urandom tty; do
    touch "$folder/dev/$name"
    mount --bind "/dev/$name" "$folder/dev/$name"
done
mkdir "$folder/dev/shm"
mount --make-rshared /  # or what systemd mounts for a service is not seen by it
exec chroot "$folder" env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"""
NAMESPACES = ("--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup")
NOT_HERE = (  # hardware and logins, which there are none of
    "systemd-udevd.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "console-getty.service",
    "getty.target",
)


class Booted:
    """While the context lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Booted:
        for unit in NOT_HERE:
            with contextlib.suppress(FileExistsError):
                (self._folder / "etc/systemd/system" / unit).symlink_to("/dev/null")
        argv = ["unshare", *NAMESPACES, "--fork", "--kill-child", "sh", "-ec", BOOT, "boot", str(self._folder)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        self.until("systemctl is-system-running", lambda said: said in ("running", "degraded"), within_s=60.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # --kill-child: its systemd goes, and with the first process all others
        self._process.wait()

    def sh(self, command: str) -> str:
        """Run it beside that systemd; what it printed, whatever came of it."""
        first = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not first:
            return ""
        enter = ["nsenter", "-t", first[0], "-m", "-p", "-n", "-u", "-i", "-C", "-r"]
        argv = [*enter, "sh", "-c", f"cd / && {command}"]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return "\n".join(line for line in done.stdout.splitlines() if "getcwd() failed" not in line)

    def until(self, command: str, holds: Callable[[str], bool], *, within_s: float) -> str:
        """Ask until it holds of the answer; SystemExit with the last one when it does not come."""
        until_s, said = time.monotonic() + within_s, ""
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise SystemExit(f"booted: systemd ended with {self._process.returncode}")
            if holds(said := self.sh(command)):
                return said
            time.sleep(0.5)
        raise SystemExit(f"booted: `{command}` says, after {within_s:g} s:\n{said}")
