"""`python -m notifier`, and the console script of the same name."""

from notifier.cli import main

if __name__ == "__main__":
    main()
