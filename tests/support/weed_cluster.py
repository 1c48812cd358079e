"""SeaweedFS of several processes: a master, three volume servers that keep two copies, a filer and the S3 gateway."""

from __future__ import annotations

import contextlib
import urllib.request
from pathlib import Path

from bench.processes import Daemon
from support.peers import peer
from support.ports import free_port
from support.s3_servers import S3Server, write_logins


class WeedCluster(S3Server):
    """The gateway, with the others behind it.

    :ivar volumes: the volume servers, to be killed.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._others = contextlib.ExitStack()
        self.volumes: list[Daemon] = []
        try:
            self._start()
        except BaseException:
            self._others.close()
            raise

    def _start(self) -> None:
        port = free_port()
        master = f"-master=127.0.0.1:{port}"
        self._other(
            "master",
            port,
            "/cluster/status",
            "-defaultReplication=001",
            "-peers=none",
            "-electionTimeout=1s",
            "-volumeSizeLimitMB=64",
            "-telemetry=false",
            "-mdir=.",
        )
        for number in range(3):
            flags = (master, "-dir=.", "-max=20", "-dataCenter=dc1", "-rack=r1")
            self.volumes.append(self._other("volume", free_port(), "/status", *flags, name=f"volume{number}"))
        filer = free_port()
        self._other("filer", filer, "/", master, "-defaultReplicaPlacement=001")
        self.port = free_port()
        self.ports += (self.port,)
        arguments = [
            peer("weed"),
            "-logtostderr=true",
            "s3",
            f"-port={self.port}",
            f"-filer=127.0.0.1:{filer}",
            f"-config={write_logins(self._scratch)}",
            "-ip.bind=127.0.0.1",
            "-port.iceberg=0",
            "-port.lance=0",
        ]
        super().__init__(arguments, self._scratch / "s3.log", cwd=self._scratch)
        self.wait_until(lambda: self.answers("/healthz"), 60)

    def _other(self, kind: str, port: int, ready: str, *flags: str, name: str = "") -> Daemon:
        folder = self._scratch / (name or kind)
        folder.mkdir()
        # The filer reads this from its working directory.
        (folder / "filer.toml").write_text('[leveldb2]\nenabled = true\ndir = "./store"\n')
        self.ports += (port,)
        arguments = [
            peer("weed"),
            "-logtostderr=true",
            kind,
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-port={port}",
            *flags,
        ]
        daemon = self._others.enter_context(_Quick(arguments, folder / "log", cwd=folder))
        daemon.wait_until(lambda: _answers(port, ready))
        return daemon

    def kill(self) -> int:
        try:
            return super().kill()
        finally:
            self._others.close()


class _Quick(Daemon):
    """Takes its time to end in peace, which nobody needs."""

    def stop(self, timeout: float = 20) -> int:
        return self.kill()


def _answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
        return True
    return False
