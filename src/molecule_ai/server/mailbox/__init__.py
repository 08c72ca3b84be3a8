"""Everything that makes an agent act is one durable row here, delivered when its target can take it."""
