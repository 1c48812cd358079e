"""What ``--addr`` takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resticd.errors import ConfigurationError
from resticd.listeners.addresses import EndpointAddress, TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        ("localhost:8080", TcpAddress("localhost", 8080)),
        ("backup-1.example.org:80", TcpAddress("backup-1.example.org", 80)),
        (":8080", TcpAddress("", 8080)),
        (":0", TcpAddress("", 0)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("[::]:8080", TcpAddress("", 8080)),
        ("0.0.0.0:8080", TcpAddress("0.0.0.0", 8080)),
        ("http://:80", TcpAddress("", 80, False)),
        ("tls://[::1]:443", TcpAddress("::1", 443, True)),
        ("https://localhost:443", TcpAddress("localhost", 443, True)),
        ("unix:///run/resticd.sock", UnixAddress("/run/resticd.sock")),
        ("/run/a:8080", UnixAddress("/run/a:8080")),
    ],
)
def test_addresses(text, expected):
    """TCP addresses, unix sockets and prefixes are what they say."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:8080:interface=127.0.0.1", EndpointAddress("tcp:8080:interface=127.0.0.1")),
        ("tcp:8080", EndpointAddress("tcp:8080")),
        ("tcp6:8080", EndpointAddress("tcp6:8080")),
        ("http://tcp:8080", EndpointAddress("tcp:8080", False)),
        ("tls://tcp:8080", EndpointAddress("tcp:8080", True)),
        ("ssl:443:privateKey=k.pem", EndpointAddress("ssl:443:privateKey=k.pem")),
        ("unix:/run/x.sock", EndpointAddress("unix:/run/x.sock")),
        ("systemd:domain=INET:index=0", EndpointAddress("systemd:domain=INET:index=0")),
        ("haproxy:tcp:8080", EndpointAddress("haproxy:tcp:8080")),
        ("tcp.:8080", TcpAddress("tcp.", 8080)),
        ("tcp.example.org:8080", TcpAddress("tcp.example.org", 8080)),
    ],
)
def test_endpoints(text, expected):
    """The word before the first colon makes an endpoint."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:-1",
        "::1:8080",
        "[::1]",
        "[127.0.0.1]:80",
        "[::g]:80",
        "*:80",
        "a b:80",
        "127.0.0.1:80\n",
        "localhost:٣",
        "ftp://localhost:80",
        "http://",
        "http://localhost:80/",
        "http://http://localhost:80",
        "unix://run/x.sock",
        "unix://",
        "/run/",
        "http:///run/x.sock",
        "tls://unix:///run/x.sock",
        "tls://unix:/run/x.sock",
        "http://systemd:domain=UNIX:index=0",
        "http://ssl:443:privateKey=k.pem",
        "stdio:",
        "nonsense:8080:a=b",
    ],
)
def test_refused(text):
    """What is no address is refused in one line that names the flag and the value."""
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert str(caught.value).startswith(f"--addr: {text!r}: ")
    assert "\n" not in str(caught.value)


@given(
    st.builds(
        TcpAddress,
        st.one_of(st.ip_addresses().filter(lambda ip: str(ip) != "::").map(str), st.sampled_from(["", "localhost"])),
        st.integers(0, 65535),
        st.sampled_from([None, False, True]),
    )
)
def test_text_of_an_address(address):
    """An address written as text is the same address when read again."""
    assert parse_address(str(address)) == address
