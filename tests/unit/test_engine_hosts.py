from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from rotation.engines.hosts import Hosts
from rotation.errors import Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = list[tuple[int, int, int, str, tuple[str, int]]]


def resolver(*addresses: str) -> Callable[..., Answer]:
    return lambda *_, **__: [(0, 0, 0, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "localhost",
    ],
)
def test_this_machine_its_link_and_metadata_services_are_refused(host: str) -> None:
    with pytest.raises(Refused):
        Hosts(allow_private=False).addresses(host, 5)


@pytest.mark.parametrize("host", ["192.0.2.7", "10.1.2.3", "2001:db8::7"])
def test_other_addresses_are_taken_as_they_are(host: str) -> None:
    assert Hosts(allow_private=False).addresses(host, 5) == (host,)


def test_private_hosts_are_taken_where_they_are_allowed() -> None:
    assert Hosts(allow_private=True).addresses("127.0.0.1", 5) == ("127.0.0.1",)


def test_a_name_with_one_forbidden_address_is_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver("192.0.2.7", "169.254.169.254"))

    with pytest.raises(Refused):
        Hosts(allow_private=False).addresses("db.example.com", 5)


def test_a_name_is_looked_up_once_and_then_believed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(allow_private=False)
    monkeypatch.setattr(socket, "getaddrinfo", resolver("192.0.2.7", "192.0.2.8", "192.0.2.7"))
    assert hosts.addresses("db.example.com", 5) == ("192.0.2.7", "192.0.2.8")

    monkeypatch.setattr(socket, "getaddrinfo", resolver("127.0.0.1"))
    assert hosts.addresses("db.example.com", 5) == ("192.0.2.7", "192.0.2.8")


def test_a_name_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def never(*_: object, **__: object) -> Answer:
        answered.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(Unavailable):
        Hosts(allow_private=False).addresses("db.example.com", 0.05)
    answered.set()


def test_a_name_that_nobody_knows_is_unavailable() -> None:
    for host in ("nobody.invalid", "", "a" * 300, "bad name"):
        with pytest.raises(Unavailable):
            Hosts(allow_private=False).addresses(host, 5)
