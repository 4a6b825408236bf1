"""`python -m netemu` is the `netemu` command."""

from netemu.cli.main import main

main()
