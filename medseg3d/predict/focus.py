"""Where in a volume there is anything to segment."""

from typing import Final

import numpy as np

from medseg3d.config.predict import Focus
from medseg3d.volume import Volume

AIR_HU: Final = -500
"""Half way from air to water in CT."""


def find_focus(image: Volume, how: Focus) -> Volume | None:
    """Mark the voxels of an image that may belong to something, 1 in a label map; none marks all.

    `nonzero` are those that are not 0 in some channel, `body` those above -500 HU in some.
    """
    if how == "all":
        return None
    image_CIJK = image.array_CIJK
    marked = image_CIJK != 0 if how == "nonzero" else image_CIJK > AIR_HU
    somewhere = np.asarray(marked.any(axis=0, keepdims=True))
    return Volume(somewhere.view(np.uint8), image.affine)
