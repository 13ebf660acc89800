"""Keys, the audit trail, and the doctor."""

from __future__ import annotations

import sqlite3
import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rotation.errors import Fault
from rotation.sensitive import Sensitive
from rotation.store.keyring import read_keys
from tools import deployment_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from tests.command_line import CommandLine
    from worker.sandbox.broker import PrivateBroker


def test_keys_are_made_listed_and_added(bare_rollover: CommandLine) -> None:
    bare_rollover.done("keys", "create")
    path = bare_rollover.key_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = bare_rollover.done("keys", "list", "--json").data
    assert {one["use"] for one in before} == {"secrets", "verifiers", "markers", "audit"}
    added = bare_rollover.done("keys", "add").out.split()
    newest = {one["id"] for one in bare_rollover.done("keys", "list", "--json").data if one["newest"]}
    assert set(added) <= newest
    assert "newest" in bare_rollover.done("keys", "list").out
    bits = [line.split()[1] for line in path.read_text().splitlines() if not line.startswith("#")]
    assert not [one for one in bits if one in bare_rollover.done("keys", "list").out]


def test_a_key_file_is_made_once(bare_rollover: CommandLine) -> None:
    file = str(bare_rollover.directory / "some" / "keys")
    bare_rollover.done("keys", "create", file)
    assert "already" in bare_rollover("keys", "create", file).err


