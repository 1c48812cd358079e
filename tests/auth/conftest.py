from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from resticd.auth.htpasswd import HtpasswdFile
from resticd.interfaces import Introduction
from resticd.workers import Workers

#: From Apache's manual ("Password Formats"), openssl and bcrypt. The password of all is myPassword.
BCRYPT = "$2b$04$abcdefghijklmnopqrstuuN2f4ZDSoR8/TAG80qUYDM9bRnmRm0Zy"
BCRYPT_2Y = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"
BCRYPT_2A = BCRYPT.replace("$2b$", "$2a$")
APR1 = "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/"
SHA = "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE="
HASHES = {"bcrypt": BCRYPT, "bcrypt-2y": BCRYPT_2Y, "bcrypt-2a": BCRYPT_2A, "apr1": APR1, "sha": SHA}


@pytest.fixture(params=HASHES.values(), ids=HASHES)
def any_hash(request: pytest.FixtureRequest) -> str:
    """Each kind of hash that is taken, of the password myPassword."""
    return request.param


@pytest.fixture
def bcrypt_hash() -> str:
    return BCRYPT


@pytest.fixture
def apr1_hash() -> str:
    return APR1


@pytest.fixture
def sha_hash() -> str:
    return SHA


@pytest.fixture
def workers() -> Iterator[Workers]:
    from twisted.internet import reactor

    pool = Workers(reactor, 2, "logins")
    pool.start()
    yield pool
    pool.stop()


@pytest.fixture
def aged() -> Callable[..., HtpasswdFile]:
    """Opens a password file as it would be an hour later, when no change of it can go unnoticed any more."""
    return lambda path: HtpasswdFile(path, now=lambda: time.time() + 3600, monotonic=itertools.count().__next__)


@pytest.fixture
def introduce() -> Callable[..., Introduction]:
    """``introduce(user, password, peer="192.0.2.1", **keywords)``: a request as it introduces its sender."""

    def make(
        user: str | None = None, password: str | None = None, peer: str = "192.0.2.1", **keywords: str
    ) -> Introduction:
        if user is not None:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            keywords["authorization"] = f"Basic {token}"
        return Introduction(peer=address(peer), **keywords)

    return make


def address(text: str) -> IAddress:
    if text == "unix":
        return UNIXAddress(None)
    return IPv6Address("TCP", text, 1) if ":" in text else IPv4Address("TCP", text, 1)


@pytest.fixture
def peer() -> Callable[[str], IAddress]:
    """The address of a connection's other end: of IPv4, of IPv6, or ``unix``."""
    return address


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A file with the users alice and bob, both with the password myPassword."""
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{BCRYPT}\nbob:{APR1}\n")
    return path
