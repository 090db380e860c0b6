"""`python -m kestrel` is the same as the `kestrel` command."""

from kestrel.cli.main import main

if __name__ == "__main__":
    main()
