"""The command line, a file for each group of commands."""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    """Entry point: errors are one sentence and a non-zero exit, never a traceback."""
    try:
        from outthink.cli.program import run  # here, so that Ctrl-C while it is imported is one sentence, too

        code = run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        code = 130
    sys.exit(code)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'outthink.cli' has no attribute {name!r}")
    from outthink.cli.program import app

    return app
