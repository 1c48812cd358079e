"""HTTP proxies from the environment, as Go's ``golang.org/x/net/http/httpproxy`` (and so rclone) reads it."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import Self
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from resticd.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}


@frozen
class Proxy:
    """One HTTP proxy, reached in clear or over TLS."""

    host: str
    port: int
    tls: bool = False
    #: the value of Proxy-Authorization, if the proxy wants one
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """The proxy that ``http://user:password@host:port`` or ``host:port`` names.

        :param source: the variable that holds it, for the ``ConfigurationError``.
        """
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            port = url.port
        except ValueError:
            raise ConfigurationError(f"{source}: not the URL of a proxy") from None
        if url.scheme not in _PORTS:
            raise ConfigurationError(f"{source}: {url.scheme} proxies are not supported, http and https ones are")
        if not url.hostname:
            raise ConfigurationError(f"{source}: not the URL of a proxy")
        authorization = None
        if url.username is not None:
            login = f"{unquote(url.username)}:{unquote(url.password or '')}"
            authorization = "Basic " + base64.b64encode(login.encode()).decode()
        return cls(url.hostname, port or _PORTS[url.scheme], url.scheme == "https", authorization)


@frozen
class Proxies:
    """Which proxy leads to which host.

    :ivar http: for ``http://`` URLs, which the proxy is asked for.
    :ivar https: for ``https://`` URLs, through a tunnel that the proxy opens.
    :ivar exceptions: hosts that are reached directly: a domain means its subdomains too, ``.domain`` these alone,
        an address or a network in CIDR notation, each perhaps with ``:port``; ``*`` is every host.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """What ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``, or the same in lower case, say."""

        def variable(name: str) -> tuple[str, str]:
            for spelling in (name, name.lower()):
                if environment.get(spelling):
                    return environment[spelling], spelling
            return "", name

        def proxy(name: str) -> Proxy | None:
            value, spelling = variable(name)
            return Proxy.parse(value, spelling) if value else None

        exceptions = tuple(word.strip().lower() for word in variable("NO_PROXY")[0].split(",") if word.strip())
        return cls(proxy("HTTP_PROXY"), proxy("HTTPS_PROXY"), exceptions)

    def choose(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy to use for a URL, None for a direct connection. Loopback is always reached directly."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or _is_loopback(host) or any(_matches(word, host, port) for word in self.exceptions):
            return None
        return proxy


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _matches(word: str, host: str, port: int) -> bool:
    if word == "*":
        return True
    address = _address(host)
    if "/" in word:
        try:
            return address is not None and address in ipaddress.ip_network(word, strict=False)
        except ValueError:
            return False
    name = word
    if _address(word) is None and word.rpartition(":")[2].isdigit():
        name, _, wanted = word.rpartition(":")
        if int(wanted) != port:
            return False
    if address is not None:
        return _address(name) == address
    host = host.lower().rstrip(".")
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith("." + name)
