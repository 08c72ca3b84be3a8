"""The canvas: where people look at the organization, and from which angle."""
