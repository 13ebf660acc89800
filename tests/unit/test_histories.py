"""Random histories of one resource, each followed by a rest in which everything must come to an end.

`ROLLOVER_HISTORIES` says how many, `ROLLOVER_FIRST_HISTORY` from which seed on.
"""

from __future__ import annotations

import os

import pytest
from structlog.testing import capture_logs

from tests.restless import Restless

COUNT = int(os.environ.get("ROLLOVER_HISTORIES", "400"))
FIRST = int(os.environ.get("ROLLOVER_FIRST_HISTORY", "0"))
BATCHES = 8


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_history_breaks_a_promise_and_every_one_comes_to_an_end(batch: int) -> None:
    for seed in range(FIRST + batch, FIRST + COUNT, BATCHES):
        world = Restless(seed)
        try:
            with capture_logs():  # thousands of lines that nobody reads
                world.live(world.draw.choice((15, 30, 60)))
                world.rest()
        except BaseException as error:
            error.add_note(f"history {seed}:\n" + "\n".join(world.told))
            raise
