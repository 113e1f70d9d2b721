"""`python -m warmstart`, the same as `warmstart`."""

from warmstart.cli.main import main

if __name__ == "__main__":
    main()
