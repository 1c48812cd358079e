"""How to talk to remotes over HTTP: what rclone's flags of the same names say."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from resticd import __version__
from resticd.transport.proxies import Proxies


@frozen(kw_only=True)
class ClientSettings:
    """Settings of one ``HttpClient``; times are in seconds.

    :ivar contimeout: how long connecting may take, through a proxy too.
    :ivar timeout: how long the remote may make no progress, while it is its turn.
    :ivar low_level_retries: how often a request is tried in all where it can be repeated safely.
    :ivar connections: how many idle connections are kept for one host.
    :ivar keep_alive: how long an idle connection is kept. Shorter than what servers commonly allow, because a request
        whose body is streamed cannot be repeated when the server closes the connection under it.
    :ivar ca_cert: PEM files; with any, only their authorities are trusted.
    :ivar check_certificate: False accepts every certificate (``--no-check-certificate``).
    :ivar proxies: which proxy leads where; none unless ``Proxies.from_environment`` says so.
    :ivar unix_socket: connect to this socket whatever host a URL names.
    """

    contimeout: float = 60.0
    timeout: float = 300.0
    low_level_retries: int = 10
    user_agent: str = f"resticd/{__version__}"
    connections: int = 16
    keep_alive: int = 15
    ca_cert: tuple[Path, ...] = ()
    check_certificate: bool = True
    proxies: Proxies = field(factory=Proxies)
    unix_socket: str | None = None
