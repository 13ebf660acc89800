"""structlog and httpx without their extras: to be imported before anything that imports one of them.

structlog draws tracebacks with rich, and httpx brings a command line with it, wherever what they need for that is installed. Both do
without where it is not; so it is absent when they are imported, and every process saves the time and memory of rich and pygments.
`None` in `sys.modules` says that a module is not to be found (docs.python.org/3/reference/import.html#the-module-cache).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _absent(module: str) -> Iterator[None]:
    known = sys.modules.pop(module, None)
    sys.modules[module] = None  # type: ignore[assignment]  # typeshed does not know of it
    try:
        yield
    finally:
        del sys.modules[module]
        if known is not None:
            sys.modules[module] = known


with _absent("rich"):
    import structlog  # noqa: F401 - imported here for its sake alone
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # for good: nobody here looks for a command line in httpx