def test_the_first_thing_on_postgresql_is_a_key_file(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_STORE_URL", "postgresql://rollover@127.0.0.1:1/rollover")
    assert "rollover keys create" in bare_rollover("status").err
    made = bare_rollover.done("keys", "create")
    path = bare_rollover.directory / "state" / "rollover.keys"
    assert f"ROLLOVER_KEYS_FILE={path}" in made.err
    monkeypatch.setenv("ROLLOVER_KEYS_FILE", str(path))
    assert len(bare_rollover.done("keys", "list", "--json").data) == 4


def test_a_key_file_is_made_where_the_setting_says(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bare_rollover.directory / "elsewhere" / "keys"
    monkeypatch.setenv("ROLLOVER_KEYS_FILE", str(path))
    bare_rollover.done("keys", "create")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_relative_data_directory_is_told_before_keys_are_made(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_DATA_DIR", "state")
    answer = bare_rollover("keys", "create")
    assert answer.code == 2
    assert "ROLLOVER_DATA_DIR" in answer.err


def test_a_new_keyring_is_printed_for_whoever_hands_it_out(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = bare_rollover.done("keys", "new").out
    assert printed != bare_rollover.done("keys", "new").out
    assert not (bare_rollover.directory / "state").exists()
    monkeypatch.setenv("ROLLOVER_KEYS", printed)
    assert "holds the keys themselves" in bare_rollover("keys", "create").err
    bare_rollover.done("migrate")
    uses = [one["use"] for one in bare_rollover.done("keys", "list", "--json").data]
    assert uses == ["secrets", "verifiers", "markers", "audit"]


def test_what_make_secrets_makes_is_a_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(deployment_secrets.__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    deployment_secrets.main()
    keys = tmp_path / "secrets" / "keys"
    assert len(read_keys(Sensitive(keys.read_text())).keys) == 4
    before = keys.read_text()
    deployment_secrets.main()
    assert keys.read_text() == before


def test_keys_are_not_added_to_nothing(bare_rollover: CommandLine) -> None:
    answer = bare_rollover("keys", "add", "/nonexistent/keys")
    assert answer.code == 2
    assert "rollover keys create" in answer.err


def test_keys_in_a_variable_have_no_file(bare_rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bare_rollover.directory / "keys"
    bare_rollover.done("keys", "create", str(file))
    monkeypatch.setenv("ROLLOVER_KEYS", file.read_text())
    assert bare_rollover("keys", "add").code == 2
    assert len(bare_rollover.done("keys", "list", "--json").data) == 4


def test_a_whole_trail_verifies_and_a_changed_one_does_not(rollover: CommandLine) -> None:
    rollover.with_resource()
    assert rollover.done("audit", "verify", "--json").data == {"ok": True, "faults": []}
    assert "whole" in rollover.done("audit", "verify").err
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        connection.execute("UPDATE events SET actor = 'nobody' WHERE kind = 'server_added'")
    connection.close()
    answer = rollover("audit", "verify")
    assert answer.code == 1
    assert "was changed" in answer.out
    assert not rollover("audit", "verify", "--json").data["ok"]


def test_the_evidence_for_a_period_is_verified_by_whoever_has_the_key_and_no_store(
    rollover: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = rollover.with_resource()
    whole = rollover.done("audit", "export", "--from", "2020-01-01").out
    one = rollover.done("audit", "export", "--from", "2020-01-01T00:00+01:00", "--to", "2199-01-01", "--resource", name).out
    assert '"kind":"resource_registered"' in one
    assert "server_added" in whole
    assert "server_added" not in one
    before = rollover.done("audit", "export", "--from", "2020-01-01", "--to", "2020-02-01").out
    assert '"is":"line"' not in before
    (key,) = (line.split()[1] for line in rollover.key_file.read_text().splitlines() if line.startswith("audit"))
    keys = rollover.file("auditor.keys", f"audit {key}\n")
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(rollover.directory / "nowhere"))
    monkeypatch.setenv("ROLLOVER_KEYS_FILE", keys)
    for export in (whole, one, before):
        assert rollover.done("audit", "verify", "--file", rollover.file("export", export), "--json").data == {"ok": True, "faults": []}
    changed = rollover("audit", "verify", "--file", rollover.file("export", whole.replace("server_added", "server_found")))
    assert changed.code == 1
    assert "was changed" in changed.out
    assert not (rollover.directory / "nowhere").exists()


def test_a_configured_audit_key_verifies_an_export(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_AUDIT_KEY", "an audit key of more than 32 characters")
    rollover.with_resource()
    export = rollover.file("export", rollover.done("audit", "export", "--from", "2020-01-01").out)
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(rollover.directory / "nowhere"))
    rollover.done("audit", "verify", "--file", export)
    monkeypatch.setenv("ROLLOVER_AUDIT_KEY", "another key of more than 32 characters")
    assert rollover("audit", "verify", "--file", export).code == 1
    monkeypatch.delenv("ROLLOVER_AUDIT_KEY")
    assert "there is no key file" in rollover("audit", "verify", "--file", export).err


def test_a_keyring_in_a_variable_verifies_an_export(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    rollover.with_resource()
    export = rollover.file("export", rollover.done("audit", "export", "--from", "2020-01-01").out)
    monkeypatch.setenv("ROLLOVER_KEYS", rollover.key_file.read_text())
    monkeypatch.setenv("ROLLOVER_DATA_DIR", str(rollover.directory / "nowhere"))
    rollover.done("audit", "verify", "--file", export)


def test_a_seal_that_was_kept_elsewhere_must_still_be_there(rollover: CommandLine) -> None:
    rollover.with_resource()
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        connection.execute("DELETE FROM checkpoints")
    connection.close()
    kept = "1:" + 64 * "a"
    assert "set back" in rollover("audit", "verify", "--seal", kept).out
    export = rollover.file("export", rollover.done("audit", "export", "--from", "2020-01-01").out)
    assert "was seen outside" in rollover("audit", "verify", "--file", export, "--seal", kept).out
    for nonsense in ("1", "x:" + 64 * "a", "1:aa", "1:" + 64 * "x"):
        assert "--seal" in rollover.refused("audit", "verify", "--seal", nonsense, code=2)


def test_an_export_wants_times_and_a_file_that_can_be_read(rollover: CommandLine) -> None:
    assert "--from: is not a time" in rollover.refused("audit", "export", "--from", "yesterday", code=2)
    assert "--to: is not after" in rollover.refused("audit", "export", "--from", "2026-03-01", "--to", "2026-03-01", code=2)
    assert "there is no resource" in rollover.refused("audit", "export", "--from", "2026-03-01", "--resource", "x/y", code=1)
    assert "cannot be read" in rollover.refused("audit", "verify", "--file", "/nonexistent/export", code=2)
    (rollover.directory / "bytes").write_bytes(b"\xff\xfe")
    assert "is not text" in rollover.refused("audit", "verify", "--file", str(rollover.directory / "bytes"), code=2)


def found(rollover: CommandLine) -> Mapping[str, tuple[bool, str]]:
    data = rollover("doctor", "--json").data
    return {one["what"]: (one["ok"], one["found"] + " " + one["advice"]) for one in data["findings"]}


def test_the_doctor_finds_nothing_wrong(
    rollover: CommandLine, valkey_server: PrivateBroker, local_vercel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_BROKER_URL", valkey_server.url.reveal())
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
    rollover.with_resource()
    assert rollover.done("doctor").out.count(" ok ") == 9
    assert all(ok for ok, _ in found(rollover).values())


def test_the_doctor_tells_all_that_is_wrong_and_what_to_do(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    rollover.with_resource()
    rollover.engine.faults = (Fault("admin", "may not make logins", "ALTER ROLE admin CREATEROLE;"),)
    rollover.done("installation", "park", "icfg_1", "--reason", "the token is refused")
    monkeypatch.setenv("ROLLOVER_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", "http://127.0.0.1:1")
    answer = rollover("doctor")
    assert answer.code == 1
    wrong = {what: told for what, (ok, told) in found(rollover).items() if not ok}
    assert sorted(wrong) == ["Vercel", "broker", "installation icfg_1", "resource icfg_1/store_42"]
    assert "CREATEROLE" in wrong["resource icfg_1/store_42"]
    assert "the token is refused" in wrong["installation icfg_1"]


def test_the_doctor_says_that_the_store_has_no_tables(
    bare_rollover: CommandLine, local_vercel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
    ok, told = found(bare_rollover)["store"]
    assert not ok
    assert "rollover migrate" in told


def test_the_doctor_finds_a_key_that_is_gone(rollover: CommandLine, local_vercel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
    rollover.with_installation()
    rollover.key_file.unlink()
    ok, told = found(rollover)["keys"]
    assert not ok
    assert "put it back" in told
    rollover.done("keys", "create")
    wrong = {what: told for what, (ok, told) in found(rollover).items() if not ok}
    (lost,) = [what for what in wrong if what.startswith("key secrets-")]
    assert "1 values are held" in wrong[lost]
    assert "rollover keys abandon" in wrong[lost]
    assert "is not in the keyring" in wrong["installation icfg_1"]


def test_the_doctor_finds_a_canary_that_was_altered(rollover: CommandLine, local_vercel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
    rollover.with_installation()
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        connection.execute("UPDATE key_canaries SET sealed = x'00' WHERE key_id LIKE 'secrets-%'")
    connection.close()
    wrong = {what: told for what, (ok, told) in found(rollover).items() if not ok}
    assert [told for what, told in wrong.items() if what.startswith("key secrets-") and "altered" in told]


def test_the_doctor_finds_a_server_whose_clock_is_wrong(rollover: CommandLine, local_vercel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOVER_VERCEL_API_URL", local_vercel)
    rollover.with_server()
    for apart in (timedelta(minutes=5), timedelta(minutes=-5)):
        rollover.engine.server("pg-eu-1").clock_ahead = apart
        ok, told = found(rollover)["server pg-eu-1"]
        assert not ok
        assert "NTP" in told
    rollover.engine.server("pg-eu-1").clock_ahead = timedelta(seconds=5)
    assert found(rollover)["server pg-eu-1"][0]
