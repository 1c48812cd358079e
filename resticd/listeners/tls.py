"""The server's side of TLS: certificates that are read again when their files change.

There is no resumption of sessions: restic keeps its few connections, a key for tickets that lives as long as the server
would undo forward secrecy, and a client's certificate is checked anew on every connection.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from resticd.errors import ConfigurationError

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

DEFAULT_MIN_VERSION = "tls1.2"

_VERSIONS = {
    "tls1.0": SSL.TLS1_VERSION,
    "tls1.1": SSL.TLS1_1_VERSION,
    "tls1.2": SSL.TLS1_2_VERSION,
    "tls1.3": SSL.TLS1_3_VERSION,
}
# Ephemeral keys and authenticated encryption only; TLS 1.3 has no others.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
# TLS 1.0 and 1.1 know neither AES-GCM nor signatures without SHA-1, which OpenSSL 3 takes at level 0 alone.
_OLD_CIPHERS = _CIPHERS + b":ECDHE+AES:@SECLEVEL=0"
# For such a key OpenSSL would ask on the terminal. RFC 5958, and RFC 1421 for older files.
_ENCRYPTED = re.compile(rb"^(-----BEGIN ENCRYPTED |Proc-Type: 4,ENCRYPTED)", re.MULTILINE)
# OpenSSL's SSL_MODE_ENABLE_PARTIAL_WRITE, which PyOpenSSL sets and has no name for: a write would end after one record,
# of 16 KiB. What we write to is memory, so a whole write never has to wait.
_PARTIAL_WRITE = 1
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE


def configure_tls(
    cert: str | None,
    key: str | None,
    client_ca: str | None = None,
    min_version: str = DEFAULT_MIN_VERSION,
    protocols: Sequence[bytes] = (b"http/1.1",),
) -> ServerTls | None:
    """TLS as the flags ask for it, None where they do not. Raises ``ConfigurationError`` that names the flag.

    :param cert: ``--cert``, a PEM file: the certificate, then the chain up to the authority.
    :param key: ``--key``, a PEM file.
    :param client_ca: ``--client-ca``, a PEM file: clients must show a certificate of one of these authorities.
    :param min_version: ``--min-tls-version``, ``tls1.0`` to ``tls1.3``.
    :param protocols: what ALPN offers, the most preferred first. A client that offers none of them is served as one
        that knows no ALPN.
    """
    if min_version not in _VERSIONS:
        raise ConfigurationError(f"--min-tls-version: {min_version!r}: not one of {', '.join(_VERSIONS)}")
    if cert and key:
        return ServerTls(cert, key, client_ca or None, min_version, protocols)
    if cert:
        raise ConfigurationError("--cert: --key is missing")
    if key:
        raise ConfigurationError("--key: --cert is missing")
    if client_ca:
        raise ConfigurationError("--client-ca: --cert and --key are missing")
    return None


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """Makes the TLS side of each accepted connection; see ``configure_tls`` for the parameters.

    The files are looked at for every connection (three calls of stat(2), little beside a handshake) and read again when
    one has changed. Connections that run keep what they began with. When the new files do not work together the old
    certificate stays; the log says so once, and once more when it was replaced after all.
    """

    _log = Logger()

    def __init__(
        self, cert: str, key: str, client_ca: str | None, min_version: str, protocols: Sequence[bytes]
    ) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._min_version = min_version
        self._protocols = tuple(protocols)
        # Before the files are read: a change meanwhile is seen by the next look.
        self._seen = self._look()
        self._context = self._load()
        self._complaint: str | None = None

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See ``IOpenSSLServerConnectionCreator``."""
        self._reload_if_changed()
        return SSL.Connection(self._context)

    def _reload_if_changed(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._context = self._load()
        except ConfigurationError as error:
            # Files that are being written fail in several ways; repeat only what is new.
            if self._complaint != str(error):
                self._complaint = str(error)
                self._log.error("the old certificate stays in use: {reason}", reason=self._complaint)
        else:
            self._complaint = None
            self._log.info("new certificate from {cert} and {key}", cert=self._cert, key=self._key)

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells one state of the files from another."""
        return tuple(_stamp(path) for path in (self._cert, self._key, self._client_ca) if path is not None)

    def _load(self) -> SSL.Context:
        """A context of the files as they are now. Raises ``ConfigurationError`` that names flag and file."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_options(_OPTIONS)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.clear_mode(_PARTIAL_WRITE)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        minimum = _VERSIONS[self._min_version]
        context.set_min_proto_version(minimum)
        context.set_cipher_list(_CIPHERS if minimum >= SSL.TLS1_2_VERSION else _OLD_CIPHERS)
        context.set_alpn_select_callback(self._select_protocol)
        self._load_pair(context)
        if self._client_ca is not None:
            with _blame("--client-ca", self._client_ca, "holds no certificates in PEM form"):
                context.load_verify_locations(self._client_ca)
                # The authorities' names go to the client, which chooses its certificate by them.
                context.load_client_ca(os.fsencode(self._client_ca))
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        return context

    def _load_pair(self, context: SSL.Context) -> None:
        # First the key: then a certificate that does not fit is found by the check alone, whatever its type.
        with _blame("--key", self._key, "holds no private key in PEM form"):
            if _ENCRYPTED.search(Path(self._key).read_bytes()):
                raise ConfigurationError(f"--key: {self._key}: is encrypted, and nobody is there to type a passphrase")
            context.use_privatekey_file(self._key)
        with _blame("--cert", self._cert, "holds no certificate in PEM form"):
            context.use_certificate_chain_file(self._cert)
        try:
            context.check_privatekey()
        except SSL.Error:
            # OpenSSL's own words would be that there is no key: it has dropped the one that did not fit.
            raise ConfigurationError(f"--key: {self._key}: does not fit the certificate in {self._cert}") from None

    def _select_protocol(self, _: SSL.Connection, offered: list[bytes]) -> Any:
        # Typed so, since the type of NO_OVERLAPPING_PROTOCOLS has a private name.
        return next((protocol for protocol in self._protocols if protocol in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    # The time of the last change, not of the last write: it also tells that a file was made readable.
    return status.st_ctime_ns, status.st_size, status.st_ino


@contextlib.contextmanager
def _blame(flag: str, path: str, fault: str) -> Iterator[None]:
    """Turn what goes wrong into a ``ConfigurationError`` about ``path``."""
    try:
        # OpenSSL tells a file that cannot be opened from one without PEM in its own words.
        with Path(path).open("rb"):
            pass
        yield
    except OSError as error:
        raise ConfigurationError(f"{flag}: {path}: {error.strerror}") from None
    except SSL.Error as error:
        queue = error.args[0] if error.args else ()
        reason = f" ({queue[-1][-1]})" if queue and queue[-1][-1] else ""
        raise ConfigurationError(f"{flag}: {path}: {fault}{reason}") from None
