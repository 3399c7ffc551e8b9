"""From a data set's fingerprint and the memory there is to a run, with a reason for every choice.

Rules are nnU-Net's (Isensee et al., Nature Methods 18, 2021; and Revisited, MICCAI 2024) unless a
reason says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from medseg3d.config.augment import AugmentConfig
from medseg3d.config.data import DataConfig
from medseg3d.config.load import override_section, parse_section, read_yaml
from medseg3d.config.network import MonaiConfig
from medseg3d.config.run import RunConfig
from medseg3d.config.section import Section
from medseg3d.config.train import TrainConfig
from medseg3d.data.cases import find_cases
from medseg3d.data.layouts import detect_layout
from medseg3d.errors import ConfigError
from medseg3d.nets.presets import find_config
from medseg3d.plan.fit import Fit, Images, fit_patch
from medseg3d.plan.frame import (
    Choices,
    choose_frame,
    choose_mirrors,
    choose_outputs,
    choose_preprocess,
)
from medseg3d.plan.machine import Machine, time_step
from medseg3d.predict.limits import say_memory
from medseg3d.preprocess.fingerprint import Fingerprint, measure_cases

FOREGROUND: Final = 0.33
"""Share of patches that are centred on a label."""

EPOCHS: Final = 1000
STEPS_PER_EPOCH: Final = 250
"""Epochs and steps of nnU-Net's training."""

SHORT: Final = 10_000
"""Steps below which a run is too short for a low learning rate."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run, and why it is as it is."""

    config: RunConfig
    reasons: dict[str, str]
    """Knob's path -> reason; "" is the whole."""
    fit: Fit
    fingerprint: Fingerprint


