"""What is told before a training begins."""

import logging
from pathlib import Path

import pytest

from medseg3d.config.load import load_config
from medseg3d.train.cases import prepare_cases


@pytest.mark.parametrize(
    ("names", "settings", "told"),
    [
        ("left right", ["train.augment=nnunet"], "tell left from right"),
        ("left right", ["train.augment=nnunet", "preprocess.orientation=SAL"], "axes holds 2"),
        ("left right", ["train.augment={mirror_axes: [1, 2]}"], ""),
        ("left right", [], ""),
        ("shell core", ["train.augment=nnunet"], ""),
    ],
)
def test_flips_of_labels_that_tell_sides_apart_are_warned_of(
    config_file: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: str,
    settings: list[str],
    told: str,
):
    one, two = names.split()
    values = f"data.labels={{values: {{1: {one}, 2: {two}}}}}"
    with caplog.at_level(logging.WARNING):
        prepare_cases(load_config(config_file, [values, *settings]), tmp_path, lambda *_: None)
    assert ("will mix them up" in caplog.text) == bool(told)
    assert told in caplog.text
