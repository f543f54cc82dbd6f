"""`python -m farm`: the same as the console script `farm`."""

from farm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
