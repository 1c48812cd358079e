"""Certificates for TLS between processes on this machine, of an authority that nobody else trusts."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.ssl import CertificateOptions, PrivateCertificate


class Authority:
    """Issues certificates; ``path`` is its own, in PEM."""

    def __init__(self, directory: Path, name: str = "Test Authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key, None)
        self._directory = directory
        self.path = directory / "authority.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *hosts: str) -> Any:
        """The context of a server that is called so."""
        certificate, key = self._issue(*hosts)
        pem = certificate.public_bytes(serialization.Encoding.PEM) + _private(key)
        made = PrivateCertificate.loadPEM(pem)
        return CertificateOptions(privateKey=made.privateKey.original, certificate=made.original)

    def files(self, *hosts: str) -> tuple[Path, Path]:
        """Certificate and key of a server, as PEM files."""
        certificate, key = self._issue(*hosts)
        paths = self._directory / f"{hosts[0]}.pem", self._directory / f"{hosts[0]}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(_private(key))
        return paths

    def _issue(self, *hosts: str) -> tuple[x509.Certificate, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        return self._sign(subject, key, x509.SubjectAlternativeName(names)), key

    def _sign(self, subject: x509.Name, key: Any, names: x509.SubjectAlternativeName | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _private(key: Any) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
