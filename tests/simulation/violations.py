"""What a proof reports."""

from __future__ import annotations


class Violation(AssertionError):
    """A promise was broken. `invariant` is its name."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant
