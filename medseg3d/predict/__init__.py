"""Whole cases through a network, tile by tile."""
