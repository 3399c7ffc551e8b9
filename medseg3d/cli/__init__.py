"""The command line: one function a verb, imports inside, no logic."""

# isort: off
from medseg3d.cli import start, dataset, training, pretrain  # in the order of --help
from medseg3d.cli import model, scores, files

# isort: on
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
