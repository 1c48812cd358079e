from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address

from resticd.auth.proxies import TrustedProxies, address_text
from resticd.errors import ConfigurationError

LOCAL = IPv4Address("TCP", "127.0.0.1", 1)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "unix"])
def test_loopback_and_unix_sockets_are_trusted_where_nothing_is_listed(text: str, peer) -> None:
    assert TrustedProxies().trusts(peer(text))
    assert TrustedProxies.parse([]).trusts(peer(text))


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "::2"])
def test_nobody_else_is(text: str, peer) -> None:
    assert not TrustedProxies().trusts(peer(text))


@pytest.mark.parametrize(
    ("texts", "trusted", "others"),
    [
        (["10.0.0.0/8"], ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "127.0.0.1", "unix"]),
        (["192.0.2.1, unix", "2001:db8::/32"], ["192.0.2.1", "2001:db8::9", "unix"], ["192.0.2.2", "::1"]),
        (["loopback"], ["127.0.0.1", "::1"], ["unix"]),
        (["fe80::/10"], ["fe80::1%eth0"], ["fd00::1"]),
        (["none"], [], ["127.0.0.1", "::1", "unix"]),
    ],
)
def test_a_list_replaces_the_default(texts: list[str], trusted: list[str], others: list[str], peer) -> None:
    proxies = TrustedProxies.parse(texts)
    assert all(proxies.trusts(peer(text)) for text in trusted)
    assert not any(proxies.trusts(peer(text)) for text in others)


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "none,unix", "10.0.0.1,"])
def test_what_is_no_network_is_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--trusted-proxy: "):
        TrustedProxies.parse([text])


@pytest.mark.parametrize(
    ("x_forwarded_for", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1", "192.0.2.1"),
        ("203.0.113.9, 192.0.2.1, 127.0.0.5", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.2,127.0.0.3", "127.0.0.2"),
        ("192.0.2.1, unknown, 127.0.0.3", "127.0.0.3"),
        ("192.0.2.1, unknown", None),
        ("192.0.2.1,", None),
        ("<script>", None),
        ("", None),
    ],
)
def test_the_last_hop_that_is_no_proxy_is_the_client(x_forwarded_for: str, client: str | None) -> None:
    assert TrustedProxies().forwarded_address(LOCAL, x_forwarded_for, None) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("for=203.0.113.9, for=192.0.2.1", "192.0.2.1"),
        ("for=192.0.2.1 , proto=https;for=127.0.0.2", "192.0.2.1"),
        ('for="192.0.2.1:80"', "192.0.2.1"),
        ('by="a, for=203.0.113.9";for=192.0.2.1', "192.0.2.1"),
        (r'for="192.0.2\.1"', "192.0.2.1"),
        ('for="_gazonk"', None),
        ("for=192.0.2.1, for=unknown", None),
        ("for=192.0.2.1, proto=http", None),
        ('for=192.0.2.1, for="', None),
        ("for=192.0.2.1 garbage", None),
        ("for=192.0.2.1,", None),
        ("", None),
    ],
)
def test_the_forwarded_header_is_read_as_rfc_7239_says(forwarded: str, client: str | None) -> None:
    assert TrustedProxies().forwarded_address(LOCAL, None, forwarded) == client


def test_nobody_but_a_trusted_proxy_is_believed(peer) -> None:
    proxies = TrustedProxies()
    assert proxies.forwarded_address(peer("192.0.2.7"), "203.0.113.9", "for=203.0.113.9") is None
    assert proxies.forwarded_address(peer("unix"), "203.0.113.9", None) == "203.0.113.9"


def test_x_forwarded_for_counts_before_forwarded() -> None:
    assert TrustedProxies().forwarded_address(LOCAL, "192.0.2.1", "for=203.0.113.9") == "192.0.2.1"


@settings(deadline=None)
@given(st.text(), st.text())
def test_whatever_comes_an_address_or_nothing_is_found(one: str, other: str) -> None:
    for found in (
        TrustedProxies().forwarded_address(LOCAL, one, None),
        TrustedProxies().forwarded_address(LOCAL, None, other),
    ):
        assert found is None or ipaddress.ip_address(found)


@settings(deadline=None)
@given(st.lists(st.ip_addresses().filter(lambda a: not a.is_loopback), min_size=1, max_size=4))
def test_both_headers_say_the_same(addresses: list) -> None:
    hops = [str(address) for address in addresses]
    forwarded = ", ".join(f'for="[{hop}]"' if ":" in hop else f"for={hop}" for hop in hops)
    proxies = TrustedProxies()
    assert proxies.forwarded_address(LOCAL, ", ".join(hops), None) == proxies.forwarded_address(LOCAL, None, forwarded)


def test_an_address_is_written_without_zone_and_mapping(peer) -> None:
    assert address_text(peer("unix")) == "unix"
    assert address_text(peer("192.0.2.1")) == "192.0.2.1"
    assert address_text(IPv6Address("TCP", "::ffff:192.0.2.1", 1)) == "192.0.2.1"
    assert address_text(IPv6Address("TCP", "fe80::1%eth0", 1)) == "fe80::1"
