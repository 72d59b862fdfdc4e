"""`python -m tunesmith` is the command `tunesmith`."""

from tunesmith.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
