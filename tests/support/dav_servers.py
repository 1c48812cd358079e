"""Real WebDAV servers: Apache's mod_dav, lighttpd's mod_webdav, WsgiDAV and ``rclone serve webdav``."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.processes import Daemon
from support.peers import peer
from support.ports import free_port

USER, PASSWORD, REALM = "jürgen", 'pass:"wörd"', "storage"
#: who servers run as where the tests run as root: nobody
_UNPRIVILEGED = 65534
_MODULES = Path("/usr/lib/apache2/modules")


class DavServer(Daemon):
    """A WebDAV server on ``port`` of 127.0.0.1 that keeps what is stored under ``folder``.

    :ivar path: of the URL, with a slash at its end.
    """

    port: int
    path: str
    folder: Path
    user = USER
    password = PASSWORD

    def options(self, path: str | None = None, **more: str) -> dict[str, str]:
        """The options of a remote, passwords in clear."""
        url = f"http://127.0.0.1:{self.port}{self.path if path is None else path}"
        return {"url": url, "user": self.user, "pass": self.password, **more}


class Room:
    """A folder that a server without privileges can read and write, removed with everything in it at the end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="resticd-dav-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self.path.chmod(0o755)

    def folder(self, name: str) -> Path:
        made = self.path / name
        made.mkdir()
        self._give(made)
        return made

    def file(self, name: str, text: str) -> Path:
        made = self.path / name
        made.write_text(text, encoding="utf-8")
        self._give(made)
        return made

    def _give(self, path: Path) -> None:
        if os.getuid() == 0:
            os.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)

    def start(self, *arguments: str | Path, port: int, path: str, folder: Path) -> DavServer:
        drop: tuple[str, ...] = ()
        if os.getuid() == 0:
            drop = ("setpriv", f"--reuid={_UNPRIVILEGED}", f"--regid={_UNPRIVILEGED}", "--clear-groups")
        server = DavServer([*drop, *arguments], self.path / "output.log", cwd=self.path)
        server.port, server.path, server.folder = port, path, folder
        server.wait_for_port(port)
        return server

    def remove(self) -> None:
        self._folder.cleanup()


def apache(room: Room) -> DavServer:
    """Apache with mod_dav: below ``/basic/`` with a basic login, below ``/digest/`` with a digest login (MD5)."""
    port, data = free_port(), room.folder("data")
    sha1 = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    basic = room.file("basic", f"{USER}:{{SHA}}{sha1}\n")
    ha1 = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).hexdigest()
    digest = room.file("digest", f"{USER}:{REALM}:{ha1}\n")
    names = [
        "mpm_event",
        "authn_core",
        "authn_file",
        "authz_core",
        "authz_user",
        "auth_basic",
        "auth_digest",
        "dav",
        "dav_fs",
        "dav_lock",
    ]
    lines = [
        *(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in names),
        f"ServerRoot {room.path}",
        f"DefaultRuntimeDir {room.folder('run')}",
        f"PidFile {room.path}/run/pid",
        f"ErrorLog {room.path}/run/error.log",
        f"Listen 127.0.0.1:{port}",
        "ServerName 127.0.0.1",
        f"DocumentRoot {data}",
        f"DavLockDB {room.path}/run/locks",
        # The threads of two processes: a test opens many connections at once.
        "StartServers 2\nThreadsPerChild 32\nMaxRequestWorkers 64",
    ]
    for name, provider, file in (("basic", "Basic", basic), ("digest", "Digest", digest)):
        place = room.folder(f"data/{name}")
        lines += [
            f"<Directory {place}>",
            "  Dav On",
            f'  AuthType {provider}\n  AuthName "{REALM}"\n  AuthUserFile {file}\n  Require valid-user',
            "</Directory>",
        ]
    config = room.file("httpd.conf", "\n".join(lines) + "\n")
    command = ("/usr/sbin/apache2", "-D", "FOREGROUND", "-f", config)
    return room.start(*command, port=port, path="/basic/", folder=data / "basic")


def lighttpd(room: Room) -> DavServer:
    """lighttpd's mod_webdav: below ``/digest/`` with a digest login (SHA-256), below ``/basic/`` with a basic one."""
    port, data = free_port(), room.folder("data")
    users = room.file("users", f"{USER}:{PASSWORD}\n")
    requirements = []
    for name, more in (("basic", ""), ("digest", '"algorithm" => "SHA-256", ')):
        room.folder(f"data/{name}")
        requirements.append(
            f'"/{name}/" => ("method" => "{name}", {more}"realm" => "{REALM}", "require" => "valid-user")'
        )
    config = room.file(
        "lighttpd.conf",
        f"""
server.modules = ("mod_auth", "mod_authn_file", "mod_webdav")
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{data}"
server.upload-dirs = ("{room.folder("uploads")}")
server.errorlog = "{room.path}/uploads/error.log"
auth.backend = "plain"
auth.backend.plain.userfile = "{users}"
auth.require = ({", ".join(requirements)})
webdav.activate = "enable"
webdav.sqlite-db-name = "{room.folder("state")}/webdav.db"
""",
    )
    command = ("/usr/sbin/lighttpd", "-D", "-f", config)
    return room.start(*command, port=port, path="/digest/", folder=data / "digest")


def wsgidav(room: Room) -> DavServer:
    """WsgiDAV, which asks for a digest login (MD5)."""
    port, data = free_port(), room.folder("data")
    # It takes what comes in a header for Latin-1.
    user, password = "juergen", 'pass:"word"'
    login: dict[str, Any] = {user: {"password": password}}
    config = {
        "host": "127.0.0.1",
        "port": port,
        "server": "cheroot",
        "numthreads": 16,
        "provider_mapping": {"/": str(data)},
        "http_authenticator": {"accept_basic": True, "accept_digest": True, "default_to_digest": True},
        "simple_dc": {"user_mapping": {"*": login}},
        "verbose": 1,
    }
    # JSON is what WsgiDAV reads too, and needs no library here.
    file = room.file("wsgidav.json", json.dumps(config))
    program = Path(sys.executable).with_name("wsgidav")
    # As the user who runs the tests, since the environment may be readable for nobody else.
    server = DavServer([program, "--config", file], room.path / "output.log", cwd=room.path)
    server.port, server.path, server.folder = port, "/", data
    server.user, server.password = user, password
    server.wait_for_port(port)
    return server


def rclone_webdav(room: Room) -> DavServer:
    """``rclone serve webdav`` over a folder, with a basic login."""
    port, data = free_port(), room.folder("data")
    login = ("--user", USER, "--pass", PASSWORD)
    command = (peer("rclone"), "serve", "webdav", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", *login, data)
    server = DavServer(command, room.path / "output.log", cwd=room.path)
    server.port, server.path, server.folder = port, "/", data
    server.wait_for_port(port)
    return server
