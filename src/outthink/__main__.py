"""`python -m outthink` is the command `outthink`."""

from outthink.cli import main

if __name__ == "__main__":
    main()
