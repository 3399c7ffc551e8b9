"""What a file or a name is, in a few facts."""

from pathlib import Path
from typing import Any

from medseg3d.config.recipe import Recipe
from medseg3d.data.cases import VOLUME_SUFFIXES
from medseg3d.errors import ConfigError
from medseg3d.io.files import read_volume
from medseg3d.nets.bundle import build_recipe_net, read_recipe
from medseg3d.nets.presets import NETS, build_net


def describe(what: str) -> dict[str, Any]:
    """Describe a volume's file, a bundle, or a network by name.

    Raises:
        ConfigError: it is none of these.
        FormatError, BundleError: the file is not what its name says.
    """
    path = Path(what)
    if what in NETS:
        return _describe_net(what)
    if path.suffix == ".safetensors":
        return _describe_bundle(path)
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return _describe_volume(path)
    raise ConfigError(
        f"'{what}' is no volume ({', '.join(VOLUME_SUFFIXES)}), no bundle (.safetensors), and no "
        f"network; networks are {', '.join(NETS)}"
    )


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
    return {
        "bundle": str(path),
        "trained_with": f"medseg3d {version}",
        "channels": [*recipe.images],
        "labels": recipe.labels.values,
        "regions": {name: list(values) for name, values in recipe.labels.regions.items()},
        "parameters": _count_parameters(recipe),
        **recipe.model_dump(mode="json", exclude={"images", "labels"}),
    }


def _describe_net(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"network": name, **NETS[name].model_dump(mode="json")}
    for dims in (2, 3):
        net = build_net(name, spatial_dims=dims, in_channels=1, out_channels=2)
        facts[f"parameters_{dims}d"] = sum(p.numel() for p in net.parameters())
        facts[f"divisor_{dims}d"] = list(net.divisor)
    return facts


def _count_parameters(recipe: Recipe) -> int:
    return sum(p.numel() for p in build_recipe_net(recipe).parameters())
