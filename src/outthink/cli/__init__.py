"""The command line, a file for each group of commands."""

from outthink.cli.main import app, main

__all__ = ["app", "main"]
