"""`python -m molecule_ai.cli` is `molecule`."""

from .main import main

main()
