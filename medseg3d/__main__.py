"""`python -m medseg3d` is the command `medseg3d`."""

from medseg3d.cli import main

main()
