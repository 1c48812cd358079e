"""SeaweedFS, an S3 server of one process."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from pathlib import Path

from bench.ports import free_port
from bench.processes import Daemon

#: Requests to ``bucket.DOMAIN``, by a proxy, mean a bucket.
DOMAIN = "s3.test"
ACCESS_KEY, SECRET_KEY = "resticd-test", "resticd-test-secret"


class S3Server(Daemon):
    """A server of S3 on ``port`` of 127.0.0.1."""

    port: int
    #: all of SeaweedFS's, this one too
    ports: tuple[int, ...] = ()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def options(self, provider: str, **more: str) -> dict[str, str]:
        """Options of rclone that lead to it."""
        return {
            "provider": provider,
            "endpoint": self.url,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            **more,
        }

    def answers(self, path: str = "/") -> bool:
        """Whether it answers a GET, with whatever status."""
        with contextlib.suppress(OSError):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(self.url + path, timeout=2).close()
            return True
        return False

    def stop(self, timeout: float = 20) -> int:
        """SeaweedFS takes its time to end in peace, which nobody needs."""
        return self.kill()

    def kill(self) -> int:
        """See ``Daemon``. SeaweedFS leaves its sockets in /tmp, one for each port and its gRPC's."""
        status = super().kill()
        numbers = {number for port in self.ports for number in (port, port + 10_000)}
        for path in Path("/tmp").glob("seaweedfs-*.sock"):
            if int(path.stem.rpartition("-")[2]) in numbers:
                path.unlink(missing_ok=True)
        return status


def write_logins(scratch: Path) -> Path:
    """A file that tells SeaweedFS of one administrator."""
    config = scratch / "s3.json"
    login = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    admin = {"name": "admin", "credentials": [login], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
    config.write_text(json.dumps({"identities": [admin]}))
    return config


def seaweedfs(program: Path, scratch: Path, *flags: str) -> S3Server:
    """SeaweedFS in one process; buckets are made on demand of CreateBucket alone.

    :param program: ``weed``.
    :param flags: more of ``weed server``'s.
    """
    data = scratch / "weed"
    data.mkdir()
    master, volume, filer, s3 = (free_port() for _ in range(4))
    server = S3Server(
        [
            program,
            "-logtostderr=true",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            f"-master.port={master}",
            "-master.volumeSizeLimitMB=256",
            f"-volume.port={volume}",
            "-volume.max=100",
            "-filer",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={s3}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.domainName={DOMAIN}",
            f"-s3.config={write_logins(scratch)}",
            *flags,
        ],
        scratch / "weed.log",
        cwd=scratch,
    )
    server.port, server.ports = s3, (master, volume, filer, s3)
    server.wait_until(lambda: server.answers("/healthz"), 60)
    return server
