"""Randomness that comes out the same in every run."""

from __future__ import annotations

import hashlib
import itertools
from threading import Lock


class FakeEntropy:
    """Bytes that follow from a seed: SHA-256 in counter mode. Another seed gives other bytes."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._blocks = itertools.count()
        self._lock = Lock()

    def bytes(self, count: int) -> bytes:
        with self._lock:
            gathered = b""
            while len(gathered) < count:
                gathered += hashlib.sha256(f"{self._seed}/{next(self._blocks)}".encode()).digest()
            return gathered[:count]
