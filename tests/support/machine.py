"""A Debian with its own systemd, in namespaces of this machine: as near to a server as a test comes. Needs root."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

#: What a machine's first process finds: its own /dev, /proc, /run and control groups, and no way back.
_BOOT = """
set -e
cd "$1"
mount --make-rprivate /
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/shm dev/pts dev/mqueue
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t cgroup2 cgroup2 sys/fs/cgroup
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=no
"""


class Machine:
    """The Debian in ``root``, booted. Its network is a loopback interface of its own.

    A context manager; leaving it ends all of its processes.
    """

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--kill-child")
        with log.open("ab") as output:
            self._outside = subprocess.Popen(
                ["unshare", *namespaces, "bash", "-c", _BOOT, "boot", root],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._init = self._wait_for_init(log)
            self.wait(lambda: self.run("systemctl", "is-system-running", status=None).stdout.strip() == "running")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(
        self, *command: str | Path, status: int | None = 0, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine as root, and return what it wrote.

        :param status: the exit status it must end with; None allows any.
        """
        words = [*self._enter(environment), *map(str, command)]
        done = subprocess.run(
            words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        if status is not None and done.returncode != status:
            raise AssertionError(
                f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}{self.journal()}"
            )
        return done

    def begin(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Begin a command in the machine."""
        words = [*self._enter(environment), *command]
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def shell(self, script: str, **keywords: str) -> str:
        """What a script of the shell prints; it must succeed."""
        return self.run("sh", "-ec", script, **keywords).stdout

    def journal(self) -> str:
        """The end of the journal."""
        words = [*self._enter({}), "journalctl", "--no-pager", "-n", "40", "-o", "cat"]
        return subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    def wait(self, ready: Callable[[], object], seconds: float = 90) -> None:
        """Return once ``ready()`` is true; fails the test after a time."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.1)

    def stop(self) -> None:
        """End it at once: the kernel ends all processes of a namespace with its first one."""
        self._outside.kill()
        self._outside.wait()

    def _enter(self, environment: dict[str, str]) -> list[str]:
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        variables.update(environment)
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--root", "--wd")
        pairs = [f"{name}={value}" for name, value in variables.items()]
        return ["nsenter", f"--target={self._init}", *spaces, "env", "-i", *pairs]

    def _wait_for_init(self, log: Path) -> int:
        """The process id, seen from here, of the machine's first process, once that is systemd."""
        deadline = time.monotonic() + 60
        children = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children")
        while True:
            for child in children.read_text().split() if self._outside.poll() is None else ():
                if Path(f"/proc/{child}/exe").readlink().name == "systemd":
                    return int(child)
            assert self._outside.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
