"""The processes: Celery, command line, wiring. They import `rotation`; nothing imports them."""
