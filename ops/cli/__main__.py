"""`python -m ops.cli`: the same as `waxseal`."""

from ops.cli import main

main(prog_name="waxseal")
