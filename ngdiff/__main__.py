"""`python -m ngdiff` is `ngdiff`."""

from ngdiff.commands.cli import main

if __name__ == "__main__":
    main()
