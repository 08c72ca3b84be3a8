"""Run the agent as `python -m molecule_ai.runtime`."""

from molecule_ai.runtime.main import main

main()
