"""A sealed value that somebody moved opens nowhere: for no other tenant, resource, version or purpose, and not with a part of another."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from rotation.errors import Refused
from rotation.model import SealContext
from rotation.store.keyring import Key, Keyring, KeyUse
from rotation.store.sealing import KeyringSealer
from tests.canary.sealed_rows import fill, sealed_values, secret_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sql_stores import SqlBench

    Figure = Callable[[str, int], None]

SEALER = KeyringSealer(Keyring(Key.made(use) for use in KeyUse))
PURPOSES = ("password", "verifier", "token")
PLACES = [
    SealContext(*parts)
    for parts in (
        *product(("icfg_1", "icfg_2"), ("res_1", "res_2", "res_11"), ("cred_1", "cred_2", "cred_11"), PURPOSES),
        *(("icfg_1", "", "", purpose) for purpose in PURPOSES),  # as tokens are sealed
        ("icfg_1res_1", "", "cred_1", "password"),  # the same letters, otherwise divided
        ("icfg_1", "res_1cred_1", "", "password"),
    )
]
HEADER, WRAPPED = 14, 74
"""Where the header and the wrapped data key of a sealed value end."""


SEALED = {place: SEALER.seal(secret_of(place), place) for place in PLACES}


def test_each_opens_in_its_own_place() -> None:
    assert all(SEALER.open(sealed, place) == secret_of(place) for place, sealed in SEALED.items())


def test_no_value_opens_in_the_place_of_another(figure: Figure) -> None:
    pairs = list(permutations(PLACES, 2))
    opened = [(one, other) for one, other in pairs if opens(SEALED[one], other)]
    assert opened == []
    figure("ciphertext swaps refused", len(pairs))


@pytest.mark.parametrize(
    "begin_end", [(0, HEADER), (0, WRAPPED), (HEADER, WRAPPED), (WRAPPED, None)], ids=["header", "head", "key", "text"]
)
def test_no_value_opens_with_a_part_of_another(begin_end: tuple[int, int | None], figure: Figure) -> None:
    part = slice(*begin_end)
    tried = 0
    for one, other in permutations(PLACES, 2):
        mixed = bytearray(SEALED[one])
        mixed[part] = SEALED[other][part]
        if bytes(mixed) in (SEALED[one], SEALED[other]):
            continue  # the same key sealed both: their headers are the same
        tried += 1
        assert not opens(bytes(mixed), one)
        assert not opens(bytes(mixed), other)
    assert tried
    figure("ciphertext swaps refused", 2 * tried)


def test_an_older_version_of_a_value_does_not_open_for_the_next_generation(figure: Figure) -> None:
    """The same resource, a later credential: what was retired cannot be passed off as current."""
    generations = [SealContext("icfg_1", "res_1", f"cred_{number}", "password") for number in range(50)]
    sealed = [SEALER.seal(secret_of(place), place) for place in generations]
    opened = [(one, other) for one, other in permutations(range(50), 2) if opens(sealed[one], generations[other])]
    assert opened == []
    figure("ciphertext swaps refused", 50 * 49)


SWAPS = {
    "two tenants' passwords": ("credentials", "sealed_password", "cred_0_000000", "cred_1_000000"),
    "two tenants' verifiers": ("credentials", "sealed_verifier", "cred_0_000000", "cred_1_000000"),
    "two versions' passwords": ("credentials", "sealed_password", "cred_0_000000", "cred_0_000001"),
    "two installations' tokens": ("installations", "sealed_token", "icfg_1", "icfg_2"),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_rows_that_were_swapped_in_the_store_are_refused(sql_bench: SqlBench, swap: str, figure: Figure) -> None:
    table, column, one, other = SWAPS[swap]
    copy = f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} AS there WHERE there.id = '%s') WHERE id = '%s'"  # noqa: S608 - constants
    keep = f"INSERT INTO key_canaries (key_id, sealed, added_at) SELECT 'kept', {column}, '2026-01-01' FROM {table} WHERE id = '{one}'"  # noqa: S608
    bring = f"UPDATE {table} SET {column} = (SELECT sealed FROM key_canaries WHERE key_id = 'kept') WHERE id = '{other}'"  # noqa: S608
    purpose = column.removeprefix("sealed_")
    assert refused_after(sql_bench, keep, copy % (other, one), bring) == {(one, purpose), (other, purpose)}
    figure("ciphertext swaps refused", 2)


@pytest.mark.parametrize(("purpose", "other"), [("password", "verifier"), ("verifier", "password")])
def test_a_purpose_that_was_swapped_in_the_store_is_refused(sql_bench: SqlBench, purpose: str, other: str, figure: Figure) -> None:
    exchange = f"UPDATE credentials SET sealed_{purpose} = sealed_{other} WHERE id = 'cred_0_000000'"  # noqa: S608 - constants
    assert refused_after(sql_bench, exchange) == {("cred_0_000000", purpose)}
    figure("ciphertext swaps refused", 1)


def refused_after(bench: SqlBench, *statements: str) -> set[tuple[str, str]]:
    """What does not open any more, by row and purpose, after somebody has done this in a store of two tenants."""
    fill(bench.store, SEALER, resources=2, generations=2)
    assert all(opens(sealed, place) for place, sealed in sealed_values(bench.store))
    with bench.store.database.writing() as connection:
        for statement in statements:
            connection.execute(text(statement))
    refused = [place for place, sealed in sealed_values(bench.store) if not opens(sealed, place)]
    return {(place.credential_id or place.installation_id, place.purpose) for place in refused}


def opens(sealed: bytes, place: SealContext) -> bool:
    try:
        SEALER.open(sealed, place)
    except Refused:
        return False
    return True
