"""`python -m worker`: the command `rollover` without its script."""

from worker.cli.main import main

if __name__ == "__main__":
    main()
