"""Write the pages of the documentation that are made from the code, or hold its numbers.

python docs/generate.py
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import cleandoc
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from medseg3d.config.evaluate import EvaluateConfig
from medseg3d.config.network import NestedConfig, ResidualConfig, UShapedConfig
from medseg3d.config.run import RunConfig
from medseg3d.evaluate.overlap import dice
from medseg3d.evaluate.protocols import DilatedLesions, MatchedInstances, Protocol
from medseg3d.evaluate.schemes import SCHEMES, Scheme
from medseg3d.evaluate.score import score_case
from medseg3d.evaluate.surface import HAUSDORFF, NSD, hausdorff_mm, normalized_surface_dice
from medseg3d.nets.cost import measure_cost
from medseg3d.nets.levels import plan_heads, plan_levels, plan_nodes
from medseg3d.nets.presets import NETS
from medseg3d.terms import Code
from medseg3d.volume import Volume

REFERENCE = Path(__file__).parent / "reference"
CONCEPTS = Path(__file__).parent / "concepts"
FIGURES = Path(__file__).parents[1] / "benchmarks"
HEADER = """# Every knob

Made from `medseg3d/config/` by `python docs/generate.py`. A run's YAML has these sections; any knob
can be set on the command line with `--set section.key=value`. Unknown keys are refused.
"""


SCHEMES_HEADER = """# A scheme in YAML

`medseg3d evaluate --scheme FILE.yaml` scores by it; what the numbers mean is told in
[evaluation.md](../concepts/evaluation.md).
"""


def describe_config() -> str:
    """Give the page on the configuration."""
    lines = [HEADER, *_section("", RunConfig), *_section("evaluate", EvaluateConfig)]
    lines += [SCHEMES_HEADER, *_section("scheme", Scheme)]
    return "\n".join(lines)


def _section(path: str, section: type[BaseModel]) -> Iterator[str]:
    nested: list[tuple[str, type[BaseModel]]] = []
    if path:
        yield f"## `{path}`\n"
        yield f"{cleandoc(section.__doc__ or '')}\n"
    else:
        yield "## Top level\n"
    yield "| knob | default | meaning |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        inner = [*dict.fromkeys(_sections_in(field.annotation))]
        default = "" if inner else _default(field)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{name}` | {default} | {meaning} |"
        nested += [(_nested_path(path, name, part, len(inner)), part) for part in inner]
    yield ""
    for inner_path, part in nested:
        yield from _section(inner_path, part)


def _nested_path(path: str, name: str, section: type[BaseModel], options: int) -> str:
    inner = f"{path}.{name}".strip(".")
    return f"{inner} (kind: {section.model_fields['kind'].default})" if options > 1 else inner


def _sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    if annotation is Code:  # written as one word
        return
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else f"`{field.default!r}`"


NETWORKS = """# Every network

Made from `medseg3d/nets/` by `python docs/generate.py`. A preset is asked for by its name, in YAML
(`network: {kind: resunet}`), in Python (`build_net("resunet", spatial_dims=3, ...)`) and by
`medseg3d info resunet`; every knob is in [config.md](config.md), and `configs/networks/` has a run
for each. Any network of MONAI's goes by `kind: monai` with its `name` and `arguments`, or by
`monai/SegResNet`; a module of your own goes through the Python API.

All give logits `(B, L, *spatial)`; softmax or sigmoid belong to prediction and loss. With
`deep_supervision` they give a list while training, fine to coarse (of a nested network the deepest
head first), and one tensor in eval mode. A network takes sizes that are multiples of its divisor
and refuses others by name; `predict_logits` and `medseg3d predict` take any.

Weights start as He's normal distribution (fan-in, for ReLU), biases at 0, norms at scale 1 and
shift 0, for every network but MONAI's. (nnU-Net starts the last norm of a residual unit at 0.)

## At a glance

