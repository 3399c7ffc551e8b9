"""Scores of label maps against references, each number by a definition that it names."""
