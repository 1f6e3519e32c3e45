"""`python -m kws` is the `kws` command."""

from kws.cli import main

if __name__ == "__main__":
    main()
