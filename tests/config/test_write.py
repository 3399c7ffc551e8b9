"""A run written as YAML is the same run when it is read, and says why it is as it is."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.config.load import load_config
from medseg3d.config.run import RunConfig
from medseg3d.config.write import write_config
from medseg3d.datasets import DATASETS
from medseg3d.nets.presets import NETS

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
TINY = {
    "data": {"folder": "f", "images": {"t1": "{case}.nii.gz"}, "labels": {"values": {1: "one"}}},
    "network": {"kind": "resunet"},
}
SCALES = st.one_of(
    st.sampled_from(["none", "zscore", "zscore_nonzero"]),
    st.builds(
        lambda low, width, mean, deviation: {
            "clip": [low, low + width],
            "mean": mean,
            "deviation": deviation,
        },
        st.floats(-1e4, 1e4),
        st.floats(1e-3, 1e4),
        st.floats(-1e9, 1e9),
        st.floats(1e-30, 1e30),
    ),
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a run whose knobs are hard to write: odd names, braces, tiny numbers, long lists."""
    channels = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True))
    channels = [name for name in channels if name not in ("case", "patient", "reference")] or ["a"]
    names = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    scales = st.lists(SCALES, min_size=len(channels), max_size=len(channels))
    spacing = st.tuples(*[st.floats(1e-6, 1e6)] * 3)
    return {
        "data": {
            "folder": draw(WORDS),
            "images": {name: draw(WORDS).lstrip("/") + "{case}" for name in channels},
            "labels": draw(
                st.one_of(
                    st.sampled_from(sorted(DATASETS)),
                    st.just({"values": dict(enumerate(names, start=1))}),
                )
            ),
        },
        "preprocess": {
            "spacing_mm": draw(st.none() | spacing),
            "intensity": draw(SCALES | scales),
            "volume": draw(st.none() | WORDS),
        },
        "network": {"kind": draw(st.sampled_from(sorted(NETS)))},
        "train": {"learning_rate": draw(st.floats(1e-12, 1e3)), "epochs": 7},
    }


def reread(text: str, folder: Path) -> RunConfig:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "run.yaml")


@given(content=runs(), reason=WORDS)
@settings(deadline=None, max_examples=50)
def test_what_is_written_is_read_as_the_same_run(
    content: dict[str, Any], reason: str, tmp_path_factory: pytest.TempPathFactory
):
    config = RunConfig.model_validate(content)
    reasons = dict.fromkeys(["", "data.images", "train.epochs", "preprocess.intensity"], reason)
    folder = tmp_path_factory.getbasetemp()
    assert reread(write_config(config, reasons), folder) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_survive(path: Path, tmp_path: Path):
    config = load_config(path)
    assert reread(write_config(config, {}), tmp_path) == config


def test_a_reason_stands_before_its_knob_within_100_columns():
    config = RunConfig.model_validate(TINY | {"train": {"epochs": 7, "batch_size": 4}})
    why = "because " * 30
    lines = write_config(config, {"train.batch_size": why, "": "For a test."}).splitlines()
    place = lines.index("  batch_size: 4")
    comment = [line.removeprefix("  # ") for line in lines[place - 3 : place]]
    assert lines[0] == "# For a test."
    assert " ".join(comment) == why.strip()
    assert max(map(len, lines)) <= 100


def test_what_has_its_default_is_left_out():
    text = write_config(RunConfig.model_validate(TINY | {"train": {"epochs": 100}}), {})
    assert text.splitlines() == [
        "data:",
        "  folder: f",
        '  images: {t1: "{case}.nii.gz"}',
        "  labels:",
        "    values: {1: one}",
        "",
        "network:",
        "  kind: resunet",
    ]


def test_long_lists_are_parted():
    strides = [[2, 2, 2] if step else [1, 2, 2] for step in range(12)]
    network = {"kind": "unet", "channels": [4] * 13, "strides": strides}
    lines = write_config(RunConfig.model_validate(TINY | {"network": network}), {}).splitlines()
    place = lines.index("  strides:")
    assert lines[place + 1 : place + 3] == ["    - [1, 2, 2]", "    - [2, 2, 2]"]
