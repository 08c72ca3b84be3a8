"""What programs need to talk to a Molecule server."""
