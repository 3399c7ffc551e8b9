"""What the values of a label map mean.

A `LabelScheme` names the values a file may hold (0 is background) and the regions, sets of values
that may overlap, that people look at and score. A network has one output channel per value, the
background's first.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final

import numpy as np
from jaxtyping import Bool, UInt8
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from medseg3d.arrays import ArrayIJK, LabelMapIJK, MaskIJK
from medseg3d.errors import ConfigError, LabelError
from medseg3d.terms import TERMS, Color, Term

INTEGER_TOLERANCE: Final = 1e-3
"""A stored value this close to an integer is that integer (float files, header scaling)."""

PALETTE: Final = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2", "#f0e442")
"""Colours told apart by the colour-blind too (Okabe and Ito, 2008); repeats after seven."""

IGNORED: Final = 255
"""What a map of output channels holds where the reference is not annotated; no channel's index."""

SIDES: Final = (
    ({"left", "right", "lh", "rh", "l", "r"}, "left from right"),
    ({"anterior", "posterior", "ventral", "dorsal"}, "front from back"),
    ({"superior", "inferior", "upper", "lower", "cranial", "caudal"}, "top from bottom"),
)
"""For each world axis, words in labels' names that tell its ends apart."""

Value = Annotated[int, Field(ge=1, le=65535)]


def ready_made(table: Mapping[str, Any], what: str, remedy: str) -> BeforeValidator:
    """Let a string stand for the entry of a table, and anything else for itself."""

    def find(given: Any) -> Any:
        if not isinstance(given, str):
            return given
        if given not in table:
            near = get_close_matches(given, table, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(table)}."
            raise ValueError(f"no {what} '{given}'; {hint} {remedy}")
        return table[given]

    return BeforeValidator(find)


TermByName = Annotated[Term, ready_made(TERMS, "term", "Else give its category and type")]


class LabelScheme(BaseModel):
    """Names of the values in a label map, and the regions made of them.

    Without `regions`, each value is a region under its own name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = "labels"
    """How the scheme is called in tables and files."""
    values: dict[Value, str] = Field(min_length=1)
    """Value in the file -> its name; 0 is background and not listed."""
    regions: dict[str, tuple[Value, ...]] = {}
    """Region -> the values it is made of; regions may overlap."""
    ignore: Value | None = None
    """Value of references that means "not annotated": such voxels are neither trained on nor
    scored, and no prediction holds it."""
    colors: dict[str, Color] = {}
    """Region -> colour as #rrggbb; others take the palette in order."""
    codes: dict[str, TermByName] = {}
    """Value's or region's name -> what it means in codes, for DICOM: a ready-made term's name such
    as `liver`, or `category` and `type`, each as `10200004 |Liver|`."""

    @model_validator(mode="after")
    def _complete(self) -> "LabelScheme":
        if len(set(self.values.values())) != len(self.values):
            raise ValueError(f"two values share a name: {self.values}")
        if self.ignore in self.values:
            raise ValueError(f"ignore is {self.ignore}, which values call an annotated one")
        for region, values in self.regions.items():
            if unknown := sorted(set(values) - set(self.values)):
                raise ValueError(f"region '{region}' holds {unknown}, values are {[*self.values]}")
            if not values:
                raise ValueError(f"region '{region}' is made of no value")
        if not self.regions:
            regions = {name: (value,) for value, name in sorted(self.values.items())}
            object.__setattr__(self, "regions", regions)
        if unknown_colors := sorted(set(self.colors) - set(self.regions)):
            raise ValueError(f"colours for {unknown_colors}, regions are {[*self.regions]}")
        if unknown_codes := sorted(set(self.codes) - set(self.names)):
            raise ValueError(f"codes for {unknown_codes}, names are {self.names}")
        return self

    @property
    def names(self) -> list[str]:
        """Name of every region and every value, regions first."""
        return [*dict.fromkeys([*self.regions, *self.values.values()])]

    @property
    def sides(self) -> dict[int, str]:
        """World axes whose ends names tell apart, with what they tell: a flip makes them wrong."""
        words = {word for name in self.names for word in re.split(r"[^a-z]+", name.lower())}
        return {axis: what for axis, (ends, what) in enumerate(SIDES) if ends & words}

    @property
    def channel_values(self) -> tuple[int, ...]:
        """Value of each output channel: 0 first, then ascending."""
        return (0, *sorted(self.values))

    @property
    def painted(self) -> dict[str, int]:
        """Region -> the value that its voxels get, in the order of painting: the widest first.

        A region that lies in another is painted over it, as ET over TC over WT.

        Raises:
            ConfigError: the regions do not lie in one another so that each value is painted.
        """
        order = sorted(self.regions, key=lambda region: -len(self.regions[region]))
        colors: dict[str, int] = {}
        for place, region in enumerate(order):
            over = {value for later in order[place + 1 :] for value in self.regions[later]}
            own = [value for value in self.regions[region] if value not in over]
            if len(own) != 1:
                raise ConfigError(
                    f"region '{region}' has {len(own)} values of its own, {own}, and needs one: "
                    "a network of regions paints them over one another, the smallest last; "
                    "change labels.regions, or let the network predict values"
                )
            colors[region] = own[0]
        if unpainted := sorted(set(self.values) - set(colors.values())):
            raise ConfigError(f"no region paints value {unpainted}; add one to labels.regions")
        return colors

    def region_color(self, region: str) -> str:
        """Give the colour of a region as #rrggbb."""
        return self.colors.get(region, PALETTE[self.names.index(region) % len(PALETTE)])

    def term_of(self, name: str) -> Term:
        """Give the coded term of a value or region, by its name.

        Raises:
            ConfigError: it has none.
        """
        if name not in self.codes:
            raise ConfigError(
                f"label '{name}' of scheme '{self.name}' has no code, which DICOM needs; codes are "
                f"for {[*self.codes]}. Name a ready-made term with --set labels.codes.{name}=liver "
                "(or another of medseg3d.terms), or give one with category and type in YAML"
            )
        return self.codes[name]

    def display_color(self, name: str) -> str:
        """Give the colour a viewer shows a value or region in: as set, customary, or the palette's.

        Pages of medseg3d take `region_color`, which the colour-blind can tell apart.
        """
        customary = self.codes[name].color if name in self.codes else None
        return self.colors.get(name, customary or self.region_color(name))