def plan_dataset(
    dataset: Path,
    machine: Machine,
    *,
    net: str | None = None,
    spatial_dims: Literal[2, 3] | None = None,
    hours: float | None = None,
    settings: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> RunPlan:
    """Measure a data set and plan a run; without a GPU one of an hour, unless told otherwise.

    `settings` are knobs of the section `data`, such as `data.missing=zeros`.

    Raises:
        ConfigError: the data set's layout is unknown, no time is given, or else as `plan_run`.
        FormatError: cases cannot be measured; names all of them.
    """
    if hours is not None and not hours > 0:
        raise ConfigError(f"hours are {hours:g}, expected more than 0, or no --hours at all")
    data = find_data(dataset, settings)
    fingerprint = measure_cases(find_cases(data), data, progress=progress)
    plan = plan_run(data, fingerprint, machine, net=net, spatial_dims=spatial_dims)
    if hours is None and machine.device != "cpu":
        return plan
    seconds = time_step(plan.config, machine)
    return spend_hours(plan, hours or 1.0, seconds_per_step=seconds)


class OnlyData(Section):
    """What a plan begins with."""

    data: DataConfig
    """Cases, labels, split."""


def find_data(dataset: Path, settings: Sequence[str] = ()) -> DataConfig:
    """Read the section `data` of a YAML, or recognise the layout of a folder or table.

    Raises:
        ConfigError: the YAML has no such section, the layout is unknown, or a setting impossible.
    """
    return override_section(OnlyData(data=_find_data(dataset)), settings).data


def _find_data(dataset: Path) -> DataConfig:
    if dataset.suffix.lower() not in (".yaml", ".yml"):
        return detect_layout(dataset)
    content = read_yaml(dataset)
    if not isinstance(content.get("data"), dict):
        raise ConfigError(f"'{dataset}' has no section 'data', which says where the cases lie")
    return parse_section(DataConfig, content["data"], source=str(dataset))


def plan_run(
    data: DataConfig,
    fingerprint: Fingerprint,
    machine: Machine,
    *,
    net: str | None = None,
    spatial_dims: Literal[2, 3] | None = None,
) -> RunPlan:
    """Choose everything that `medseg3d train` is to know; the epochs are nnU-Net's.

    Raises:
        ConfigError: the network is unknown or none of ours, or nothing fits the memory.
    """
    on_gpu = machine.device == "cuda"
    name = net or ("resenc_m" if on_gpu else "resunet")
    preset = find_config(name)
    if isinstance(preset, MonaiConfig):
        raise ConfigError(f"no plan for '{name}': networks of MONAI's do not say how they halve")
    frame = choose_frame(fingerprint, spatial_dims)
    dims = frame.spatial_dims
    labels, outputs = data.labels, choose_outputs(data.labels)
    images = Images(
        shape=frame.shape_IJK[:dims],
        spacing_mm=frame.spacing_mm[:dims],
        num_cases=len(fingerprint.cases) * (frame.shape_IJK[2] if dims == 2 else 1),
        in_channels=len(data.images),
        out_channels=len(
            labels.regions if outputs["outputs"][0] == "regions" else labels.channel_values
        ),
    )
    fit = fit_patch(
        preset,
        images,
        memory=machine.memory,
        half=machine.precision != "fp32",
        narrow=not on_gpu and net is None,
    )
    choices = {
        **frame.choices,
        **outputs,
        **choose_preprocess(fingerprint),
        **_choose_training(fit, machine),
        **choose_mirrors(labels, frame),
    }
    content = {"data": data, "network": fit.network, **_nested(choices)}
    reasons = {"": _describe(fingerprint, fit), **_explain_network(fit, machine, asked=net)}
    return RunPlan(
        parse_section(RunConfig, content, source="plan"),
        reasons | {path: why for path, (_, why) in choices.items() if why},
        fit,
        fingerprint,
    )


def spend_hours(plan: RunPlan, hours: float, *, seconds_per_step: float) -> RunPlan:
    """Train no longer than so many hours; a plan that is shorter stays as it is."""
    steps = max(int(hours * 3600 / seconds_per_step), 1)
    if steps >= EPOCHS * STEPS_PER_EPOCH:
        return plan
    per_epoch = min(max(steps // 40, 10), STEPS_PER_EPOCH, steps)
    epochs = steps // per_epoch
    knobs: dict[str, Any] = {
        "epochs": epochs,
        "steps_per_epoch": per_epoch,
        "validate_every": max(epochs // 5, 1),
    }
    reasons = {
        "train.epochs": f"{epochs * per_epoch} steps, about "
        f"{epochs * per_epoch * seconds_per_step / 3600:.2g} h here: a step took "
        f"{seconds_per_step:.2g} s"
    }
    kept = dict(plan.reasons)
    if steps < SHORT:
        own = plan.config.train.augment
        knobs |= {
            "optimizer": "adamw",
            "learning_rate": 3e-3,
            "weight_decay": TrainConfig().weight_decay,
            "augment": AugmentConfig(mirror_axes=own.mirror_axes, thick_axis=own.thick_axis),
        }
        reasons["train.learning_rate"] = "the run is short"
        del kept["train.optimizer"], kept["train.augment.preset"]
    train = plan.config.train.model_copy(update=knobs)
    config = plan.config.model_copy(update={"train": train})
    return replace(plan, config=config, reasons=kept | reasons)


def _choose_training(fit: Fit, machine: Machine) -> Choices:
    patch, batch = fit.topology.patch, fit.batch_size
    limit = (
        "as far as the median case reaches"
        if fit.whole
        else (
            f"as large as {say_memory(machine.memory)} allow for two, in the proportions of the "
            "median case"
        )
    )
    why_batch = {
        True: f"5 % of the data set's voxels are {fit.enough} patches; two at least",
        False: f"as many as {say_memory(machine.memory)} allow",
    }[batch >= fit.enough]
    thin = patch.index(min(patch))
    thick_axis = thin if len(patch) == 3 and max(patch) > 3 * patch[thin] else None
    return {
        "train.patch_size": (patch, f"{limit}, made divisible by the strides"),
        "train.batch_size": (batch, why_batch),
        "train.epochs": (EPOCHS, "nnU-Net's 250,000 steps; shorter with --hours"),
        "train.steps_per_epoch": (STEPS_PER_EPOCH, ""),
        "train.validate_every": (50, ""),
        "train.optimizer": ("sgd", "nnU-Net's, with its rate and decay"),
        "train.learning_rate": (0.01, ""),
        "train.weight_decay": (3e-5, ""),
        "train.augment.preset": ("nnunet", "for a long run"),
        "train.augment.thick_axis": (
            thick_axis,
            "" if thick_axis is None else "patches are over 3 times shorter along it",
        ),
        "train.foreground_share": (FOREGROUND, "nnU-Net's: a third of the patches on a label"),
        "train.precision": (
            machine.precision,
            "quicker, at half the memory" if machine.precision != "fp32" else "",
        ),
    }


def _explain_network(fit: Fit, machine: Machine, *, asked: str | None) -> dict[str, str]:
    steps, levels = fit.topology.strides, len(fit.topology.kernels)
    halved = "×".join(str(sum(step == 2 for step in axis)) for axis in zip(*steps, strict=True))
    default = (
        "nnU-Net's default, with a residual encoder"
        if machine.device == "cuda"
        else "there is no GPU: a small network, half as wide"
    )
    reasons = {
        "network.kind": "asked for" if asked else default,
        "network.channels": f"{levels} levels: axes are halved {halved} times, as long as 4 voxels "
        "are left",
    }
    if "norm" in fit.network.model_fields_set:
        reasons["network.norm"] = "batches are small"
    if fit.network.strides != 2:
        reasons["network.strides"] = (
            "an axis is halved while it has 8 voxels and is less than twice as coarse as the finest"
        )
    if fit.network.kernel_sizes != 3:
        reasons["network.kernel_sizes"] = "1 along an axis while it is twice as coarse or more"
    return reasons


def _describe(fingerprint: Fingerprint, fit: Fit) -> str:
    cases = len(fingerprint.cases)
    shape = "×".join(f"{n:g}" for n in np.median(fingerprint.shapes_IJK, axis=0))
    return (
        f"Made by `medseg3d fingerprint` from {cases} cases, the median one of {shape} voxels.\n"
        f"A training step takes about {say_memory(fit.memory)}."
    )


def _nested(choices: Choices) -> dict[str, Any]:
    """Turn values by path into values by section."""
    content: dict[str, Any] = {}
    for path, (value, _) in choices.items():
        *sections, knob = path.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[knob] = value
    return content
