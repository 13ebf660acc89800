from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from worker.sandbox import postgresql as launcher
from worker.sandbox.postgresql import PrivatePostgresql, ServerFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

SWITCHED = ("setpriv", "--pdeathsig=INT", *launcher.SWITCH_USER)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivatePostgresql]:
    with PrivatePostgresql(tmp_path / "a directory with spaces", settings={"fsync": "off"}) as server:
        yield server


def answers(server: PrivatePostgresql) -> bool:
    with psycopg.connect(server.superuser_url(), connect_timeout=5) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_version_at_hand_starts_and_answers(postgresql_any: PrivatePostgresql) -> None:
    assert answers(postgresql_any)


def test_it_keeps_its_port_its_password_and_its_data_over_a_restart(private: PrivatePostgresql) -> None:
    with psycopg.connect(private.superuser_url()) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    url = private.superuser_url()

    private.restart()

    assert private.superuser_url() == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_it_starts_again_after_a_power_cut(private: PrivatePostgresql) -> None:
    private.kill()
    private.start()

    assert answers(private)


def test_another_launcher_finds_the_same_password_beside_the_data(tmp_path: Path) -> None:
    with PrivatePostgresql(tmp_path) as first:
        password = first.superuser.password
    with PrivatePostgresql(tmp_path) as second:
        assert second.superuser.password == password
        assert answers(second)


def test_a_port_that_somebody_took_first_is_left_to_them(
    private: PrivatePostgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter((private.port, launcher.free_port()))
    monkeypatch.setattr(launcher, "free_port", lambda: next(ports))

    with PrivatePostgresql(tmp_path / "second") as second:
        assert second.port != private.port
        assert answers(second)
        assert answers(private)


def test_nobody_gets_in_without_a_password(private: PrivatePostgresql) -> None:
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host=private.host, port=private.port, user="postgres", dbname="postgres")


def test_a_frozen_server_stops_even_so(private: PrivatePostgresql) -> None:
    pid = private.pid
    private.freeze()

    private.stop()

    assert not alive(pid)


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from worker.sandbox.postgresql import PrivatePostgresql
        server = PrivatePostgresql(Path(sys.argv[1]))
        server.start()
        print(server.pid, flush=True)
        sys.stdin.read()
    """)
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own interpreter
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()

    end = time.monotonic() + 15
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid)


def test_without_user_namespaces_it_runs_as_an_unprivileged_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        monkeypatch.setattr(launcher, "_as_ordinary_user", lambda: SWITCHED)
    with PrivatePostgresql(tmp_path) as server:
        assert answers(server)
        owner = Path(f"/proc/{server.pid}").stat().st_uid

    assert owner == (launcher.UNPRIVILEGED if os.geteuid() == 0 else os.geteuid())


def test_a_user_without_a_name_runs_it_under_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = launcher._has_name
    monkeypatch.setattr(launcher, "_has_name", lambda user: user != os.geteuid() and named(user))
    launcher._as_ordinary_user.cache_clear()
    try:
        run_as = launcher._as_ordinary_user()
        name = subprocess.run([*run_as, "id", "-un"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - our own words
        with PrivatePostgresql(tmp_path) as server:
            assert answers(server)
    finally:
        launcher._as_ordinary_user.cache_clear()

    assert "unshare" in run_as
    assert name not in {"", "root"}


def test_where_no_namespace_is_to_be_had_a_user_without_a_name_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "_has_name", lambda _: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    launcher._as_ordinary_user.cache_clear()
    try:
        with pytest.raises(ServerFailed, match="give the user 1234 a line in /etc/passwd"):
            launcher._as_ordinary_user()
    finally:
        launcher._as_ordinary_user.cache_clear()


def test_a_directory_without_binaries_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="there is no initdb"):
        PrivatePostgresql(tmp_path, bin_directory=tmp_path)


def test_a_machine_without_any_server_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "server_binaries", lambda: ())

    with pytest.raises(ServerFailed, match="install the extra `embedded`"):
        PrivatePostgresql(tmp_path)


def test_another_system_than_linux_is_told_to_name_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(ServerFailed, match="needs Linux"):
        PrivatePostgresql(tmp_path)


def test_a_setting_that_the_server_refuses_is_shown(tmp_path: Path) -> None:
    server = PrivatePostgresql(tmp_path, settings={"max_connections": "many"})

    with pytest.raises(ServerFailed, match="max_connections"):
        server.start()


def test_binaries_behind_a_path_that_a_shell_would_read_start_all_the_same(tmp_path: Path) -> None:
    package = launcher.find_binaries().parents[1]
    odd = tmp_path / 'a "quoted" $HOME `path` \\'
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, odd / part.name, symlinks=True)
    binaries = odd / package.name / "pginstall" / "bin"
    with PrivatePostgresql(tmp_path / "server", bin_directory=binaries) as server, psycopg.connect(server.superuser_url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
