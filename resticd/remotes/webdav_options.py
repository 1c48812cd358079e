"""rclone's options of a WebDAV remote."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import quote, unquote_to_bytes, urlsplit

from attrs import field, frozen
from twisted.logger import Logger

from resticd.errors import ConfigurationError
from resticd.remotes.option_values import OptionValues

_log = Logger(namespace="resticd.remotes.webdav")

#: rclone's ``setQuirks`` in its ``backend/webdav/webdav.go``: who tells checksums by ``oc:checksums``.
_VENDORS = {
    "other": False,
    "rclone": False,
    "fastmail": False,
    "owncloud": True,
    "nextcloud": True,
    "infinitescale": True,
}
_UNSUPPORTED = {
    "sharepoint": "wants cookies of Microsoft's for a login, which resticd does not fetch",
    "sharepoint-ntlm": "wants a login by NTLM, which resticd does not speak",
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
#: Headers that belong to single requests.
_OURS = frozenset(("host", "content-length", "transfer-encoding", "connection", "range", "destination", "depth"))


@frozen(kw_only=True)
class WebDavOptions:
    """What a WebDAV remote is told. Names and meanings are rclone's, see its ``docs/content/webdav.md``.

    :ivar url: of the place that all keys lie under, percent-encoded, with a slash at its end.
    :ivar checksums: the server is one of those that know ``OC-Checksum``.
    :ivar bearer_token_command: the words of a command that prints a token.
    :ivar headers: sent with every request, to the host of ``url`` alone.
    """

    url: str
    checksums: bool = False
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    bearer_token_command: tuple[str, ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    unix_socket: str | None = None
    auth_redirect: bool = False

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Self:
        """Raises ``ConfigurationError`` where a value is wrong."""
        values = OptionValues("webdav", options)
        token = values.text("bearer_token")
        if any(character in token for character in "\r\n"):
            raise values.error("bearer_token", "has a line break in it")
        return cls(
            url=_url(values),
            checksums=_vendor(values),
            user=values.text("user"),
            password=values.text("pass"),
            bearer_token=token,
            bearer_token_command=_words(values),
            headers=_headers(values),
            unix_socket=values.text("unix_socket") or None,
            auth_redirect=values.switch("auth_redirect"),
        )

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port of ``url``."""
        return origin_of(self.url)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL with a scheme of HTTP. Raises ``ValueError``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL of HTTP")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _url(values: OptionValues) -> str:
    text = values.text("url").strip()
    if not text:
        raise values.error("url", "is missing")
    try:
        origin_of(text)
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise values.error("url", "is not a URL such as https://dav.example.com/files/me/") from None
    if parts.username is not None:
        raise values.error("url", "has a login in it: use user and pass")
    if parts.query or parts.fragment:
        raise values.error("url", "has a query or a fragment")
    # Whatever is encoded stays so, in our own spelling.
    path = quote(unquote_to_bytes(parts.path.rstrip("/")), safe="/~")
    if any(segment in (".", "..") for segment in path.split("/")):
        raise values.error("url", "has dot segments in its path")
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        netloc += f":{parts.port}"
    return f"{parts.scheme}://{netloc}{path}/"


def _vendor(values: OptionValues) -> bool:
    vendor = values.text("vendor") or "other"
    if vendor in _UNSUPPORTED:
        raise ConfigurationError(f"webdav: vendor = {vendor}: it {_UNSUPPORTED[vendor]}")
    if vendor not in _VENDORS:
        _log.warn('webdav: the vendor "{vendor}" is not known, it is taken for "other"', vendor=vendor)
    return _VENDORS.get(vendor, False)


def _words(values: OptionValues) -> tuple[str, ...]:
    """Rclone's ``SpaceSepList``: CSV with a space for the comma."""
    return tuple(filter(None, _csv(values, "bearer_token_command", " ")))


def _headers(values: OptionValues) -> tuple[tuple[str, str], ...]:
    """Rclone's ``CommaSepList`` of names and values in turn."""
    fields = _csv(values, "headers", ",")
    if len(fields) % 2:
        raise values.error("headers", "is not a list of names and values in turn: name,value,name,value")
    pairs = tuple(zip(fields[::2], fields[1::2], strict=True))
    for name, value in pairs:
        if _HEADER_NAME.match(name) is None or any(character in value for character in "\r\n\0"):
            raise values.error("headers", "has a name or a value that no header can have")
        if name.lower() in _OURS:
            raise values.error("headers", f"has {name}, which belongs to single requests")
    return pairs


def _csv(values: OptionValues, name: str, delimiter: str) -> list[str]:
    text = values.text(name)
    if not text:
        return []
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        raise values.error(
            name, 'is not CSV: a quote must begin and end a field, and is written "" within one'
        ) from None
    return rows[0] if rows else []
