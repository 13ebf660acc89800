"""The local Vercel as a process of its own: `python -m bench.vercel TOKEN` prints its address. TOKEN steers it."""

from __future__ import annotations

import sys

from worker.sandbox.vercel import serve

if __name__ == "__main__":
    serve(lambda vercel: print(vercel.url, flush=True), admin_token=sys.argv[1], per_minute=None)  # noqa: T201 - that is what it is for
