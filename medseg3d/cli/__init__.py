"""The command line: one function a verb, imports inside, no logic."""

from medseg3d.cli import start, pretrain, model, scores, files  # isort: skip  (in the order of --help)
from medseg3d.cli.entry import app, main

__all__ = ["app", "files", "main", "model", "pretrain", "scores", "start"]
