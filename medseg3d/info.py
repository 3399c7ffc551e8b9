"""What a file or a name is, in a few facts."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, UntypedStorage, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from medseg3d.config.network import MonaiConfig, NetworkConfig
from medseg3d.data.cases import VOLUME_SUFFIXES
from medseg3d.errors import ConfigError
from medseg3d.io.files import read_volume
from medseg3d.nets.bundle import read_recipe
from medseg3d.nets.presets import MONAI, NETS, build_net, find_config

TILES: Final = {2: (512, 512), 3: (128, 128, 128)}
"""Number of spatial axes -> the tile that networks are described by."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network is and takes, per tile of one image."""

    parameters: int
    divisor: tuple[int, ...]
    tile: tuple[int, ...]
    tflops: float
    """Of prediction; multiplications and additions of convolutions and matrices count apart."""
    activations_gib: float
    """What a training step keeps for the gradients besides the weights, in 32 bits."""


def measure_cost(
    config: NetworkConfig,
    *,
    spatial_dims: int,
    in_channels: int = 1,
    out_channels: int = 2,
    tile: Sequence[int] | None = None,
) -> Cost:
    """Count what a network takes for a tile, from shapes alone: nothing is computed or allocated.

    A tile that the network cannot halve is enlarged to the next one that it can. Memory is the sum
    over all tensors that autograd saves, each storage once; at its peak a training step needs that,
    the largest few of them again as gradients, weights, and the optimiser's state.
    """
    with nullcontext() if isinstance(config, MonaiConfig) else torch.device("meta"):
        net = build_net(
            config, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels
        ).to("meta")
    lengths = zip(tile or TILES[spatial_dims], net.divisor, strict=True)
    fitting = tuple(-(-length // divisor) * divisor for length, divisor in lengths)
    image = torch.empty(1, in_channels, *fitting, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(image)
    return Cost(
        parameters=sum(p.numel() for p in net.parameters()),
        divisor=net.divisor,
        tile=fitting,
        tflops=counter.get_total_flops() / 1e12,
        activations_gib=_count_kept(net.train(), image) / 2**30,
    )


def _count_kept(net: nn.Module, image: Tensor) -> int:
    """Count the bytes that a pass keeps for the gradients, the image and the weights left out."""
    known = [tensor.untyped_storage() for tensor in (image, *net.parameters(), *net.buffers())]
    kept = {id(storage): 0 for storage in known}
    held: list[UntypedStorage] = []  # so that no id is given twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(id(storage), storage.nbytes())
        held.append(storage)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        net(image)
    return sum(kept.values())


def describe(what: str) -> dict[str, Any]:
    """Describe a volume's file, a folder or archive of DICOM, a bundle, or a network by name.

    Raises:
        ConfigError: it is none of these.
        FormatError, BundleError: the file is not what its name says.
    """
    path = Path(what)
    if path.is_dir() or path.suffix.lower() in (".zip", ".dcm"):
        return {"folder": str(path), "series": describe_series(path)}
    if what in NETS or what.startswith(MONAI):
        return _describe_net(what)
    if path.suffix == ".safetensors":
        return _describe_bundle(path)
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return _describe_volume(path)
    raise ConfigError(
        f"'{what}' is no volume ({', '.join(VOLUME_SUFFIXES)}), no bundle (.safetensors), and no "
        f"network; networks are {', '.join(NETS)}, {MONAI}<Name>"
    )


def describe_series(source: Path) -> list[dict[str, Any]]:
    """Describe each volume of each DICOM series below a folder, and each series without any.

    Raises:
        FormatError: as `find_series`.
    """
    from medseg3d.io.dicom.series import find_series  # noqa: PLC0415 # needs an extra

    rows = []
    for series in find_series(source):
        whole = [*series.faults, *series.remarks]
        volumes = [
            {
                "volume": stack.name,
                "size": stack.size,
                "spacing_mm": stack.spacing_mm,
                "remarks": [*whole, *stack.remarks()],
            }
            for stack in series.stacks
        ] or [{"volume": "", "size": "", "spacing_mm": None, "remarks": whole}]
        facts = {"series": series.number, "modality": series.modality}
        rows += [{**facts, "description": series.description, **volume} for volume in volumes]
    if not rows:
        raise ConfigError(f"'{source}' holds no DICOM; `medseg3d info` describes files one by one")
    return rows


def _describe_volume(path: Path) -> dict[str, Any]:
    volume = read_volume(path, nonfinite="keep", fourth_axis="channels")
    array = volume.array_CIJK
    return {
        "file": str(path),
        "channels": volume.num_channels,
        "shape": volume.shape_IJK,
        "spacing_mm": volume.spacing_mm,
        "orientation": volume.orientation,
        "affine": volume.affine.tolist(),
        "dtype": str(array.dtype),
        "minimum": array.min().item(),
        "maximum": array.max().item(),
    }


def _describe_bundle(path: Path) -> dict[str, Any]:
    recipe, version = read_recipe(path)
    cost = measure_cost(
        recipe.network,
        spatial_dims=recipe.spatial_dims,
        in_channels=len(recipe.images),
        out_channels=len(recipe.labels.channel_values),
        tile=recipe.predict.tile_size,
    )
    return {
        "bundle": str(path),
        "trained_with": f"medseg3d {version}",
        "channels": [*recipe.images],
        "labels": recipe.labels.values,
        "regions": {name: list(values) for name, values in recipe.labels.regions.items()},
        **_facts(cost),
        **recipe.model_dump(mode="json", exclude={"images", "labels"}),
    }


def _describe_net(name: str) -> dict[str, Any]:
    config = find_config(name)
    facts: dict[str, Any] = {"network": name, **config.model_dump(mode="json")}
    for dims in (2, 3):
        cost = measure_cost(config, spatial_dims=dims)
        facts |= {f"{fact}_{dims}d": value for fact, value in _facts(cost).items()}
    return facts


def _facts(cost: Cost) -> dict[str, Any]:
    """Give a cost with four significant digits."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in asdict(cost).items()
    }
