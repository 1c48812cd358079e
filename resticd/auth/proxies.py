"""Proxies whose word is taken for who their clients are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress

from resticd.errors import ConfigurationError

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_LOOPBACK: tuple[_Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

# RFC 7239, section 4: a pair is a token, "=", and a token or a quoted string.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a word of the grammar
# Values with ":" or brackets must be quoted; many proxies do not, and there is no doubt what they mean.
_PAIR = re.compile(rf'({_TOKEN})=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))')
_SEPARATOR = re.compile(r"[ \t]*([,;])[ \t]*")

# An address as RFC 7239, section 6 writes it, also what some put into X-Forwarded-For: with a port, in brackets.
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[^:]*)?|([0-9.]+)(?::[^:]*)?|([0-9A-Fa-f:.]+)")


@frozen
class TrustedProxies:
    """The peers whose headers about their clients are believed: loopback and unix sockets, or those of a list."""

    networks: tuple[_Network, ...] = _LOOPBACK
    unix_sockets: bool = True

    @classmethod
    def parse(cls, texts: Iterable[str]) -> TrustedProxies:
        """Read ``--trusted-proxy``: addresses, networks such as ``10.0.0.0/8``, ``loopback``, ``unix`` or ``none``.

        A text may hold several of them with commas between. What is listed replaces the default, which counts where
        nothing is listed. Raises ``ConfigurationError``.
        """
        words = [word.strip() for text in texts for word in text.split(",")]
        networks: list[_Network] = []
        for word in words:
            if word == "loopback":
                networks += _LOOPBACK
            elif word not in {"unix", "none"}:
                networks.append(_parse_network(word))
        if "none" in words and len(words) > 1:
            raise ConfigurationError("--trusted-proxy: none excludes all others")
        return cls(tuple(networks), "unix" in words) if words else cls()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is believed."""
        return not self.networks and not self.unix_sockets

    def trusts(self, peer: IAddress) -> bool:
        """Whether the other end of a connection is one of them."""
        if isinstance(peer, UNIXAddress):
            return self.unix_sockets
        address = _peer_address(getattr(peer, "host", ""))
        return address is not None and self._contains(address)

    def forwarded_address(self, peer: IAddress, x_forwarded_for: str | None, forwarded: str | None) -> str | None:
        """The address of the client for whom a trusted ``peer`` speaks; None where that is not known.

        Each proxy adds whom it heard at the end, and what stands before that may be anybody's invention. So the list
        is read from its end, and the first hop that is not a trusted proxy itself is the client. The older
        X-Forwarded-For counts where there are both headers: more proxies set it, and they pass on a Forwarded
        header as it came from the client.
        """
        if (x_forwarded_for is None and forwarded is None) or not self.trusts(peer):
            return None
        if x_forwarded_for is not None:
            hops = [hop.strip() for hop in x_forwarded_for.split(",")]
        else:
            hops = list(_forwarded_hops(forwarded or ""))
        client = None
        for hop in reversed(hops):
            address = _parse_node(hop)
            if address is None:
                break
            client = str(address)
            if not self._contains(address):
                break
        return client

    def _contains(self, address: _Address) -> bool:
        return any(address in network for network in self.networks)


def address_text(peer: IAddress) -> str:
    """A peer's address for logs; ``unix`` for one on a unix socket, which has none."""
    if isinstance(peer, UNIXAddress):
        return "unix"
    host = getattr(peer, "host", "-")
    address = _peer_address(host)
    return host if address is None else str(address)


def _parse_network(text: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"--trusted-proxy: {error}") from None


def _parse_address(text: str) -> _Address | None:
    """An address without its zone; one of IPv4 that a socket of IPv6 shows as ``::ffff:…`` is what it is."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


# The same few peers come again and again, and ipaddress is slow.
_peer_address = lru_cache(maxsize=1024)(_parse_address)


def _parse_node(text: str) -> _Address | None:
    match = _NODE.fullmatch(text)
    return None if match is None else _parse_address(match[1] or match[2] or match[3])


def _forwarded_hops(header: str) -> Iterator[str]:
    """The ``for`` of each element of a Forwarded header, empty where an element has none; a fault ends all trust."""
    hops, hop, position = [], "", 0
    while True:
        pair = _PAIR.match(header, position)
        if pair is None:
            return
        if pair[1].lower() == "for":
            hop = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
        position = pair.end()
        if position == len(header):
            break
        separator = _SEPARATOR.match(header, position)
        if separator is None:
            return
        if separator[1] == ",":
            hops.append(hop)
            hop = ""
        position = separator.end()
    yield from hops
    yield hop
