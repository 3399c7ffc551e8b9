"""The command line: one function a verb, imports inside, no logic."""

from medseg3d.cli import start, dataset, model, scores, files  # isort: skip  (in the order of --help)
from medseg3d.cli.entry import app, main

__all__ = ["app", "dataset", "files", "main", "model", "scores", "start"]
