"""`python -m timebox` is `timebox`."""

from timebox.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
