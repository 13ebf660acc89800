"""Logins in a store that exist for what is sealed in them, written in one go: a hundred thousand, where a test wants so many."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from rotation.model import Installation, Schedule, SealContext
from rotation.sensitive import Sensitive
from rotation.states import InUse, Stage
from rotation.store.tables import credentials, installations
from tests.store_samples import SERVER, event, spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rotation.store.sealing import KeyringSealer
    from rotation.store.sql import SqlStore

INSTALLATION = "icfg_1"
PAGE = 5_000


def secret_of(place: SealContext) -> Sensitive:
    return Sensitive(f"the {place.purpose} of {place.installation_id} {place.resource_id} {place.credential_id}")


def fill(store: SqlStore, sealer: KeyringSealer, resources: int, generations: int) -> None:
    """An installation with its token, a second one, and so many resources of the first with so many logins each."""
    store.add_server(SERVER, event("server_added"))
    for installation in (INSTALLATION, "icfg_2"):
        token = SealContext(installation, "", "", "token")
        store.add_installation(Installation(installation, sealer.seal(secret_of(token), token)), event("installation_added"))
    for number in range(resources):
        store.register(spec(f"store_{number}"), f"res_{number}", Schedule(), None, event("resource_registered"))
    now = store.now()
    rows = (
        {
            "id": f"cred_{number}_{generation:06}",
            "resource_id": f"res_{number}",
            "server": SERVER.name,
            "generation": generation,
            "username": f"login_{number}_{generation}",
            "stage": Stage.PREVIOUS,
            "recorded_at": now,
            "adopted": False,
            "compromised": False,
            "in_use": InUse.WAIT,
            "quiet": timedelta(0),
            "blocked_for": timedelta(0),
            "tries": 0,
            "problem": "",
            "fence": 0,
        }
        for number in range(resources)
        for generation in range(generations)
    )
    with store.database.writing() as connection:
        page = []
        for row in rows:
            for purpose in ("password", "verifier"):
                place = SealContext(INSTALLATION, str(row["resource_id"]), str(row["id"]), purpose)
                row[f"sealed_{purpose}"] = sealer.seal(secret_of(place), place)
            page.append(row)
            if len(page) == PAGE:
                connection.execute(insert(credentials), page)
                page.clear()
        if page:
            connection.execute(insert(credentials), page)


def sealed_values(store: SqlStore) -> Iterator[tuple[SealContext, bytes]]:
    """Every sealed value with the place that it was sealed for, as the program says it: by the row that it stands in."""
    with store.database.snapshot() as connection:
        for row in connection.execution_options(yield_per=PAGE).execute(select(credentials)).mappings():
            for purpose in ("password", "verifier"):
                yield SealContext(INSTALLATION, row["resource_id"], row["id"], purpose), row[f"sealed_{purpose}"]
        for row in connection.execute(select(installations)).mappings():
            yield SealContext(row["id"], "", "", "token"), row["sealed_token"]
