"""A crashing worker that makes a mistake: `python -m tests.crash --worker tests.crash.careless` must find it."""

from __future__ import annotations

from rotation import endings
from tests.crash.application import app
from tests.crash.mistakes import gives_up

__all__ = ["app"]

endings._again = gives_up  # type: ignore[assignment]  # that is the mistake
