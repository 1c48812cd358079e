"""restic through resticd on real WebDAV servers, on good days and on bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemons import Server
from support.dav_servers import DavServer
from support.restic import Restic
from support.s3_fixtures import section
from support.sequences import make_files, whole_life

from resticd.config.obscure import obscure

Start = Callable[..., Server]


def described(server: DavServer, path: str | None = None, **more: str) -> dict[str, str]:
    """Variables that describe the remote ``store:``."""
    options = server.options(path, **more)
    return section(options | {"pass": obscure(options["pass"])}, type="webdav")


@pytest.mark.parametrize(
    ("kind", "path", "program"),
    [
        pytest.param("apache", "/basic/", "restic-old", marks=pytest.mark.xdist_group("apache")),
        pytest.param("apache", "/digest/", "restic-new", marks=pytest.mark.xdist_group("apache")),
        pytest.param("lighttpd", "/basic/", "restic-old", marks=pytest.mark.xdist_group("lighttpd")),
        pytest.param("lighttpd", "/digest/", "restic-new", marks=pytest.mark.xdist_group("lighttpd")),
        pytest.param("wsgidav", "/", "restic-old", marks=pytest.mark.xdist_group("wsgidav")),
        pytest.param("wsgidav", "/", "restic-new", marks=pytest.mark.xdist_group("wsgidav")),
        pytest.param("rclone_dav", "/", "restic-old", marks=pytest.mark.xdist_group("rclone_dav")),
        pytest.param("rclone_dav", "/", "restic-new", marks=pytest.mark.xdist_group("rclone_dav")),
    ],
)
def test_whole_life(
    request: pytest.FixtureRequest, start_resticd: Start, tmp_path: Path, kind: str, path: str, program: str
) -> None:
    """Every command, in a folder that init makes; nothing unfinished stays behind."""
    server: DavServer = request.getfixturevalue(kind)
    place = f"whole-life/{program}/some place"
    daemon = start_resticd(f"store:{place}", environment=described(server, path))
    whole_life(Restic(daemon.repository("laptop"), tmp_path, program), make_files(tmp_path / "files"), tmp_path)
    folder = server.folder.parent / path.strip("/") if path != "/" else server.folder
    stored = [file.name for file in (folder / place).rglob("*") if file.is_file()]
    assert "config" in stored
    assert [name for name in stored if name.endswith(".tmp")] == []
