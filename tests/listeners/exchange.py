"""One request to a listener, and a site that tells what it saw of it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from cryptography import x509
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from resticd.listeners.handshake import common_name


class Mirror(Resource):
    """Answers with what the HTTP layer can know of a connection."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        transport = request.channel.transport
        return json.dumps(
            {
                "host": type(transport.getHost()).__name__,
                "peer": type(transport.getPeer()).__name__,
                "address": getattr(transport.getPeer(), "host", None),
                "secure": request.isSecure(),
                "common_name": common_name(transport),
            }
        ).encode()


def mirror_site() -> Site:
    site = Site(Mirror())
    site.noisy = False
    return site


@frozen
class Answer:
    seen: dict[str, Any]
    #: of the server's certificate, None without TLS
    serial: int | None = None
    alpn: str | None = None
    version: str | None = None
    resumed: bool | None = None


class Client:
    """A blocking connection. It asks on one connection as often as ``get`` is called.

    :param url: ``http://127.0.0.1:1/``, ``https://…`` or ``unix:///path``.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(20)
            self.socket.connect(parts.path)
        else:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parts.hostname, parts.hostname)
            self.socket = socket.create_connection((host, parts.port), timeout=20)
        if parts.scheme == "https":
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost", session=session)
        self._http = http.client.HTTPConnection("localhost")
        self._http.sock = self.socket

    def get(self) -> Answer:
        self._http.request("GET", "/")
        response = self._http.getresponse()
        assert response.status == 200
        seen = json.loads(response.read())
        if not isinstance(self.socket, ssl.SSLSocket):
            return Answer(seen)
        certificate = x509.load_der_x509_certificate(self.socket.getpeercert(binary_form=True))
        return Answer(
            seen,
            certificate.serial_number,
            self.socket.selected_alpn_protocol(),
            self.socket.version(),
            self.socket.session_reused,
        )

    def close(self) -> None:
        self.socket.close()


def fetch(url: str, context: ssl.SSLContext | None = None) -> Answer:
    """One request on a connection of its own; blocks."""
    client = Client(url, context)
    try:
        return client.get()
    finally:
        client.close()


async def ask(url: str, context: ssl.SSLContext | None = None) -> Answer:
    """``fetch`` in a thread, for a server in this process."""
    return await deferToThread(fetch, url, context)
