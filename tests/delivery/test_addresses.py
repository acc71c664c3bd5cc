"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress

import pytest

from ingester.delivery.addresses import is_allowed, parse_networks

REFUSED = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "169.254.169.254", "169.254.0.1", "192.0.0.1", "198.18.0.1", "203.0.113.1", "224.0.0.1",
    "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fc00::1", "fd12:3456::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1",
    "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",
    # Teredo: the client's address (inverted) is 10.0.0.1.
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_public_is_refused(text: str) -> None:
    assert not is_allowed(ipaddress.ip_address(text), ())


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public_is_allowed(text: str) -> None:
    assert is_allowed(ipaddress.ip_address(text), ())


def test_a_network_opens_what_lies_in_it_and_nothing_else() -> None:
    networks = parse_networks(["10.1.0.0/16", "::1/128"])
    for text, is_open in [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("::1", True),
        ("10.2.0.1", False),
        ("127.0.0.1", False),
    ]:
        assert is_allowed(ipaddress.ip_address(text), networks) is is_open


def test_link_local_is_opened_by_a_network_of_its_own_only() -> None:
    metadata = ipaddress.ip_address("169.254.169.254")
    everything = parse_networks(["0.0.0.0/0", "::/0"])
    assert is_allowed(ipaddress.ip_address("127.0.0.1"), everything)
    for text in ("169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "fd00:ec2::254"):
        assert not is_allowed(ipaddress.ip_address(text), everything)
    assert is_allowed(metadata, parse_networks(["169.254.169.0/24"]))
