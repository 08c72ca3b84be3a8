"""The images that agents in containers run on."""
