"""What commands work with: the settings, and the ports that are made of them. All of it is imported when a command asks."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import Settings


def settings() -> "Settings":
    """The settings of this process. Raises `Invalid` with every fault at once."""
    from worker.settings import load  # noqa: PLC0415 - half a second that help does not need

    return load(os.environ)
