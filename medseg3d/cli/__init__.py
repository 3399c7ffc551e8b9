"""The command line: one function a verb, imports inside, no logic."""

# isort: off  (in the order of --help)
from medseg3d.cli import files, model, pretrain, scores, start, training
from medseg3d.cli.entry import app, main

__all__ = ["app", "files", "main", "model", "pretrain", "scores", "start", "training"]
