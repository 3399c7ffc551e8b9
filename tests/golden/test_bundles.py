"""Bundles of every format that was ever released load, and say what they said when they were made.

`format1.safetensors` was written by medseg3d 0.1 as of commit 6200fd8, with random weights.
"""

from pathlib import Path

import numpy as np

from medseg3d.io.files import write_volume
from medseg3d.nets.bundle import load_bundle
from medseg3d.predict.case import predict_case
from medseg3d.volume import Volume

BUNDLES = Path(__file__).parent / "bundles"
COUNTS = [1338, 0, 330, 12]
"""Voxels of each value that the bundle of format 1 gave then."""


def test_a_bundle_of_format_1_gives_the_labels_that_it_gave(tmp_path: Path) -> None:
    i, j, k = np.indices((14, 12, 10))
    image = np.stack([(i * j + 7 * k) % 23, (i + j * k) % 31]).astype(np.int16)
    paths = [tmp_path / "t1n.nii.gz", tmp_path / "t2f.nii.gz"]
    for path, channel in zip(paths, image, strict=True):
        write_volume(Volume(channel[np.newaxis], np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    bundle = load_bundle(BUNDLES / "format1.safetensors")

    label_map = predict_case(bundle, paths)

    counts = np.bincount(label_map.array_CIJK.ravel(), minlength=4)
    np.testing.assert_allclose(counts, COUNTS, atol=3)  # ties may fall otherwise elsewhere
    assert bundle.recipe.predict.mirror == ("i",)
    assert bundle.recipe.labels.regions == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
