"""`python -m ganvas.cli` is `ganvas`."""

from ganvas.cli import main

main()
