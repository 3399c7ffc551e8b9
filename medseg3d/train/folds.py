"""A cross-validation: one run a fold, and the scores of all held-out cases together."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from medseg3d.config.run import RunConfig
from medseg3d.errors import ConfigError
from medseg3d.evaluate.results import CaseResult, Scores, align, read_scores
from medseg3d.evaluate.stats import Summary
from medseg3d.evaluate.tables import as_csv
from medseg3d.io.atomic import prepare_folder, write_atomically
from medseg3d.io.events import Event, read_events
from medseg3d.train.cases import Progress
from medseg3d.train.folder import CHECKPOINT, MODEL
from medseg3d.train.run import TrainedRun, train_run
