"""The addresses to which deliveries may be sent."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.delivery.addresses import LOOPBACK, literal, networks, refusal, refused_host

REFUSED = {
    "0.0.0.0": "this network",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier-grade NAT",
    "100.127.255.255": "carrier-grade NAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "cloud metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "cloud metadata",
    "169.254.170.2": "cloud metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "reserved for protocols",
    "192.0.0.192": "cloud metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relays",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "cloud metadata",
    "::ffff:0:127.0.0.1": "not global",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::169.254.169.254": "cloud metadata",
    "64:ff9b:1::8.8.8.8": "local NAT64",
    "100::1": "discard",
    "2001::1": "this network",  # Teredo, whose server is 0.0.0.0
    "2001:0:4136:e378:8000:63bf:f5ff:fffe": "private",  # Teredo, whose client is 10.0.0.1
    "2001:0:a00:1::f7f7:f7f7": "private",  # Teredo, whose server is 10.0.0.1
    "2001:2::1": "reserved for protocols",
    "2001:20::1": "reserved for protocols",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "loopback",
    "2002:a9fe:a9fe::1": "cloud metadata",
    "3fff::1": "documentation",
    "4000::1": "not global",
    "5f00::1": "segment routing",
    "fc00::1": "private",
    "fd00:ec2::254": "cloud metadata",
    "fd12:3456::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}

PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1"),
    *("168.63.129.15", "169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1"),
    *("198.17.255.255", "198.20.0.1", "223.255.255.255"),
    *("2606:4700:4700::1111", "2a00:1450:4001::1", "2400:cb00::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"),
)

SPELLINGS = {
    "127.1": "127.0.0.1",
    "127.0.1": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "0x7f000001": "127.0.0.1",
    "0X7F000001": "127.0.0.1",
    "0x7f.1": "127.0.0.1",
    "0x7f.0x0.0x0.0x1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "00000000000000000000000177.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "0": "0.0.0.0",
    "0x": "0.0.0.0",
    "10.65535": "10.0.255.255",
    "10.1.65535": "10.1.255.255",
    "[::1]": "::1",
    "[::ffff:127.0.0.1]": "::ffff:127.0.0.1",
    "[fe80::1%25eth0]": "fe80::1%eth0",
    "fe80::1%eth0": "fe80::1%eth0",
}


@pytest.mark.parametrize(("address", "why"), REFUSED.items())
def test_what_is_not_public_is_refused_and_the_reason_told(address, why) -> None:
    assert why == refusal(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not_refused(address) -> None:
    assert refusal(ip_address(address)) is None


@given(st.ip_addresses(v=4))
def test_only_what_python_calls_global_too_is_not_refused(address) -> None:
    assert address.is_global or refusal(address) is not None


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{0}", "64:ff9b::{0}", "2002:{1:x}:{2:x}::1"]))
def test_an_address_within_another_is_judged_like_itself(address, form) -> None:
    around = ip_address(form.format(address, int(address) >> 16, int(address) & 0xFFFF))

    assert refusal(address) == refusal(around)


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        (LOOPBACK, "127.0.0.1"),
        (LOOPBACK, "::1"),
        (LOOPBACK, "::ffff:127.0.0.1"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3"),
        ("192.168.0.0/16, fd00::/8", "fd12::1"),
        ("10.9.8.7", "10.9.8.7"),
        ("169.254.169.254", "169.254.169.254"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_an_allowed_network_is_reached(allowed, address) -> None:
    assert refusal(ip_address(address)) is not None
    assert refusal(ip_address(address), networks(allowed)) is None


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("10.0.0.0/8", "192.168.0.1"),
        ("10.0.0.0/9", "10.200.0.1"),
        ("169.254.0.0/16", "169.254.169.254"),
        ("0.0.0.0/0, ::/0", "169.254.169.254"),
        ("0.0.0.0/0, ::/0", "::ffff:169.254.169.254"),
        ("::/0", "64:ff9b::10.0.0.1"),
        ("fc00::/7", "fd00:ec2::254"),
        ("169.254.0.0/16", "169.254.42.42"),
        ("fc00::/7", "fd00:42::42"),
        ("fc00::/7", "fd00:a9fe:a9fe::1"),
        ("fe80::/10", "fe80::a9fe:a9fe%eth0"),
    ],
)
def test_an_allowed_network_opens_no_other_and_no_metadata(allowed, address) -> None:
    assert refusal(ip_address(address), networks(allowed)) is not None


@pytest.mark.parametrize("text", ["", " , ", "none"])
def test_an_empty_list_allows_nothing(text) -> None:
    assert () == networks(text)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/8;fd00::/8", "none,10.0.0.0/8"])
def test_what_is_no_list_of_networks_is_refused_and_named(text) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        networks(text)


@pytest.mark.parametrize(("host", "address"), SPELLINGS.items())
def test_every_spelling_of_an_address_is_read_as_that_address(host, address) -> None:
    assert ip_address(address) == literal(host)


@given(st.ip_addresses(v=4))
def test_hexadecimal_octal_and_decimal_are_the_same_address(address) -> None:
    number = int(address)

    assert {address} == {literal(str(number)), literal(hex(number)), literal(f"0{number:o}"), literal(f"0x{number:08X}")}


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", "localhost", "example.com", "256.1.1.1.1", "1.2.3.4.5", "256.1", "1.256.1", "4294967296", "08", "0x7g"),
        *("1..2", "127.0.0.1.example.com", "a" * 2000, "9" * 2000, "١٢٧.1", "-1", "+1", "1e3"),
    ],
)
def test_a_name_is_no_address(host) -> None:
    assert literal(host) is None


@given(st.text(max_size=40))
def test_whatever_is_written_there_is_an_address_or_a_name(host) -> None:
    assert isinstance(literal(host), IPv4Address | IPv6Address | None)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost.", "a.localhost", "localhost.localdomain", "ip6-localhost", "127.1", "[::1]", "10.0.0.1"]
)
def test_a_host_that_is_private_by_its_spelling_need_not_be_looked_up(host) -> None:
    assert refused_host(host) is not None
    assert refused_host(host, networks("10.0.0.0/8," + LOOPBACK)) is None


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "notlocalhost", "8.8.8.8", "[2606:4700::1]"])
def test_a_host_name_is_checked_when_it_is_resolved(host) -> None:
    assert refused_host(host) is None
