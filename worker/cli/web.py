"""`rollover web`: the process that answers Vercel's calls."""

import typer

from worker.cli import hinting, session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(web)


def web() -> None:
    """Answer Vercel's calls.

    It asks for rotations here, at ROLLOVER_WEB_HOST and ROLLOVER_WEB_PORT. Put a proxy with a certificate in front. Several do no harm.
    """
    from worker import logs  # noqa: PLC0415 - imported when it runs
    from worker.web.serving import serve  # noqa: PLC0415

    settings = session.settings()
    logs.configure(settings.log_format, settings.log_level, settings.secrets())
    serve(settings, hinting.ready(settings))