In 3D (in 2D); one input channel, two outputs, a tile of 128³ voxels (512²). *TFLOPs*: of
prediction, where a multiplication and an addition count as two. *Kept*: GiB of activations that a
training step on one image keeps for the gradients, in 32 bits; counted from the tensors that
autograd saves, not measured on a device. *Thrifty*: the same with `activation_checkpointing`.
*Time*: CPU-seconds of a 64³ tile on one thread, and how many times faster than `resunet` that is;
by `benchmarks/networks.py times` on a shared AMD EPYC, torch's float32.

`resenc_m` and `resenc_l` are one network: nnU-Net's plans for more memory enlarge patch and batch.
"""


def describe_networks() -> str:
    """Give the page on the networks."""
    lines = [NETWORKS, *_table(), *_openvino(), *_depths(), *_hippocampus()]
    for name, config in NETS.items():
        if name != "resenc_l":
            lines += [
                f"## `{name}`\n",
                cleandoc(type(config).__doc__ or ""),
                "",
                *_drawn(config),
                "",
            ]
    return "\n".join(lines)


def _table() -> Iterator[str]:
    measured = _figures("networks")
    seconds = measured["cpu_s"]
    yield "| preset | channels | divisor | parameters | TFLOPs | kept | thrifty | time |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, config in NETS.items():
        flat, deep = (measure_cost(config, spatial_dims=dims) for dims in (2, 3))
        thrifty = config.model_copy(update={"activation_checkpointing": True})
        least = measure_cost(thrifty, spatial_dims=3).activations_gib
        channels = ", ".join(str(level.channels) for level in plan_levels(config, 3))
        second = seconds["resenc_m" if name == "resenc_l" else name]
        yield (
            f"| `{name}` | {channels} | {deep.divisor[0]} "
            f"| {deep.parameters / 1e6:.2f} M ({flat.parameters / 1e6:.2f} M) "
            f"| {deep.tflops:.2f} ({flat.tflops:.2f}) | {deep.activations_gib:.1f} "
            f"| {least:.1f} | {second:.2f} s (×{seconds['resunet'] / second:.1f}) |"
        )
    wide = seconds["resunet"] / measured["mobile_resunet_as_wide_as_resunet_cpu_s"]
    yield ""
    yield "`mobile_resunet` owes much of its speed to its narrow finest level: with the channels of"
    yield f"`resunet` it is ×{wide:.1f}.\n"


def _figures(name: str) -> Any:
    return json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))


def _openvino() -> Iterator[str]:
    measured = _figures("openvino")
    yield "OpenVINO on one thread, in float32 (`f32`) and `bf16`; how far its logits lie from"
    yield "torch's is told as a share of their range, for random weights:\n"
    yield "| precision | `resunet` | `mobile_resunet` | times faster | differ by |"
    yield "|---|---|---|---|---|"
    for precision in ("f32", "bf16"):
        slow, quick = (measured[f"{net} {precision}"] for net in ("resunet", "mobile_resunet"))
        times = slow["cpu_s"] / quick["cpu_s"]
        yield (
            f"| {precision} | {slow['cpu_s']:.3f} s | {quick['cpu_s']:.3f} s | {times:.1f} "
            f"| {slow['differs']:.0e}, {quick['differs']:.0e} |"
        )
    yield ""


HIPPOCAMPUS = """## On real data, for equal time

