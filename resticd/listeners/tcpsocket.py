"""TCP sockets, bound as ``--addr`` says."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.threads import deferToThreadPool

from resticd.listeners.boundsocket import BACKLOG, BoundSocket

if TYPE_CHECKING:
    from resticd.interfaces import IReactor

#: How often to look for a port that is free for IPv4 and IPv6 alike.
_ATTEMPTS = 20


async def bind_tcp(reactor: IReactor, host: str, port: int) -> list[BoundSocket]:
    """Sockets that listen on ``host`` and ``port``, see ``listeners.addresses.TcpAddress``.

    Raises ``OSError`` (``socket.gaierror`` for a host that is not known). Names are looked up in a thread.

    All addresses are two sockets, one for each family: on a socket for both, IPv4 clients would come from addresses
    such as ``::ffff:127.0.0.1``, and lists of peers would have to know both spellings.
    """
    if not host:
        return [BoundSocket(reactor, bound) for bound in _bind_all(port)]
    family, address = await _resolve(reactor, host, port)
    return [BoundSocket(reactor, _bind(family, address))]


async def _resolve(reactor: IReactor, host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The first IPv4 address of ``host``, or else its first address, as ``bind`` takes it."""
    flags = socket.AI_PASSIVE
    if isIPAddress(host) or isIPv6Address(host.partition("%")[0]):
        # No look-up, so no thread: this works before the reactor runs too.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST)
    else:
        found = await deferToThreadPool(
            reactor, reactor.getThreadPool(), socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, flags=flags
        )
    family, _, _, _, address = next((one for one in found if one[0] == socket.AF_INET), found[0])
    return family, address


def _bind_all(port: int) -> list[socket.socket]:
    """One socket for each family that the machine has."""
    for attempt in range(_ATTEMPTS):
        ipv4 = _bind(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what the user asked for
        try:
            return [ipv4, _bind(socket.AF_INET6, ("::", ipv4.getsockname()[1]))]
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return [ipv4]
            ipv4.close()
            if port or error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returned or raised")


def _bind(family: socket.AddressFamily, address: Any) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound
