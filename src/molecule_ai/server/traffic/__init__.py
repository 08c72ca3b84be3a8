"""Traffic: who may message whom right now, who is busy with what, and which chains are stopped."""
