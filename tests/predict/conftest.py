"""Images to segment."""

from pathlib import Path

import numpy as np

from medseg3d.io.files import write_volume
from medseg3d.volume import Volume

LPS = np.diag([-1.2, -0.8, 2.0, 1.0])


def write_image(path: Path, shape: tuple[int, int, int] = (20, 24, 9), seed: int = 0) -> Path:
    """Write noise of one channel."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 20, size=(1, *shape)).astype(np.float32)
    write_volume(Volume(image, LPS), path)
    return path
