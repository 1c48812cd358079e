"""OpenStack Swift with its s3api: four servers and a memcached, one replica in one directory."""

from __future__ import annotations

import contextlib
import getpass
import subprocess
from pathlib import Path

from support.peers import peer
from support.ports import free_port
from support.s3_servers import S3Server

ACCESS_KEY, SECRET_KEY = "test:tester", "testing"

_COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {etc}
devices = {devices}
mount_check = false
user = {user}
workers = 0
log_level = WARNING
log_name = {kind}
log_udp_host = 127.0.0.1
log_udp_port = 9
fallocate_reserve = 0
"""

_STORAGE = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """
[pipeline:main]
pipeline = catch_errors cache s3api tempauth bulk slo dlo versioned_writes symlink proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
check_bucket_owner = false
auth_pipeline_check = false

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin

[filter:bulk]
use = egg:swift#bulk

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo

[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true

[filter:symlink]
use = egg:swift#symlink
"""


class Swift(S3Server):
    """The proxy server, with the others behind it."""

    def __init__(self, scratch: Path) -> None:
        self._others = contextlib.ExitStack()
        etc, devices = scratch / "etc", scratch / "devices"
        etc.mkdir()
        (devices / "d1").mkdir(parents=True)
        (etc / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = p\n")
        memcached = free_port()
        try:
            others = [
                self._start_other(
                    ["memcached", "-u", getpass.getuser(), "-l", f"127.0.0.1:{memcached}"], scratch, memcached
                )
            ]
            for kind in ("account", "container", "object"):
                port = free_port()
                _make_ring(etc, kind, port)
                config = etc / f"{kind}.conf"
                values = {"kind": kind, "port": port, "etc": etc, "devices": devices, "user": getpass.getuser()}
                config.write_text((_COMMON + _STORAGE).format_map(values))
                others.append(self._start_other([peer(f"swift-{kind}-server"), config], scratch, port))
            self.port = free_port()
            config = etc / "proxy.conf"
            values = {"kind": "proxy", "port": self.port, "etc": etc, "devices": devices, "user": getpass.getuser()}
            config.write_text((_COMMON + _PROXY).format_map(values | {"memcached": memcached}))
            super().__init__([peer("swift-proxy-server"), config], scratch / "swift-proxy.log", cwd=scratch)
            for other in (*others, self):
                other.wait_for_port(other.port)
        except BaseException:
            self._others.close()
            raise

    def _start_other(self, arguments: list[str | Path], scratch: Path, port: int) -> S3Server:
        server = S3Server(arguments, scratch / f"{Path(arguments[0]).name}.log", cwd=scratch)
        server.port = port
        return self._others.enter_context(server)

    def options(self, provider: str, **more: str) -> dict[str, str]:
        login = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        return {**super().options(provider), **login, **more}

    def kill(self) -> int:
        try:
            return super().kill()
        finally:
            self._others.close()


def _make_ring(etc: Path, kind: str, port: int) -> None:
    builder = etc / f"{kind}.builder"
    for arguments in (
        ["create", "4", "1", "1"],
        ["add", f"r1z1-127.0.0.1:{port}/d1", "1"],
        ["rebalance"],
    ):
        done = subprocess.run(
            [peer("swift-ring-builder"), builder, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr  # 1 is a warning
