"""Challenges and digest logins, with the examples of the RFCs."""

from __future__ import annotations

import hashlib

import pytest

from resticd.transport.challenges import Challenge, parse_challenges, parse_parameters
from resticd.transport.digest import Digest

RFC7616 = {
    "realm": "http-auth@example.org",
    "qop": "auth, auth-int",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
}
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def answer(digest: Digest, *arguments: str) -> dict[str, str]:
    scheme, _, rest = digest.authorize(*arguments).partition(" ")
    assert scheme == "Digest"
    return parse_parameters(rest)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616(algorithm: str, response: str) -> None:
    """The examples of section 3.9.1."""
    digest = Digest.choose([Challenge("digest", {**RFC7616, "algorithm": algorithm})])
    said = answer(digest, "Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE)
    assert said == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "nonce": RFC7616["nonce"],
        "uri": "/dir/index.html",
        "response": response,
        "algorithm": algorithm,
        "qop": "auth",
        "nc": "00000001",
        "cnonce": CNONCE,
        "opaque": RFC7616["opaque"],
    }


def test_rfc_7616_with_a_hidden_name() -> None:
    """The example of section 3.9.2: SHA-512-256, UTF-8 and userhash, with the name of its erratum 4897."""
    challenge = Challenge(
        "digest",
        {
            "realm": "api@example.org",
            "qop": "auth",
            "algorithm": "SHA-512-256",
            "nonce": "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
            "userhash": "true",
        },
    )
    said = answer(Digest.choose([challenge]), "Jäsøn Doe", "Secret, or not?", "GET", "/doe.json", CNONCE)
    assert said["username"] == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert said["userhash"] == "true"

    def hashed(text: str) -> str:
        return hashlib.new("sha512_256", text.encode()).hexdigest()

    secret, request = hashed("Jäsøn Doe:api@example.org:Secret, or not?"), hashed("GET:/doe.json")
    assert said["response"] == hashed(f"{secret}:{said['nonce']}:00000001:{CNONCE}:auth:{request}")


def test_rfc_2069() -> None:
    """A server without qop gets the old answer, with no count and no nonce of ours (RFC 2617, section 3.2.2.1)."""
    digest = Digest.choose([Challenge("digest", {"realm": "testrealm@host.com", "nonce": "abc"})])
    said = answer(digest, "Mufasa", "CircleOfLife", "GET", "/dir/index.html")
    assert set(said) == {"username", "realm", "nonce", "uri", "response"}


def test_sessions_and_counts() -> None:
    """Of a session the first hash is made of both nonces; the count goes up with each request and starts anew."""
    digest = Digest.choose([Challenge("digest", {**RFC7616, "algorithm": "MD5-sess"})])
    first = answer(digest, "Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE)
    assert (first["algorithm"], first["nc"]) == ("MD5-sess", "00000001")
    nonce = RFC7616["nonce"]
    secret = md5(f"{md5('Mufasa:http-auth@example.org:Circle of Life')}:{nonce}:{CNONCE}")
    assert first["response"] == md5(f"{secret}:{nonce}:00000001:{CNONCE}:auth:{md5('GET:/dir/index.html')}")
    assert answer(digest, "Mufasa", "x", "GET", "/")["nc"] == "00000002"
    digest.renew("other")
    again = answer(digest, "Mufasa", "x", "GET", "/")
    assert (again["nonce"], again["nc"]) == ("other", "00000001")


def test_quoting() -> None:
    """Quotes and backslashes in names are escaped and come out as they were."""
    digest = Digest.choose([Challenge("digest", {"realm": 'a "b" \\c', "nonce": "n"})])
    said = answer(digest, 'x"y\\z', "p", "GET", "/")
    assert (said["username"], said["realm"]) == ('x"y\\z', 'a "b" \\c')


@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        (['Digest realm="r", nonce="1"', 'Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth"'], "2"),
        (['Digest realm="r", nonce="1", algorithm=TIGER', 'Digest realm="r", nonce="2", algorithm=md5'], "2"),
        (['Digest realm="r", nonce="1", qop="auth-int"'], None),
        (['Digest realm="r", nonce="1", algorithm=MD5-sess'], None),
        (['Digest realm="r"', 'Basic realm="r"'], None),
        ([], None),
    ],
)
def test_choice(headers: list[str], chosen: str | None) -> None:
    """The strongest that can be answered, or none."""
    digest = Digest.choose(parse_challenges(headers))
    assert (digest and digest.nonce) == chosen


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        (['Basic realm="a, Digest b"'], ["basic"]),
        (['Digest realm="a", nonce="b", Basic realm="c"'], ["digest", "basic"]),
        (['Basic realm="a" , , Digest nonce = b'], ["basic", "digest"]),
        (["Negotiate", "NTLM TlRMTVNTUAAB==, Basic"], ["negotiate", "ntlm", "basic"]),
        (['"'], []),
        (['Basic realm="open'], ["basic"]),
        ([""], []),
    ],
)
def test_challenges(headers: list[str], schemes: list[str]) -> None:
    """Several in one header, and headers that make no sense."""
    assert [challenge.scheme for challenge in parse_challenges(headers)] == schemes
