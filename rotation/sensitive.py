"""Text that must not be readable by accident."""

from __future__ import annotations

import copyreg
from typing import Never


class Sensitive:
    """Text that must not be readable by accident: a password, a token, a rendered secret, a verifier.

    It has no readable form, cannot be formatted, pickled, copied into JSON or hashed; `reveal` is the only way out, so a search for it
    finds every place that handles a secret.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Hand it to the other side at once; never keep, log or format it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Equal when both hold the same text."""
        return isinstance(other, Sensitive) and self._text == other._text

    __hash__ = None  # type: ignore[assignment]  # a hashable secret ends up as a key that somebody prints

    def __len__(self) -> int:
        """How long the text is: all that a page may say about it."""
        return len(self._text)

    def __repr__(self) -> str:
        """Only that there is something."""
        return "Sensitive(…)"

    def __format__(self, spec: str) -> Never:
        """Refused: formatting is how secrets get into messages."""
        raise TypeError("a sensitive value cannot be formatted; reveal it where it is used")

    def __str__(self) -> Never:
        """Refused, as formatting is."""
        raise TypeError("a sensitive value cannot be turned into text; reveal it where it is used")

    def __reduce__(self) -> Never:
        """Refused: a pickled secret is a secret at rest."""
        raise TypeError("a sensitive value cannot be pickled or copied")

    def __getstate__(self) -> Never:
        """Refused, as pickling is."""
        raise TypeError("a sensitive value cannot be pickled or copied")


copyreg.pickle(Sensitive, Sensitive.__reduce__)
