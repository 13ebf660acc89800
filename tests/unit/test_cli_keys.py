"""Keys that are added, rotated, lost and given up, from the command line."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from rotation.errors import Unavailable
from tests.command_line import PASSWORD, PREFIX, RESOURCE_FILE, TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.command_line import CommandLine


def keys(rollover: CommandLine) -> Mapping[str, tuple[bool, bool, int | None]]:
    """Of each key: whether it seals now, whether it is in the ring, and how much it seals."""
    return {one["id"]: (one["newest"], one["here"], one["sealed"]) for one in rollover.done("keys", "list", "--json").data}


def sealing(rollover: CommandLine) -> dict[str, int]:
    return {name: sealed for name, (_, _, sealed) in keys(rollover).items() if sealed}


def sql(rollover: CommandLine, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(rollover.directory / "state" / "rollover.db") as connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found


def lose_the_keys(rollover: CommandLine) -> list[str]:
    """The key file is gone, and another one is made; gives the ids of the old keys that sealed something."""
    lost = list(sealing(rollover))
    rollover.key_file.unlink()
    rollover.done("keys", "create")
    return lost


def test_the_list_counts_what_each_key_seals(rollover: CommandLine) -> None:
    assert sealing(rollover) == {}
    rollover.with_resource()
    (secrets,) = sealing(rollover)
    assert keys(rollover)[secrets] == (True, True, 2)  # a token and a password
    assert [line.split()[-1] for line in rollover.done("keys", "list").out.splitlines() if secrets in line] == ["2"]


def test_listing_keys_makes_no_store(bare_rollover: CommandLine) -> None:
    bare_rollover.done("keys", "create")
    bare_rollover.done("keys", "list")
    assert not (bare_rollover.directory / "state" / "rollover.db").exists()


def test_rewrapping_moves_everything_to_the_newest_key(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    (before,) = sealing(rollover)
    new, _ = rollover.done("keys", "add").out.split()
    assert sealing(rollover) == {before: 2}
    answer = rollover.done("keys", "rewrap", "--json").data
    assert (answer["rewrapped"], answer["left"], answer["held"], answer["damaged"]) == (2, 0, 0, [])
    assert before in answer["unused"]
    assert sealing(rollover) == {new: 2}
    assert rollover.events()[-1] == "keys_rewrapped"
    assert "nothing was sealed by older keys" in rollover.done("keys", "rewrap").err
    assert rollover.events().count("keys_rewrapped") == 1
    rollover.done("rotate", name)


def test_a_key_that_seals_nothing_any_more_is_not_missed(rollover: CommandLine) -> None:
    rollover.with_resource()
    (before,) = sealing(rollover)
    rollover.done("keys", "add")
    assert before in rollover.done("keys", "rewrap").err
    kept = [line for line in rollover.key_file.read_text().splitlines() if line and not line.startswith("#")]
    rollover.key_file.write_text("\n".join(kept[2:]) + "\n")  # without the oldest of both uses
    assert before not in keys(rollover)
    assert "not in the keyring" not in rollover.done("installation", "token", "icfg_1", typed=TOKEN).err


def test_what_cannot_be_opened_is_told_by_rewrapping(rollover: CommandLine) -> None:
    rollover.with_resource()
    (lost,) = lose_the_keys(rollover)
    rollover.done("installation", "add", "icfg_2", typed=TOKEN)
    sql(rollover, "UPDATE installations SET sealed_token = x'00' WHERE id = 'icfg_2'")
    answer = rollover("keys", "rewrap")
    assert answer.code == 1
    assert f"{lost} is not in the keyring" in answer.err
    assert "2 values were sealed by keys that are not here" in answer.err
    assert "tokens of icfg_2: damaged" in answer.err


def test_a_lost_key_file_is_not_replaced_in_silence(rollover: CommandLine) -> None:
    rollover.with_resource()
    (lost,) = sealing(rollover)
    copy = rollover.key_file.read_bytes()
    rollover.key_file.unlink()
    for words in (("status",), ("installation", "token", "icfg_1"), ("keys", "list")):
        answer = rollover(*words, typed=TOKEN)
        assert answer.code == 1
        assert lost in answer.err
        assert "put it back" in answer.err
        assert "rollover keys abandon" in answer.err
    assert not rollover.key_file.exists()
    rollover.file("state/rollover.keys", copy.decode())
    rollover.done("status")


def test_a_lost_key_holds_only_what_it_sealed(rollover: CommandLine) -> None:
    rollover.with_resource()
    (lost,) = lose_the_keys(rollover)
    assert keys(rollover)[lost] == (False, False, 2)
    assert f"rollover keys abandon {lost}" in rollover.done("keys", "list").err
    assert f"{lost} is not in the keyring" in rollover.done("installation", "add", "icfg_2", typed=TOKEN).err
    assert rollover.done("installation", "show", "icfg_2", "--json").data["has_token"]


def test_an_altered_canary_stops_what_would_seal(rollover: CommandLine) -> None:
    rollover.with_resource()
    sql(rollover, "UPDATE key_canaries SET sealed = x'00'")
    assert "the canary of" in rollover.refused("installation", "token", "icfg_1", typed=TOKEN, code=1)
    rollover.done("status")


def test_abandoning_a_key_replaces_what_it_sealed_and_parks_whose_token_it_was(rollover: CommandLine) -> None:
    name = rollover.with_resource()
    (lost,) = lose_the_keys(rollover)
    answer = rollover.done("keys", "abandon", lost, "--reason", "the machine burnt down", "--yes", "--json").data
    assert (answer["resources"], answer["logins"], answer["unprovable"], answer["parked"]) == (1, 1, 1, ["icfg_1"])
    (rotation,) = answer["rotations"]
    story = rollover.done("rotation", "show", rotation, "--json").data
    assert story["requests"][0]["reason"] == "the machine burnt down"
    assert lost not in keys(rollover)
    assert rollover.events()[-3:] == ["key_abandoned", "installation_token_lost", "key_given_up"]
    assert "the machine burnt down" in rollover.done("installation", "show", "icfg_1").out
    assert not rollover.done("installation", "show", "icfg_1", "--json").data["has_token"]
    assert "there is no key" in rollover.refused("keys", "abandon", lost, "--yes", code=1)
    assert rollover.done("rotation", "list", name, "--json").data[0]["rotation"]["id"] == rotation


def test_abandoning_asks_first_and_says_what_stays(rollover: CommandLine) -> None:
    rollover.with_resource()
    (lost,) = lose_the_keys(rollover)
    assert "add it instead" in rollover.refused("keys", "abandon", lost, typed="n\n", code=1)
    told = rollover.done("keys", "abandon", lost, typed="y\n").err
    assert "nobody can prove them dead" in told
    assert "rollover installation token icfg_1" in told


def test_abandoning_that_was_interrupted_is_ended_by_repeating_it(rollover: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    rollover.with_resource()
    rollover.file("other.password", PASSWORD)
    second = RESOURCE_FILE.replace("store_42", "store_43").replace("orders_app", "billing_app").replace(PREFIX, 'login_prefix = "billing"')
    rollover.done("resource", "add", rollover.file("second.toml", second))
    (lost,) = lose_the_keys(rollover)
    from rotation import losses  # noqa: PLC0415 - what is interrupted

    real, seen = losses.abandon_key, []

    def once(*given: object) -> object:
        seen.append(given)
        if len(seen) > 1:
            raise Unavailable("the store does not answer")
        return real(*given)  # type: ignore[arg-type]  # handed on as it came

    with monkeypatch.context() as patched:
        patched.setattr(losses, "abandon_key", once)
        assert rollover("keys", "abandon", lost, "--yes").code == 1
    assert rollover.events().count("key_abandoned") == 1
    assert rollover.done("keys", "abandon", lost, "--yes", "--json").data["resources"] == 1
    assert rollover.events().count("key_abandoned") == 2
    assert lost not in keys(rollover)


def test_a_key_that_is_here_is_not_abandoned(rollover: CommandLine) -> None:
    rollover.with_resource()
    for key in keys(rollover):
        assert "is in the keyring" in rollover.refused("keys", "abandon", key, "--yes", code=1)


@pytest.mark.parametrize("key", ["secrets-0000000000000000", "unknown", "markers-0000000000000000", "", "x"])
def test_a_key_that_nobody_knows_is_not_abandoned(rollover: CommandLine, key: str) -> None:
    rollover.with_resource()
    assert "there is no key" in rollover.refused("keys", "abandon", key, "--yes", code=1)
