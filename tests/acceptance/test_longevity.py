"""A resource that is rotated again and again leaves nothing behind: `python -m bench --sections longevity` does it 5,000 times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.longevity import furnish, last
from tests.acceptance.conftest import CUSTOMERS
from tests.rigs import Rig, prepared, roles
from worker.sandbox.postgresql import PrivatePostgresql
from worker.wiring import let_go

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rigs import CustomersServer

ROTATIONS = 100


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CustomersServer]:
    """A server on which nobody else makes logins meanwhile."""
    directory = tmp_path_factory.mktemp("lasting")
    with PrivatePostgresql(directory / "postgresql", settings=CUSTOMERS) as postgresql:
        yield prepared("lasting", postgresql, directory)


def test_a_hundred_rotations_of_one_resource_leave_nothing_behind(tmp_path: Path, own_server: CustomersServer) -> None:
    with Rig(tmp_path, [own_server]) as rig:
        (resource,) = rig.add()
        database = resource.spec.database
        url = own_server.postgresql.superuser_url(database.name)
        furnish(url, database.name, database.owner_role)
        try:
            lasted = last(resource.id, rig.ports, url, ROTATIONS)
        finally:
            let_go(rig.ports)
        assert lasted.grown == {}
        assert {"pg_class.relacl", "pg_database.datacl", "pg_default_acl"} <= {name for name, count in lasted.before.items() if count}
        assert len(roles(own_server.postgresql, resource)) == 1
        assert len(rig.credentials(resource)) == ROTATIONS + 2
