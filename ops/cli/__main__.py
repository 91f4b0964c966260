"""`python -m ops.cli`: the same as `waxseal`."""

from ops.cli import main

if __name__ == "__main__":  # not when a fork imports what its parent ran
    main(prog_name="waxseal")
