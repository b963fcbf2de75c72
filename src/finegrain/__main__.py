"""`python -m finegrain`: the command, for launchers that want a module."""

from finegrain.cli import run

if __name__ == "__main__":
    run()
