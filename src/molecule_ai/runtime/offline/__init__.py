"""A deterministic stand-in for a language model: no key, no network, and it says so."""
