"""Load scenarios: code that runs against any server, and the figures it gave."""