def as_label_map(array: ArrayIJK, *, source: str = "label map") -> LabelMapIJK:
    """Read an array of whatever dtype as integers, without changing what it says.

    Floats within 1e-3 of an integer are rounded: label maps are often stored as float32, and a
    header's scaling turns 1 into 0.99999997. An array of the right dtype is given back uncopied.

    Raises:
        LabelError: a value is further from an integer, not finite, negative, or above 65535.
    """
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        rounded, wrong = array, None
    else:
        with np.errstate(invalid="ignore"):
            rounded = np.rint(array)
            wrong = ~(np.abs(array - rounded) <= INTEGER_TOLERANCE)
    if wrong is not None and wrong.any():
        raise LabelError(
            f"{source}: {int(wrong.sum())} voxels hold no integer, e.g. "
            f"{[float(v) for v in np.unique(array[wrong])[:3]]}; a label map holds integers "
            "(within 0.001). Was it resampled with interpolation, or is it an image?"
        )
    low, high = rounded.min(), rounded.max()
    if low < 0 or high > 65535:
        raise LabelError(
            f"{source}: values from {int(low)} to {int(high)}; a label map holds 0 to 65535. "
            "Is it an image? Else relabel the file."
        )
    return rounded.astype(np.uint8 if high <= 255 else np.uint16, copy=False)


def count_values(label_map: LabelMapIJK) -> dict[int, int]:
    """Count the voxels of each value that occurs."""
    counts = np.zeros(int(label_map.max()) + 1, dtype=np.int64)
    for plane in label_map.transpose(np.argsort(label_map.strides)[::-1]):
        counts += np.bincount(plane.ravel(), minlength=len(counts))  # makes int64 of what it counts
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def require_values(
    label_map: LabelMapIJK, scheme: LabelScheme, *, source: str, reference: bool = False
) -> None:
    """Check that a label map holds only values of the scheme, or 0; a reference also `ignore`.

    Raises:
        LabelError: names each foreign value and its number of voxels.
    """
    known = [*scheme.channel_values]
    if reference and scheme.ignore is not None:
        known.append(scheme.ignore)
    counts = count_values(label_map)
    foreign = {value: count for value, count in counts.items() if value not in known}
    if foreign:
        said = ", ".join(f"{value} ({count} voxels)" for value, count in [*foreign.items()][:10])
        raise LabelError(
            f"{source}: holds {said}; scheme '{scheme.name}' knows {known}. "
            "Choose the scheme the file was made with, or relabel the file."
        )


def region_masks(label_map: LabelMapIJK, scheme: LabelScheme) -> Iterator[tuple[str, MaskIJK]]:
    """Give each region's name with its mask, in the scheme's order."""
    for region, (first, *others) in scheme.regions.items():
        mask = label_map == first
        for value in others:
            mask |= label_map == value
        yield region, mask


def values_to_channels(label_map: LabelMapIJK, scheme: LabelScheme) -> UInt8[np.ndarray, "I J K"]:
    """Replace each value by its output channel's index, and `ignore` by `IGNORED`.

    The values must be the scheme's.

    Raises:
        ConfigError: there are more values than indices below `IGNORED`.
    """
    channels = len(scheme.channel_values)
    if channels > IGNORED:
        raise ConfigError(
            f"scheme '{scheme.name}' has {channels - 1} values; training takes {IGNORED - 1} at "
            "most. Join values, or train a network for each part of them."
        )
    table = np.full(max(*scheme.channel_values, scheme.ignore or 0) + 1, IGNORED, np.uint8)
    table[list(scheme.channel_values)] = np.arange(channels)
    return table[label_map]


def channels_to_values(channel_map: LabelMapIJK, scheme: LabelScheme) -> LabelMapIJK:
    """Replace each output channel's index by its value; undoes `values_to_channels`."""
    values = scheme.channel_values
    if scheme.ignore is not None:
        values += (scheme.ignore,) * (IGNORED + 1 - len(values))
    return np.array(values, dtype=np.min_scalar_type(max(values)))[channel_map]


def drop_ignored(
    reference: LabelMapIJK, predicted: LabelMapIJK, scheme: LabelScheme
) -> tuple[LabelMapIJK, LabelMapIJK]:
    """Make background in both of what the reference tells to ignore; else give both as they are."""
    if scheme.ignore is None or not (ignored := reference == scheme.ignore).any():
        return reference, predicted
    return np.where(ignored, 0, reference), np.where(ignored, 0, predicted)


def regions_to_values(masks_RIJK: Bool[np.ndarray, "R I J K"], scheme: LabelScheme) -> LabelMapIJK:
    """Paint regions over one another, the widest first; a voxel in no region is 0.

    Raises:
        ConfigError: the scheme's regions do not lie in one another.
    """
    masks = dict(zip(scheme.regions, masks_RIJK, strict=True))
    values = np.zeros(masks_RIJK.shape[1:], dtype=np.min_scalar_type(max(scheme.channel_values)))
    for region, value in scheme.painted.items():
        values[masks[region]] = value
    return values
