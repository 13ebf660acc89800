"""`rollover keys`: the keys that seal what is at rest. Only `keys new` shows bits: it is made for that."""

import os
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

    path = file or _future_path()
    session.make_private(path.parent)
    keyring = create_key_file(path)
    output.done(f"made {path} with {len(keyring.keys)} keys: keep a copy elsewhere, without it nothing that they seal can be read")
    if file is not None or os.environ.get("ROLLOVER_STORE_URL") or os.environ.get("ROLLOVER_STORE_URL_FILE"):
        output.done(f"ROLLOVER_KEYS_FILE={path.absolute()} lets every process use it")


@app.command()
def new() -> None:
    """Print a new keyring, for whatever hands it to the processes as ROLLOVER_KEYS. Whoever reads it reads every password it seals."""
    from rotation.store.keyring import new_key_text  # noqa: PLC0415 - imported when it runs

    typer.echo(new_key_text().reveal(), nl=False)


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
        raise _no_file()
    return settings.keys_path


def _future_path() -> Path:
    """Where the configured key file will be. Without keys the settings as a whole may be wrong, so the others are not looked at."""
    from worker.settings import load  # noqa: PLC0415 - imported when it runs

    if os.environ.get("ROLLOVER_KEYS"):
        raise _no_file()
    named = os.environ.get("ROLLOVER_KEYS_FILE")
    if named:
        return Path(named).absolute()
    return _path(load({name: os.environ[name] for name in ("ROLLOVER_DATA_DIR", "XDG_STATE_HOME", "HOME") if name in os.environ}))


def _no_file() -> Invalid:
    return Invalid([Fault("ROLLOVER_KEYS", "holds the keys themselves, so there is no file", "name the file")])
