"""Real S3 servers: SeaweedFS, OpenStack Swift (in ``support.swift``) and ``rclone serve s3``."""

from __future__ import annotations

from pathlib import Path

from bench.s3_server import ACCESS_KEY, DOMAIN, SECRET_KEY, S3Server, write_logins
from bench.s3_server import seaweedfs as start_seaweedfs
from support.peers import peer
from support.ports import free_port

__all__ = ["ACCESS_KEY", "DOMAIN", "SECRET_KEY", "S3Server", "rclone_s3", "seaweedfs", "write_logins"]


def seaweedfs(scratch: Path, *flags: str) -> S3Server:
    """SeaweedFS in one process; buckets are made on demand of CreateBucket alone.

    :param flags: more of ``weed server``'s.
    """
    return start_seaweedfs(peer("weed"), scratch, *flags)


def rclone_s3(scratch: Path) -> S3Server:
    """``rclone serve s3`` over a directory."""
    data = scratch / "rclone-s3"
    data.mkdir()
    port = free_port()
    server = S3Server(
        [
            peer("rclone"),
            "serve",
            "s3",
            "--config",
            "/dev/null",
            "--addr",
            f"127.0.0.1:{port}",
            "--auth-key",
            f"{ACCESS_KEY},{SECRET_KEY}",
            data,
        ],
        scratch / "rclone-s3.log",
        cwd=scratch,
    )
    server.port = port
    server.wait_for_port(port)
    return server
