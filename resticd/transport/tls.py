"""Certificates: whom to trust when a remote is reached over TLS."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS, trustRootFromCertificates
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def load_authorities(paths: Iterable[Path]) -> list[Certificate]:
    """All certificates of the PEM files. Raises ``ConfigurationError`` where one has none."""
    authorities = []
    for path in paths:
        try:
            text = path.read_bytes()
            blocks = [block.partition(_END)[0] for block in text.split(_BEGIN)[1:]]
            found = [Certificate.loadPEM(_BEGIN + block + _END + b"\n") for block in blocks]
        except OSError as error:
            raise ConfigurationError(f"--ca-cert: cannot read {path}: {error}") from None
        except crypto.Error:
            raise ConfigurationError(f"--ca-cert: {path} has a certificate that cannot be used") from None
        if not found:
            raise ConfigurationError(f"--ca-cert: {path} has no certificate in PEM format")
        authorities += found
    return authorities


@implementer(IPolicyForHTTPS)
class TrustPolicy:
    """Trusts the system's authorities, or the given ones, or every certificate.

    What is made for a host is kept: reading the system's authorities takes some 20 ms.

    :param authorities: PEM files; with any, only these authorities are trusted.
    :param check: False accepts every certificate for every name.
    """

    def __init__(self, authorities: Iterable[Path] = (), check: bool = True) -> None:
        trusted = load_authorities(authorities)
        self._trust_root = trustRootFromCertificates(trusted) if trusted else None
        self._check = check
        self._creators: dict[str, Any] = {}

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """See ``IPolicyForHTTPS``."""
        host = hostname.decode("ascii")
        if host not in self._creators:
            self._creators[host] = (
                # HTTP/1.1 alone, so no ALPN is needed
                optionsForClientTLS(host, self._trust_root) if self._check else _Unchecked(host)
            )
        return self._creators[host]


@implementer(IOpenSSLClientConnectionCreator)
class _Unchecked:
    """TLS without a look at the certificate."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname.encode("idna")
        self._context = CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(protocol)
        connection.set_tlsext_host_name(self._hostname)
        return connection
