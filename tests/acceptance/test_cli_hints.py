"""What a person asks for begins at once: the command tells the workers itself, and no clock is needed for that."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from rotation.states import RotationState
from tests.rigs import PATIENCE, Rig, is_ready

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rigs import CustomersServer

AT_ONCE = timedelta(seconds=1)


def typed(rig: Rig, *words: str) -> None:
    """A command, in a process of its own."""
    command = [sys.executable, "-P", "-m", "worker", *words]
    done = subprocess.run(command, env=rig.environment, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 - our own
    assert done.returncode == 0, done.stderr


def test_with_a_worker_and_no_clock_a_rotation_begins_within_a_second_and_so_does_a_push(
    tmp_path: Path, customers: CustomersServer
) -> None:
    with Rig(tmp_path, [customers]) as rig:
        worker = rig.start_worker("one")
        rig.wait("the worker is ready", lambda: is_ready(worker))
        (resource,) = rig.add()
        typed(rig, "rotate", resource.name, "--wait")
        typed(rig, "push", resource.name, "--wait")
        rotations = rig.rotations(resource)
        assert [one.state for one in rotations] == [RotationState.COMPLETED] * 2
        for one in rotations:
            assert one.planned_at is not None
            assert one.planned_at - one.requested_at < AT_ONCE
