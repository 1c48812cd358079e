"""Certificates for TLS between processes on this machine, of an authority that nobody else trusts.

::

    authority = Authority(tmp_path)
    pair = authority.server()                     # pair.cert, pair.key: for --cert and --key
    laptop = authority.client("laptop")           # laptop.combined: for restic's --tls-client-cert
    authority.file                                # for --client-ca and restic's --cacert
    authority.server(hosts=("a.test",)).context   # for a server in this process
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.ssl import CertificateOptions, PrivateCertificate


@frozen
class Pair:
    """A certificate and its key.

    :ivar cert: PEM: the certificate, then what leads to the authority without the authority itself.
    :ivar key: PEM.
    :ivar combined: both in one file.
    """

    cert: Path
    key: Path
    combined: Path
    serial: int

    @property
    def context(self) -> CertificateOptions:
        """For a server of Twisted's; without the chain."""
        made = PrivateCertificate.loadPEM(self.combined.read_bytes())
        return CertificateOptions(privateKey=made.privateKey.original, certificate=made.original)

    def replace_with(self, other: Pair) -> None:
        """Put the other pair where this one lies, the key first, each in one step."""
        for mine, theirs in ((self.key, other.key), (self.cert, other.cert)):
            fresh = mine.with_name(mine.name + ".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(mine)


class Authority:
    """An authority that signs certificates for servers and clients.

    :param directory: where all files go.
    :param name: its common name, and the name of its file.
    :param issuer: the authority above, None for a root.
    """

    def __init__(self, directory: Path, name: str = "authority", issuer: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._issuer = issuer
        above = issuer or self
        self.certificate = above._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(_pem(self.certificate))

    def intermediate(self, name: str = "intermediate") -> Authority:
        """An authority below this one. Its certificates come with a chain."""
        return Authority(self._directory, name, self)

    def server(self, name: str = "server", hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")) -> Pair:
        """A server's certificate for ``hosts``, names and literal addresses."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return self._pair(name, _name(name), names, usage)

    def client(self, common_name: str | None, *more: str, file: str = "client") -> Pair:
        """A client's certificate whose subject has these common names, or none."""
        names = [common_name, *more] if common_name is not None else []
        return self._pair(file, _name(*names), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))

    def _pair(self, file: str, subject: x509.Name, *extensions: x509.ExtensionType) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), *extensions)
        pair = Pair(
            self._directory / f"{file}.cert.pem",
            self._directory / f"{file}.key.pem",
            self._directory / f"{file}.pem",
            certificate.serial_number,
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pair.cert.write_bytes(_pem(certificate) + self._chain())
        pair.key.write_bytes(secret)
        pair.combined.write_bytes(pair.cert.read_bytes() + secret)
        return pair

    def _chain(self) -> bytes:
        return b"" if self._issuer is None else _pem(self.certificate) + self._issuer._chain()

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self._key, hashes.SHA256())


def _name(*common_names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def client_context(authority: Path, pair: Pair | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A client's TLS that trusts ``authority`` and shows the certificate of ``pair``."""
    context = ssl.create_default_context(cafile=str(authority))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
