"""The protocol that agents speak: register, heartbeat, cards, and finding each other."""
