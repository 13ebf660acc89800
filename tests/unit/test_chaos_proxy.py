"""The proxy of the chaos run: what each fault does to a connection, and that it happens where it was drawn."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.chaos.proxy import Fault, FaultProxy, Plan, drawn

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION, ANSWER = b"a question", b"its answer"
PATIENCE = 10.0


@contextmanager
def conversing(plan: Plan) -> Iterator[tuple[FaultProxy, socket.socket]]:
    """A client that has asked its question through a proxy with this plan, of a server that answers each question and then waits."""

    class Planned(FaultProxy):
        def draw(self) -> Plan:
            return plan

    with socket.create_server(("127.0.0.1", 0)) as server, Planned(server.getsockname()[1], random.Random(1)) as proxy:  # noqa: S311 - it draws nothing
        serving = threading.Thread(target=_answer, args=(server,))
        serving.start()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:
            client.sendall(QUESTION)
            yield proxy, client
        serving.join()


def _answer(server: socket.socket) -> None:
    """One connection, until it ends."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(PATIENCE)
        try:
            while received(connection, QUESTION):
                connection.sendall(ANSWER)
        except ConnectionError:
            pass


def received(connection: socket.socket, what: bytes) -> bytes:
    """As much as there is of it before the other side ends."""
    got = b""
    while len(got) < len(what) and (more := connection.recv(len(what) - len(got))):
        got += more
    return got


def test_what_is_not_spoilt_comes_through() -> None:
    with conversing(Plan()) as (proxy, client):
        assert received(client, ANSWER) == ANSWER
        assert not proxy.happened


@pytest.mark.parametrize("fault", [Fault.DELAY, Fault.DRIP])
def test_what_is_late_comes_whole_and_the_connection_goes_on(fault: Fault) -> None:
    with conversing(Plan(fault, len(QUESTION) + 5, 0.1)) as (proxy, client):
        assert received(client, ANSWER) == ANSWER
        client.sendall(QUESTION)
        assert received(client, ANSWER) == ANSWER
        assert proxy.happened == {fault: 1}


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.HALF_CLOSE])
def test_an_answer_ends_in_the_middle(fault: Fault) -> None:
    with conversing(Plan(fault, len(QUESTION) + 5)) as (proxy, client):
        assert received(client, ANSWER) == ANSWER[:5]
        assert proxy.happened == {fault: 1}


def test_a_connection_is_reset() -> None:
    with conversing(Plan(Fault.RESET, len(QUESTION))) as (proxy, client):
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert proxy.happened == {Fault.RESET: 1}


def test_an_answer_never_comes() -> None:
    with conversing(Plan(Fault.DROP, len(QUESTION))) as (proxy, client):
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.happened == {Fault.DROP: 1}


def test_a_question_is_cut_before_it_arrives() -> None:
    with conversing(Plan(Fault.CUT, 3)) as (proxy, client):
        assert client.recv(1) == b""
        assert proxy.happened == {Fault.CUT: 1}


def test_a_server_that_is_away_is_a_connection_that_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = server.getsockname()[1]
    with FaultProxy(nobody, random.Random(1)) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as client:  # noqa: S311 - it draws nothing
        assert client.recv(1) == b""


def test_only_the_share_of_the_connections_is_spoilt_and_the_seed_makes_the_draws_the_same() -> None:
    plans = []
    for _ in range(2):
        chance = random.Random(7)  # noqa: S311 - the same each time
        plans.append([drawn(chance, 0.2) for _ in range(500)])
    assert plans[0] == plans[1]
    spoilt = [plan.fault for plan in plans[0] if plan.fault]
    assert set(spoilt) == set(Fault)
    assert 60 < len(spoilt) < 140
