"""What a file or a name is, in a few facts."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg3d.data.patterns import VOLUME_SUFFIXES
from medseg3d.errors import ConfigError
from medseg3d.io.files import is_dicom_source, read_volume

if TYPE_CHECKING:
    from medseg3d.nets.cost import Cost


def describe(what: str) -> dict[str, Any]:
    """Describe a volume's file, a folder or archive of DICOM, a bundle, or a network by name.

    Raises:
        ConfigError: it is none of these.
        FormatError, BundleError: the file is not what its name says.
    """
    path = Path(what)
    if path.name == "DICOMDIR" or (path.exists() and is_dicom_source(path)):
        return {"folder": str(path), "series": describe_series(path)}
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        return _describe_volume(path)
    if path.suffix == ".safetensors":
        return _describe_bundle(path)
    return _describe_net(what)


def describe_series(source: Path) -> list[dict[str, Any]]:
    """Describe each volume of each DICOM series below a folder, and each series without any.

    Raises:
        FormatError: as `find_series`.
    """
    from medseg3d.io.dicom.series import find_series

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
    from medseg3d.nets.bundle import read_recipe
    from medseg3d.nets.cost import measure_cost

    recipe, version = read_recipe(path)
    cost = measure_cost(
        recipe.network,
        spatial_dims=recipe.spatial_dims,
        in_channels=len(recipe.images),
        out_channels=recipe.num_outputs,
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
    from medseg3d.nets.cost import measure_cost
    from medseg3d.nets.presets import MONAI, NETS, find_config

    if name not in NETS and not name.startswith(MONAI):
        raise ConfigError(
            f"'{name}' is no volume ({', '.join(VOLUME_SUFFIXES)}), no DICOM, no bundle "
            f"(.safetensors), and no network; networks are {', '.join(NETS)}, {MONAI}<Name>"
        )
    config = find_config(name)
    facts: dict[str, Any] = {"network": name, **config.model_dump(mode="json")}
    for dims in (2, 3):
        cost = measure_cost(config, spatial_dims=dims)
        facts |= {f"{fact}_{dims}d": value for fact, value in _facts(cost).items()}
    return facts


def _facts(cost: "Cost") -> dict[str, Any]:
    """Give a cost with four significant digits."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in asdict(cost).items()
    }
