"""The values that ``--addr`` takes, parsed once.

| text | meaning |
|---|---|
| ``127.0.0.1:8080``, ``[::1]:8080``, ``host:8080`` | that address; of a name its first IPv4 one, or else its first |
| ``:8080``, ``[::]:8080`` | all addresses, IPv4 and IPv6; ``0.0.0.0:8080`` is IPv4 alone |
| ``:0``, ``127.0.0.1:0`` | a port that the system chooses |
| ``unix:///path``, ``/path`` | a unix socket |
| ``KIND:…`` | a Twisted server endpoint, where KIND is one of Twisted's kinds or a plugin's |

``http://`` before a TCP address or an endpoint asks for plain text, ``tls://`` or ``https://`` for TLS. Without a
prefix the listener has TLS if there is a certificate. A unix socket takes no prefix and never has TLS; a Twisted
``ssl:`` endpoint brings its own.

The word before the first colon tells a host from an endpoint: ``tcp:8080`` is an endpoint, ``localhost:8080`` is not.
A host that is called as one of Twisted's own kinds is written with a dot behind: ``tcp.:8080``. A plugin's kind never
takes ``NAME:PORT`` away from hosts.

This is what rclone takes (``NewServer`` in ``lib/http/server.go``), and ``https://`` and endpoints besides. As in Go's
``net.Listen`` names prefer IPv4, so ``localhost`` is 127.0.0.1. rclone differs in three things: it serves TLS on unix
sockets too, takes relative paths behind ``unix://``, and listens on IPv6 as well when told ``0.0.0.0``.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from attrs import frozen
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from resticd.errors import ConfigurationError

_SCHEMES = {"http": False, "tls": True, "https": True}
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[A-Za-z0-9_.-]*)):(?P<port>[0-9]{1,5})\Z")
#: Twisted's own kinds of server endpoints (``twisted.internet.endpoints``)
_KINDS = frozenset({"tcp", "tcp6", "ssl", "unix", "systemd", "haproxy", "stdio"})


@frozen
class TcpAddress:
    """A host and a port.

    :ivar host: a name or a literal without brackets; empty for all addresses, IPv4 and IPv6.
    :ivar port: 0 where the system shall choose.
    :ivar tls: whether the text asks for TLS (True) or plain text (False); None where it says nothing.
    """

    host: str
    port: int
    tls: bool | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_prefix(self.tls)}{host}:{self.port}"


@frozen
class UnixAddress:
    """A unix socket at an absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@frozen
class EndpointAddress:
    """A Twisted server endpoint.

    :ivar description: as ``serverFromString`` takes it.
    :ivar tls: as in ``TcpAddress``.
    """

    description: str
    tls: bool | None = None

    def __str__(self) -> str:
        return f"{_prefix(self.tls)}{self.description}"

    @property
    def kind(self) -> str:
        """The word before the first colon."""
        return self.description.partition(":")[0]

    @property
    def is_unix(self) -> bool:
        """Whether it is a unix socket, which never has TLS."""
        return self.kind == "unix" or (self.kind == "systemd" and "domain=UNIX" in self.description.split(":"))

    @property
    def brings_tls(self) -> bool:
        """Whether it has TLS of its own."""
        return self.kind == "ssl"


Address = TcpAddress | UnixAddress | EndpointAddress


def parse_address(text: str) -> Address:
    """The value of one ``--addr``. Raises ``ConfigurationError`` that names the flag and ``text``."""
    try:
        return _parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--addr: {text!r}: {error}") from None


def _parse(text: str) -> Address:
    if text.startswith(("/", "unix://")):
        return _parse_unix(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _parse_stream(text, None)
    if scheme not in _SCHEMES:
        raise ValueError("the prefixes are http://, tls:// and unix://")
    if rest.startswith(("/", "unix://")):
        raise ValueError(f"a unix socket takes no {scheme}://")
    return _parse_stream(rest, _SCHEMES[scheme])


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix://")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("a unix socket needs an absolute path: unix:///run/resticd.sock")
    return UnixAddress(path)


def _parse_stream(text: str, tls: bool | None) -> TcpAddress | EndpointAddress:
    kind, colon, _ = text.partition(":")
    if colon and kind in _KINDS:
        return _parse_endpoint(text, tls)
    match = _HOST_AND_PORT.match(text)
    if match is None:
        if colon and kind in (parser.prefix for parser in getPlugins(IStreamServerEndpointStringParser)):
            return _parse_endpoint(text, tls)
        raise ValueError("not HOST:PORT, :PORT, [IPv6]:PORT, unix:///path or a Twisted endpoint such as tcp:8080")
    port = int(match["port"])
    if port > 65535:
        raise ValueError("ports end at 65535")
    if match["ipv6"] is None:
        return TcpAddress(match["host"], port, tls)
    try:
        literal = IPv6Address(match["ipv6"])
    except ValueError:
        raise ValueError("not an IPv6 address") from None
    return TcpAddress("" if literal.is_unspecified else match["ipv6"], port, tls)


def _parse_endpoint(text: str, tls: bool | None) -> EndpointAddress:
    address = EndpointAddress(text, tls)
    if address.kind == "stdio":
        raise ValueError("standard input and output are served by --stdio")
    if address.is_unix and tls is not None:
        raise ValueError("a unix socket takes no http:// or tls://")
    if address.brings_tls and tls is False:
        raise ValueError("an ssl: endpoint is never plain")
    return address


def _prefix(tls: bool | None) -> str:
    return {None: "", True: "tls://", False: "http://"}[tls]
