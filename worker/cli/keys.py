"""`rollover keys`: the keys that seal what is at rest. Their bits are never shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotation.errors import Fault, Invalid
from worker.cli import output, session

if TYPE_CHECKING:
    from worker.settings import Settings

app = typer.Typer(name="keys", help="The keys that seal passwords and tokens.", no_args_is_help=True)

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The key file. Default: the configured one.")]


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app)


@app.command()
def create(file: File = None) -> None:
    """Make a key file with one key of each use, for its owner alone. Keep a copy elsewhere."""
    from rotation.store.keyring import create_key_file  # noqa: PLC0415 - imported when it runs

    path = file or _path(session.settings())
    session.make_private(path.parent)
    keyring = create_key_file(path)
    output.done(f"made {path} with {len(keyring.keys)} keys: keep a copy elsewhere, without it nothing that they seal can be read")


@app.command("list")
def list_all(*, as_json: output.Json = False) -> None:
    """List the keys by id: what each is for, and which seals now."""
    from worker.wiring import open_keyring  # noqa: PLC0415 - imported when it runs

    keyring = open_keyring(session.settings())
    rows = [(one.id, one.use.value, one is keyring.newest(one.use)) for one in keyring.keys]
    if as_json:
        output.show([{"id": name, "use": use, "newest": newest} for name, use, newest in rows])
    else:
        output.table(("key", "use", "newest"), rows, nothing="there is no key: `rollover keys create` makes a key file")


@app.command()
def add(file: File = None) -> None:
    """Add new keys to the key file: they seal from then on, the older ones still open. Give the file to every worker before a restart."""
    from rotation.store.keyring import add_key  # noqa: PLC0415 - imported when it runs

    path = file or _path(session.settings())
    if not path.exists():
        raise Invalid([Fault(str(path), "is not there", "`rollover keys create` makes a key file")])
    for key in add_key(path):
        output.line(key.id)
    output.done("restart every process that uses this file, after each has it")


def _path(settings: "Settings") -> Path:
    if settings.keys_path is None:
        raise Invalid([Fault("ROLLOVER_KEYS", "holds the keys themselves, so there is no file", "name the file")])
    return settings.keys_path
