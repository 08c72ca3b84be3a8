"""The gatekeeper: who is calling, and may they use this route. No handler checks a token."""