Every run of `configs/networks/` on the hippocampus set (80 cases to train on, 20 to judge by, T1 MR
of about 35×50×35 voxels), each trained for 10 CPU-minutes on one core of a shared AMD EPYC,
whatever it got done in them; `python benchmarks/networks.py hippocampus FOLDER 10`. The time to
segment a case includes its share of the start of the command, about 0.1 s.
"""

WHAT_IT_SAYS = """
What it says: in ten minutes each of them learns the task, and `mobile_resunet` stays within 0.02 of
`resunet` in half its time. What it does not say: which is best. These are small variants (three or
four levels, a quarter to a half as wide), one seed, one easy data set, twenty cases and learning
rates set by hand (that of `mobile_resunet` once, on these very cases: at 0.003 it reached 0.859),
so that differences of 0.01 mean nothing; slow networks got fewer steps, and with more time the
order changes. On harder data the residual encoders of nnU-Net lead (Isensee et al., 2024).
"""


def _hippocampus() -> Iterator[str]:
    yield HIPPOCAMPUS
    yield "| run | Dice | parameters | CPU-s to segment a case | steps | CPU-min |"
    yield "|---|---|---|---|---|---|"
    for row in sorted(_figures("hippocampus"), key=lambda row: -row["mean_dice"]):
        yield (
            f"| `{row['config']}` | {row['mean_dice']:.3f} | {row['parameters'] / 1e6:.2f} M "
            f"| {row['predict_cpu_s_per_case']:.2f} | {row['steps']} | {row['train_cpu_min']:.1f} |"
        )
    yield WHAT_IT_SAYS


def _depths() -> Iterator[str]:
    seconds = _figures("networks")["unetplusplus_cpu_s"]
    yield "`unetplusplus` with deep supervision, at each depth that `network.depth` can name:\n"
    yield "| depth | TFLOPs | time of a 64³ tile | times faster than depth 4 |"
    yield "|---|---|---|---|"
    for depth in range(1, 5):
        knobs = {"deep_supervision": True, "depth": depth}
        cost = measure_cost(NETS["unetplusplus"].model_copy(update=knobs), spatial_dims=3)
        second = seconds[str(depth)]
        yield f"| {depth} | {cost.tflops:.2f} | {second:.2f} s | {seconds['4'] / second:.1f} |"
    yield ""


def _drawn(config: UShapedConfig) -> Iterator[str]:
    """Draw a network: nodes by level (row) and step, thick skips, dotted up-sampling."""
    down = "max-pooling" if config.downsampling == "pool" else "strided convolution"
    up = {
        "transpose": "transposed convolution",
        "linear": "linear interpolation",
        "linear_aligned": "linear interpolation, corners aligned",
    }[config.upsampling]
    fusion = {
        "concat": "concatenated before what comes up",
        "concat_up_first": "concatenated behind what comes up",
        "add": "added after a 1×1 convolution",
    }[config.skip_fusion]
    yield f"Down: {down}. Up (dotted): {up}. Skips (thick): {fusion}.\n"
    yield "```mermaid"
    yield "flowchart LR"
    yield from _edges(config)
    yield "```"


def _edges(config: UShapedConfig) -> Iterator[str]:
    levels = plan_levels(config, 3)
    stem = " stem →" if isinstance(config, ResidualConfig) and config.stem else ""
    for number, level in enumerate(levels):
        blocks = f"{stem if number == 0 else ''} {level.encoder_blocks} × {level.channels}".strip()
        yield f'  n{number}_0["{blocks}"]'
        yield "  image([image]) --> n0_0" if number == 0 else f"  n{number - 1}_0 --> n{number}_0"
    for (level, step), skips in plan_nodes(config):
        here = levels[level]
        yield f'  n{level}_{step}["{here.decoder_blocks} × {here.channels}"]'
        yield f"  n{level + 1}_{step - 1} -.-> n{level}_{step}"
        earlier = range(step) if isinstance(config, NestedConfig) else range(skips)
        yield from (f"  n{level}_{before} ==> n{level}_{step}" for before in earlier)
    for number, (level, step) in enumerate(plan_heads(config)):
        name = "logits" if number == 0 else "while training"
        yield f"  n{level}_{step} --> h{number}([{name}])"


def describe_evaluation() -> str:
    """Give the page on scores: numbers under its drawings, and the table of protocols."""
    text = (CONCEPTS / "evaluation.md").read_text(encoding="utf-8")
    for kind, describe in (("masks", _surface_numbers), ("lesions", _lesion_numbers)):
        drawing = rf"(```{kind}\n(\d+) × (\d+) mm\n((?:[.#o@ ]+\n)+)).*?```"
        text = re.sub(drawing, partial(_with_numbers, describe=describe), text, flags=re.DOTALL)
    table = "\n".join(["<!-- protocols -->", *_protocols(), "<!-- end -->"])
    return re.sub("<!-- protocols -->.*<!-- end -->", table, text, flags=re.DOTALL)


def _with_numbers(found: re.Match[str], *, describe: Callable[..., Iterator[str]]) -> str:
    """Draw masks again, with what they give below; the first axis runs down the page."""
    rows = np.array([line.split() for line in found[4].splitlines()])
    masks = np.isin(rows, ["#", "@"]), np.isin(rows, ["o", "@"])
    spacing = (float(found[3]), float(found[2]))
    return "\n".join([found[1], *describe(*masks, spacing), "```"])


def _surface_numbers(
    reference: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float]
) -> Iterator[str]:
    pair = reference, predicted, spacing
    distances = (f"{name} {hausdorff_mm(*pair, definition=name):.2f}" for name in HAUSDORFF)
    shares = (
        f"{name} {normalized_surface_dice(*pair, tolerance_mm=1.0, definition=name):.2f}"
        for name in NSD
    )
    yield f"Dice {dice(reference, predicted):.2f}"
    yield f"HD95 in mm: {', '.join(distances)}"
    yield f"NSD at 1 mm: {', '.join(shares)}"


def _lesion_numbers(
    reference: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float]
) -> Iterator[str]:
    rules = {
        "whole region": None,
        "2023": DilatedLesions(dilations=1, threshold=0),
        "2026": MatchedInstances(),
    }
    affine = np.diag([*spacing, 1.0, 1.0])
    volumes = [
        Volume(m[np.newaxis, ..., np.newaxis].astype(np.uint8), affine)
        for m in (predicted, reference)
    ]
    for name, lesions in rules.items():
        scheme = Scheme(values={1: "spot"}, protocol=Protocol(lesions=lesions))
        found = score_case(*volumes, scheme=scheme).regions["spot"].measures
        if lesions is None:
            yield f"{name}: dice {found['dice']:.2f}, hd95 {found['hd95']:.2f}"
        else:
            counts = ", ".join(f"{n} {found[f'lesion_{n}']:g}" for n in ("tp", "fp", "fn"))
            yield (
                f"{name}: lesion_dice {found['lesion_dice']:.2f}, "
                f"lesion_hd95 {found['lesion_hd95']:.2f}, {counts}"
            )


def _protocols() -> Iterator[str]:
    yield "| scheme | regions | one side empty | dilations | ignored up to mm³ | lesion penalty |"
    yield "|---|---|---|---|---|---|"
    for name, scheme in SCHEMES.items():
        rules, lesions = scheme.protocol, scheme.protocol.lesions
        cells = [f"`{name}`", ", ".join(scheme.regions), _rule(rules.one_empty)]
        if isinstance(lesions, DilatedLesions):
            cells += [
                _with_exceptions(lesions.dilations, lesions.dilations_of),
                _with_exceptions(lesions.threshold, lesions.threshold_of),
                _rule(lesions.penalty),
            ]
        else:
            cells += ["matched", "", _rule(lesions.penalty)] if lesions else ["", "", ""]
        yield f"| {' | '.join(cells)} |"


def _rule(rule: float | str) -> str:
    return rule.replace("_", " in ") if isinstance(rule, str) else f"{rule:g}"


def _with_exceptions(rule: float, others: Mapping[str, float]) -> str:
    said = ", ".join(f"{region} {other:g}" for region, other in others.items())
    return f"{rule:g} ({said})" if said else f"{rule:g}"


if __name__ == "__main__":
    (CONCEPTS / "evaluation.md").write_text(describe_evaluation(), encoding="utf-8")
    (REFERENCE / "config.md").write_text(describe_config(), encoding="utf-8")
    (REFERENCE / "networks.md").write_text(describe_networks(), encoding="utf-8")
