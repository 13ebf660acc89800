"""Key texts and key files."""

from __future__ import annotations

import multiprocessing
import os
import stat
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Conflict, Invalid, NotFound, RolloverError
from rotation.sensitive import Sensitive
from rotation.store import keyring
from rotation.store.keyring import Key, KeyUse

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

MATERIAL = "A" * 43
OTHER = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"


def ids(path: Path) -> list[str]:
    return [key.id for key in keyring.load_key_file(path).keys]


def test_a_new_file_has_a_key_of_each_use_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = keyring.create_key_file(path)
    assert [key.use for key in made.keys] == list(KeyUse)
    assert ids(path) == [key.id for key in made.keys]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_never_made_twice(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keyring.create_key_file(path)
    before = path.read_bytes()
    with pytest.raises(Conflict):
        keyring.create_key_file(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644, 0o610, 0o601])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    keyring.create_key_file(path)
    path.chmod(mode)
    with pytest.raises(Invalid, match="chmod 600"):
        keyring.load_key_file(path)
    with pytest.raises(Invalid):
        keyring.add_key(path)


def test_a_read_only_file_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keyring.create_key_file(path)
    path.chmod(0o400)
    assert len(ids(path)) == 4


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    keyring.create_key_file(path)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        somebody_else = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    with pytest.raises(Invalid, match="belongs to user"):
        keyring.load_key_file(path)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        keyring.load_key_file(tmp_path / "keys")
    tmp_path.chmod(0o700)
    with pytest.raises(Invalid, match="is not a file"):
        keyring.load_key_file(tmp_path)
    with pytest.raises(Invalid, match="cannot be opened"):
        keyring.load_key_file(tmp_path / ("x" * 300))


def test_added_keys_are_the_newest_and_the_old_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    before = keyring.create_key_file(path)
    added = keyring.add_key(path)
    assert [key.use for key in added] == [KeyUse.SECRETS, KeyUse.VERIFIERS]
    after = keyring.load_key_file(path)
    assert after.keys == before.keys + added
    assert after.newest(KeyUse.SECRETS) == added[0]
    assert after.newest(KeyUse.MARKERS) == before.newest(KeyUse.MARKERS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_adding_goes_through_a_link_and_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    path, link = tmp_path / "keys", tmp_path / "link"
    keyring.create_key_file(path)
    path.write_text("# mine\n" + path.read_text().rstrip())
    link.symlink_to(path)
    keyring.add_key(link)
    assert link.is_symlink()
    assert path.read_text().startswith("# mine\n")
    assert len(ids(path)) == 6


def _create(path: Path, barrier: Barrier) -> None:
    barrier.wait()
    try:
        keyring.create_key_file(path)
    except Conflict:
        keyring.load_key_file(path)
    keyring.add_key(path)


def test_processes_that_make_and_change_a_file_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    path = tmp_path / "keys"
    processes = [context.Process(target=_create, args=(path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert len(set(ids(path))) == 4 + 4 * 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_text_fits_into_one_variable() -> None:
    ring = keyring.read_keys(Sensitive(f"secrets {MATERIAL}, verifiers {MATERIAL}=,secrets {OTHER}"))
    assert [key.use for key in ring.keys] == [KeyUse.SECRETS, KeyUse.VERIFIERS, KeyUse.SECRETS]
    newest = ring.newest(KeyUse.SECRETS)
    assert newest is not None
    assert newest.bits() == bytes(31) + b"\x01"
    assert ring.newest(KeyUse.AUDIT) is None


def test_the_id_follows_from_the_bits_and_the_use() -> None:
    secrets, verifiers = Key(KeyUse.SECRETS, Sensitive(MATERIAL)), Key(KeyUse.VERIFIERS, Sensitive(MATERIAL))
    assert secrets.id == Key(KeyUse.SECRETS, Sensitive(MATERIAL)).id
    assert secrets.fingerprint != verifiers.fingerprint
    assert secrets.id.startswith("secrets-")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("secrets", "not a use and 43 characters"),
        (f"secrets {MATERIAL}A", "not a use and 43 characters"),
        (f"secrets {MATERIAL[:-1]}", "not a use and 43 characters"),
        (f"secrets {MATERIAL[:-1]}+", "not a use and 43 characters"),
        (f"secrets {MATERIAL} {MATERIAL}", "not a use and 43 characters"),
        (f"secrets {MATERIAL[:-1]}B", "not canonical"),
        (f"passwords {MATERIAL}", "the use is none of"),
        (f"secrets {OTHER}", "a second time"),
        ("secrets ☂", "not a use and 43 characters"),
    ],
)
def test_each_faulty_line_is_named_and_not_repeated(line: str, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        keyring.read_keys(Sensitive(f"# keys\nsecrets {OTHER}\n\n{line}\nnonsense"))
    assert [fault.field for fault in caught.value.faults] == ["keys, line 4", "keys, line 5"]
    assert problem in caught.value.faults[0].problem
    assert not any(part in str(caught.value) for part in line.split() if len(part) > 10)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "x" * 70_000])
def test_a_text_without_keys_or_without_end_is_refused(text: str) -> None:
    with pytest.raises(RolloverError):
        keyring.read_keys(Sensitive(text))


def test_a_file_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(Invalid):
        keyring.load_key_file(path)
