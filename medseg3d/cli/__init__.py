"""The command line: one function a verb, imports inside, no logic."""

# isort: off  (in the order of --help)
from medseg3d.cli import start, dataset, training, pretrain, model, scores, files
from medseg3d.cli.entry import app, main

__all__ = [
    "app",
    "dataset",
    "files",
    "main",
    "model",
    "pretrain",
    "scores",
    "start",
    "training",
]
