"""Client addresses: only what a trusted proxy vouches for counts."""

from __future__ import annotations

import pytest

from ingester.errors import ConfigError
from ingester.protocol.forwarded import address_text, client_address, is_in, parse_networks

TRUSTED = parse_networks("intake.trusted_proxies", ["10.0.0.0/8", "::1", "192.0.2.1"])


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("203.0.113.9", [b"1.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", [b"6.6.6.6, 1.1.1.1, 10.9.9.9"], "1.1.1.1"),
        ("10.0.0.1", [b"6.6.6.6", b"1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", [b"10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", [b"1.1.1.1:5555"], "1.1.1.1"),
        ("::1", [b"[2001:db8::1]:443"], "2001:db8::1"),
        ("::1", [b"2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", [b"::ffff:1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"1.1.1.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"\xff"], "10.0.0.1"),
    ],
)
def test_nearest_untrusted_address_is_the_client(
    peer: str, values: list[bytes], expected: str
) -> None:
    assert client_address(peer, values, TRUSTED) == expected


def test_address_has_one_spelling() -> None:
    assert address_text("::ffff:127.0.0.1") == "127.0.0.1"
    assert address_text("fe80::1%eth0") == "fe80::1"
    assert address_text("local") == "local"
    assert not is_in("local", TRUSTED)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "proxy.example"])
def test_what_is_no_network_names_the_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"intake\.trusted_proxies"):
        parse_networks("intake.trusted_proxies", [text])
