"""Makes the files that docker-compose.yml hands to its services, in `secrets/`; leaves alone what is already there.

The directory is closed to everybody else (0700). The files in it are readable (0644), because Compose mounts them as they are, and the
users in the containers are not the one who runs this.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

DIRECTORY = Path("secrets")


def main() -> None:
    """Make every secret that is missing, and say which."""
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    DIRECTORY.chmod(0o700)
    postgres = keep("postgres_password", secrets.token_urlsafe(32))
    redis = keep("redis_password", secrets.token_urlsafe(32))
    keep("store_url", f"postgresql://rollover:{postgres}@postgres/rollover")
    keep("broker_url", f"redis://:{redis}@redis:6379/0")
    keep("redis_conf", f"requirepass {redis}")
    keep("flower_password", secrets.token_urlsafe(32))
    keep("audit_key", secrets.token_urlsafe(48))
    if not (DIRECTORY / "keys").exists():
        keep("keys", new_keyring())
    sys.stdout.write(
        f"{DIRECTORY}/ is complete. Keep a copy of keys and audit_key elsewhere: without them no password is ever read again.\n"
    )


def keep(name: str, new: str) -> str:
    """The secret of this name: what is there, else the new one."""
    path = DIRECTORY / name
    if not path.exists():
        path.write_text(new + "\n", encoding="utf-8")
        path.chmod(0o644)
    return path.read_text(encoding="utf-8").removesuffix("\n")


def new_keyring() -> str:
    """A keyring with one fresh key, as `rollover` itself makes it."""
    made = subprocess.run([sys.executable, "-m", "worker", "keys", "new"], check=True, capture_output=True, text=True)
    return made.stdout.removesuffix("\n")


if __name__ == "__main__":
    main()
