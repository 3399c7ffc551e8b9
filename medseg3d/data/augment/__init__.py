"""Random changes to patches."""
