"""How a volume is segmented, tile by tile."""

from typing import Literal

from pydantic import Field, PositiveInt

from medseg3d.config.postprocess import RegionRule
from medseg3d.config.section import Section


class PredictConfig(Section):
    """The sliding window."""

    tile_size: tuple[PositiveInt, ...] | None = None
    """Window along the preprocessed axes; null takes the training patch."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Least share of a tile that its neighbour covers too."""
    tile_batch: PositiveInt = 1
    """Tiles per forward pass; the result does not depend on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    postprocess: dict[str, RegionRule] = Field(default={})
    """Region's or value's name -> what is done to it in the label map, on the grid of the images;
    one after the other, in the order given."""
