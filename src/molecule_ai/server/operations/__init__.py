"""How the server is watched: health, liveness, build, metrics."""
