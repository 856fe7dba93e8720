"""`python -m headwise`: the command line without its script."""

from headwise.cli.main import main

if __name__ == "__main__":
    main()
