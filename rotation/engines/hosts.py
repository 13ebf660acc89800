"""Where a database's host may be: its addresses, looked up once, checked, and then connected to as they were checked."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from rotation.errors import Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
"""Where clouds tell a machine its own credentials: AWS, Google and Azure; AWS on IPv6; Alibaba; Azure; Oracle."""

KEPT_SECONDS = 30.0
"""How long a name's addresses are believed: a failover by name is seen this much later at most."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Hosts:
    """Looks up hosts. Without `allow_private`, a name that leads to this machine, its link or a metadata service is refused."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._kept: dict[str, tuple[float, tuple[str, ...]]] = {}

    def addresses(self, host: str, seconds: float) -> tuple[str, ...]:
        """The host's addresses, in the order in which to try them.

        Raises `Refused` when one of them is not allowed, `Unavailable` when the name is not known within `seconds`.
        """
        kept = self._kept.get(host)
        if kept is not None and time.monotonic() - kept[0] < KEPT_SECONDS:
            return kept[1]
        found = _literal(host) or _looked_up(host, seconds)
        if not self._allow_private and any(_private(ipaddress.ip_address(one.partition("%")[0])) for one in found):
            raise Refused(
                f"the host {host} is this machine, its link or a metadata service",
                advice="name the database's public host, or allow private hosts in the settings",
            )
        self._kept[host] = (time.monotonic(), found)
        return found


def _literal(host: str) -> tuple[str, ...]:
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        return ()


def _looked_up(host: str, seconds: float) -> tuple[str, ...]:
    """The system's resolver has time-outs of its own, longer than ours: it is asked in a thread that we stop waiting for."""
    answer: Future[Sequence[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)
        else:
            answer.set_result([str(entry[4][0]) for entry in found])

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        return tuple(dict.fromkeys(answer.result(max(seconds, 0))))
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        raise Unavailable(f"the host {host} is not known to the name service") from None


def _private(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in METADATA or address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
