"""Which addresses may be connected to. The rules apply to the address that is dialled, whatever name or spelling led to it.

Tenants choose the endpoints, and requests start inside our network (SSRF), so only the public Internet and the ranges that a
deployment allows are reachable. Sources: the IANA special-purpose registries (RFC 6890 and its successors) and cloud vendors.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The allow-list for local trials.
LOOPBACK: Final = "127.0.0.0/8,::1/128"

#: The value for an explicitly empty allow-list; an empty text counts as not set.
NOTHING: Final = "none"

# Metadata services, which give cloud machines their credentials: AWS, Azure, GCP, Alibaba, Oracle. The last line is from
# cloud-init's documentation: Scaleway, Akamai, OpenStack. Allowed one by one only.
_METADATA: Final = frozenset(
    ip_address(each)
    for each in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
        *("169.254.42.42", "fd00:42::42", "fd00:a9fe:a9fe::1", "fe80::a9fe:a9fe"),
    )
)

_V4: Final = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "reserved for protocols"),
        ("192.52.193.0/24", "reserved for protocols"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved for protocols"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
    )
)

_GLOBAL_V6: Final = IPv6Network("2000::/3")  # all that IANA allocates
_V6: Final = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("2001::/23", "reserved for protocols"),
        ("2001:db8::/32", "documentation"),
        ("2620:4f:8000::/48", "reserved for protocols"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)

_NAT64: Final = IPv6Network("64:ff9b::/96")
_NUMBER: Final = re.compile(r"0x(?P<hex>[0-9a-f]*)|0(?P<octal>[0-7]*)|(?P<decimal>[1-9][0-9]*)", re.ASCII | re.IGNORECASE)
_BASES: Final = {"hex": 16, "octal": 8, "decimal": 10}
_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def networks(text: str) -> tuple[Network, ...]:
    """The ranges in `10.0.0.0/8, fd00::/8, 192.0.2.7`; none for an empty text or `none`. ValueError names the invalid piece."""
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    return () if pieces == [NOTHING] else tuple(map(_network, pieces))


def refusal(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Why `address` must not be dialled; None when it may be.

    For an IPv6 address that embeds an IPv4 one, the IPv4 address decides, also against `allowed`. A metadata address is
    allowed only by an entry of that single address.
    """
    carried = _carried(address)
    if carried:
        return next((why for each in carried if (why := refusal(each, allowed))), None)
    if isinstance(address, IPv6Address):
        address = IPv6Address(int(address))  # without its zone, which equality compares
    if address in _METADATA:
        return None if any(net.num_addresses == 1 and address in net for net in allowed) else "cloud metadata"
    if any(address in net for net in allowed):
        return None
    special: Iterable[tuple[Network, str]] = _V4 if isinstance(address, IPv4Address) else _V6
    why = next((why for net, why in special if address in net), None)
    return why or ("not global" if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 else None)


def refused_host(host: str, allowed: Sequence[Network] = ()) -> str | None:
    """Why a URL's host must not be requested, as far as is known without resolving it, which is left to others."""
    name = host.rstrip(".").lower()
    local = name in _LOCAL_NAMES or name.endswith(".localhost")
    address = IPv4Address("127.0.0.1") if local else literal(host)
    return None if address is None else refusal(address, allowed)


def literal(host: str) -> Address | None:
    """The address that `host` spells out, in any form that inet_aton(3) accepts; None when it is a name."""
    text = host.removeprefix("[").removesuffix("]").rstrip(".").replace("%25", "%")
    try:
        return ip_address(text)
    except ValueError:
        return _by_inet_aton(text.split("."))


def _by_inet_aton(parts: Sequence[str]) -> IPv4Address | None:
    """`127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`: the last number fills the remaining bytes."""
    numbers = [_number(part) for part in parts]
    *head, last = numbers
    if len(numbers) > 4 or last is None or last >= 256 ** (5 - len(numbers)):
        return None
    value = last
    for position, number in enumerate(head):
        if number is None or number > 255:
            return None
        value += number << 8 * (3 - position)
    return IPv4Address(value)


def _number(part: str) -> int | None:
    match = _NUMBER.fullmatch(part)
    if match is None or match.lastgroup is None or len(part) > 1000:
        return None
    return int(match[match.lastgroup] or "0", _BASES[match.lastgroup])


def _carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses embedded in `address`: mapped, 6to4, Teredo (server and client), NAT64."""
    if isinstance(address, IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return address.teredo or ()


def _network(piece: str) -> Network:
    try:
        return ip_network(piece)
    except ValueError:
        raise ValueError(f"{piece!r:.60} is not a range as 10.0.0.0/8 or fd00::/8") from None
