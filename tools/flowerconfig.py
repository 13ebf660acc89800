"""Flower's configuration, for `make flower` and for the image: who may look, and from where.

A file, because every user of a machine can read the options of a command. The broker's URL is not here: Flower asks the application,
which reads the settings. Whoever starts it names the password's file by FLOWER_PASSWORD_FILE; without one, this machine's own
password is made in `.flower-password`.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

USER = "rollover"
OWN_PASSWORD = Path(".flower-password")


def password() -> str:
    """The password to log in with; makes this machine's own where none is named."""
    named = os.environ.get("FLOWER_PASSWORD_FILE")
    if named:
        return Path(named).read_text(encoding="utf-8").strip()
    if not OWN_PASSWORD.exists():
        with open(os.open(OWN_PASSWORD, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123  private from its first moment on
            file.write(secrets.token_urlsafe(24) + "\n")
    sys.stderr.write(f"Flower: log in as {USER} with the password in {OWN_PASSWORD}\n")
    return OWN_PASSWORD.read_text(encoding="utf-8").strip()


# Flower takes every name below that is one of its options.
basic_auth = [f"{USER}:{password()}"]
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
read_only = True  # to look at; what may be done is said with `rollover`
persistent = False
