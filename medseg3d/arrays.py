"""Array aliases and the one legend of axis letters.

B batch · C input channel · L output channel · R region · I J K voxel axes as the file stores them ·
N cases · P patches. A name that crosses lines carries its axes: `image_CIJK`, `label_map_IJK`.
The world is RAS+ in millimetres, float64; voxel centres lie on integer coordinates and boxes are
half-open.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64, Integer, Shaped

ArrayCIJK: TypeAlias = Shaped[np.ndarray, "C I J K"]
ArrayIJK: TypeAlias = Shaped[np.ndarray, "I J K"]
LabelMapIJK: TypeAlias = Integer[np.ndarray, "I J K"]
MaskIJK: TypeAlias = Bool[np.ndarray, "I J K"]
Affine: TypeAlias = Float64[np.ndarray, "4 4"]
TripleInt: TypeAlias = tuple[int, int, int]
TripleFloat: TypeAlias = tuple[float, float, float]
