"""How large what was found is: a table of all cases."""

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

from medseg3d.errors import FormatError
from medseg3d.evaluate.tables import as_csv
from medseg3d.io.atomic import write_atomically
from medseg3d.labels import LabelScheme, count_values
from medseg3d.volume import Volume

TABLE: Final = "volumes.csv"
"""Name of the table in the folder of the results."""


@dataclass(frozen=True, slots=True)
class LabelVolume:
    """How much of a case is of one value or in one region."""

    case: str
    label: str
    """The name of a region or a value; a region's where both have it."""
    voxels: int
    mm3: float
    ml: float


def measure_volumes(case: str, label_map: Volume, scheme: LabelScheme) -> list[LabelVolume]:
    """Measure every region and every value of a label map of one channel, also those not found."""
    counts = count_values(label_map.array_CIJK[0])
    values = {name: (value,) for value, name in scheme.values.items()} | scheme.regions
    volumes = []
    for label in scheme.names:
        voxels = sum(counts.get(value, 0) for value in {*values[label]})
        mm3 = round(voxels * label_map.grid.voxel_mm3, 3)
        volumes.append(LabelVolume(case, label, voxels, mm3, round(mm3 / 1000, 6)))
    return volumes


def write_volumes(folder: Path, volumes: Iterable[LabelVolume]) -> None:
    """Write the table into a folder.

    Raises:
        ConfigError: it cannot be written.
    """
    header = (field.name for field in fields(LabelVolume))
    write_atomically(folder / TABLE, as_csv([header, *map(astuple, volumes)]).encode())


def read_volumes(folder: Path) -> dict[str, list[LabelVolume]]:
    """Read what `write_volumes` wrote, by case; nothing where there is no table.

    Raises:
        FormatError: it is no such table.
    """
    path = folder / TABLE
    volumes: dict[str, list[LabelVolume]] = {}
    try:
        rows = csv.DictReader(path.read_text().splitlines()) if path.exists() else ()
        for row in rows:
            measured = int(row["voxels"]), float(row["mm3"]), float(row["ml"])
            volume = LabelVolume(row["case"], row["label"], *measured)
            volumes.setdefault(volume.case, []).append(volume)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise FormatError(
            f"'{path}' is no table of volumes ({error!r}); move it elsewhere, and repeat"
        ) from error
    return volumes
