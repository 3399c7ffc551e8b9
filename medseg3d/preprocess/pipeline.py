"""From file to network and back, with the grid contract.

What goes out lies on exactly the grid that came in: same shape, same affine, whatever happened in
between.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from medseg3d.arrays import ArrayCIJK, LabelMapIJK, TripleInt
from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.errors import GridError
from medseg3d.geometry.crop import Box, crop_volume, nonzero_box
from medseg3d.geometry.orient import AxisMap, plan_axes
from medseg3d.geometry.resample import resample_label_map, resample_volume, spaced_grid
from medseg3d.preprocess.intensity import normalize_intensity
from medseg3d.volume import Grid, Volume, require_one_grid

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Preprocessed:
    """A volume ready for a network, and the way back to the grid it came from."""

    volume: Volume
    source: Grid
    box: Box
    """What was cut out of the source."""
    axes: AxisMap
    """How that was turned."""

    def follow(self, label_map: Volume) -> LabelMapIJK:
        """Bring a label map from the source grid onto the network's, as the image went.

        Raises:
            GridError: the label map is not on the source grid.
        """
        require_one_grid([self.source, label_map.grid], ["image", "label map"])
        cropped = self.axes.apply(crop_volume(label_map, self.box))
        return resample_label_map(cropped.array_CIJK[0], cropped.grid, self.volume.grid)

    def restore(self, label_map_IJK: LabelMapIJK) -> Volume:
        """Put a label map of the network's grid onto the source grid; outside the crop is 0.

        Raises:
            GridError: the label map's shape is not the network grid's.
        """
        self._require_shape(label_map_IJK.shape, "restore takes a label map")
        inside = resample_label_map(label_map_IJK, self.volume.grid, self._cropped_grid)
        restored = np.zeros((1, *self.source.shape_IJK), dtype=inside.dtype)
        self._cropped_view(restored)[0] = inside
        return Volume(restored, self.source.affine)

    def restore_image(self, image_CIJK: Float[np.ndarray, "C I J K"]) -> Volume:
        """Put maps of the network's grid, such as probabilities, onto the source grid, in float32.

        Linear, whatever the image went through, so that nothing leaves the range it had; outside
        the crop is 0.

        Raises:
            GridError: the maps' shape is not the network grid's.
        """
        self._require_shape(image_CIJK.shape[1:], "restore_image takes channels")
        restored = np.zeros((len(image_CIJK), *self.source.shape_IJK), dtype=np.float32)
        for target, channel in zip(self._cropped_view(restored), image_CIJK, strict=True):
            image = Volume(channel[np.newaxis], self.volume.affine)
            target[...] = resample_volume(image, grid=self._cropped_grid).array_CIJK[0]
        return Volume(restored, self.source.affine)

    @property
    def _cropped_grid(self) -> Grid:
        """Where the image lay before its voxels changed."""
        return self.axes.apply_grid(self.box.crop_grid(self.source))

    def _cropped_view(self, array_CIJK: ArrayCIJK) -> Shaped[np.ndarray, "C _ _ _"]:
        """Cut and turn an array of the source's shape; gives a view."""
        return self.axes.apply_array(array_CIJK[:, *self.box.slices])

    def _require_shape(self, shape_IJK: TripleInt, taken: str) -> None:
        if shape_IJK != self.volume.shape_IJK:
            raise GridError(
                f"{taken} on the preprocessed grid, shape {self.volume.shape_IJK}, got {shape_IJK}"
            )


def preprocess_volume(volume: Volume, config: PreprocessConfig) -> Preprocessed:
    """Crop, reorient, normalise and resample, remembering how to undo it.

    Raises:
        FormatError: the volume holds NaN or infinity.
        ConfigError: `config.orientation` names no orientation.
    """
    scales = config.scales(volume.num_channels)
    axes = plan_axes(volume.affine, config.orientation or volume.orientation)
    box = nonzero_box(volume.array_CIJK) if config.crop == "nonzero" else Box.whole(volume.grid)
    cropped = axes.apply(crop_volume(volume, box))
    for number, values in enumerate(volume.array_CIJK, start=1):
        if values.min() == values.max():
            log.warning("channel %d: every voxel is %g: an empty image", number, values.flat[0])
    nonzero = [number for number, scale in enumerate(scales) if scale == "zscore_nonzero"]
    by_zeros = config.crop == "nonzero" or nonzero
    if by_zeros and volume.array_CIJK.all():
        log.warning("no voxel is 0: 'nonzero' in preprocess.crop and .intensity does nothing")
    # before voxels change: between head and air, interpolation makes grey values of no tissue
    normalized = Volume(normalize_intensity(cropped.array_CIJK, scales), cropped.affine)
    grid = spaced_grid(cropped.grid, config.spacing_mm) if config.spacing_mm else cropped.grid
    resampled = resample_volume(normalized, grid=grid, interpolation=config.interpolation)
    if config.spacing_mm:
        _put_air(resampled, cropped, channels=nonzero)
    return Preprocessed(resampled, volume.grid, box, axes)


def _put_air(resampled: Volume, original: Volume, *, channels: Sequence[int]) -> None:
    """Put 0 again where the nearest original voxel is 0: interpolation has blurred the edge."""
    for number in channels:
        tissue = (original.array_CIJK[number] != 0).astype(np.uint8)[np.newaxis]
        nearest = resample_volume(
            Volume(tissue, original.affine), grid=resampled.grid, interpolation="nearest"
        )
        resampled.array_CIJK[number] *= nearest.array_CIJK[0]
