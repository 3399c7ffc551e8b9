"""Training crops: always of one size, on a label when asked, anywhere otherwise."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from medseg3d.data.patches import draw_start
from medseg3d.data.store import Patch, StoredCase

LABELS = (1, 2, 5)


def build_case(shape: tuple[int, int, int], *, labelled: bool = True) -> StoredCase:
    """Build a case whose image tells each voxel's index, with one voxel of each label."""
    index = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    channels = np.zeros(shape, dtype=np.uint8)
    for label in LABELS if labelled else ():
        place = np.random.default_rng(label).integers(0, shape)
        channels[tuple(place)] = label
    return StoredCase.of_arrays(
        "p1", np.stack([index, -index]), channels_IJK=channels, spacing_mm=(1.0, 1.0, 1.0)
    )


def draw(
    case: StoredCase, size: tuple[int, int, int], *, on_foreground: bool = False, number: int = 50
) -> list[Patch]:
    rng = np.random.default_rng(0)
    return [
        case.read(draw_start(rng, case, size_IJK=size, on_foreground=on_foreground), size)
        for _ in range(number)
    ]


@pytest.mark.parametrize("size", [(4, 5, 6), (1, 1, 1), (9, 10, 11), (12, 4, 11), (20, 21, 1)])
@pytest.mark.parametrize("on_foreground", [False, True])
def test_patches_have_their_size_whatever_the_case_has(
    size: tuple[int, int, int], on_foreground: bool
):
    for patch in draw(build_case((9, 10, 11)), size, on_foreground=on_foreground):
        assert patch.image_CIJK.shape == (2, *size)
        assert patch.channels_IJK.shape == size
        assert patch.image_CIJK.flags.writeable


def test_image_and_labels_are_cut_at_the_same_place():
    case = build_case((9, 10, 11))
    for patch in draw(case, (4, 5, 6)):
        start = np.unravel_index(int(patch.image_CIJK[0, 0, 0, 0]), (9, 10, 11))
        box = tuple(slice(a, a + n) for a, n in zip(start, (4, 5, 6), strict=True))
        np.testing.assert_array_equal(patch.image_CIJK, case.image_CIJK[(slice(None), *box)])
        np.testing.assert_array_equal(patch.channels_IJK, case.channels_IJK[box])


def test_a_patch_on_foreground_holds_a_label_each_label_equally_often():
    case = build_case((30, 31, 32))
    held = Counter(
        label
        for patch in draw(case, (3, 3, 3), on_foreground=True, number=600)
        for label in np.unique(patch.channels_IJK)
        if label
    )
    assert sorted(held) == [*LABELS]
    assert min(held.values()) > 150


def test_the_drawn_voxel_is_in_the_middle_unless_the_border_is_near():
    case = build_case((31, 31, 31))
    middle = replace(case, places={1: np.int16([[15, 16, 17]])})
    corner = replace(case, places={1: np.int16([[0, 30, 29]])})
    wanted = case.image_CIJK[0, 15, 16, 17]
    assert draw(middle, (5, 4, 3), on_foreground=True)[0].image_CIJK[0, 2, 2, 1] == wanted
    wanted = case.image_CIJK[0, 0, 30, 29]
    assert draw(corner, (5, 4, 3), on_foreground=True)[0].image_CIJK[0, 0, 3, 1] == wanted


def test_without_labels_a_patch_on_foreground_lies_anywhere():
    patches = draw(build_case((9, 10, 11), labelled=False), (4, 5, 6), on_foreground=True)
    assert len({float(patch.image_CIJK[0, 0, 0, 0]) for patch in patches}) > 20


def test_a_smaller_case_repeats_its_border_on_both_sides():
    case = build_case((2, 3, 9))
    for patch in draw(case, (5, 6, 9)):
        pads = [(1, 2), (1, 2), (0, 0)]
        np.testing.assert_array_equal(
            patch.image_CIJK, np.pad(case.image_CIJK, [(0, 0), *pads], mode="edge")
        )
        np.testing.assert_array_equal(
            patch.channels_IJK, np.pad(case.channels_IJK, pads, mode="edge")
        )


def test_every_place_is_equally_likely():
    case = build_case((6, 5, 4))
    starts = Counter(float(p.image_CIJK[0, 0, 0, 0]) for p in draw(case, (4, 4, 4), number=3000))
    assert len(starts) == 3 * 2 * 1
    assert min(starts.values()) > 0.8 * 3000 / len(starts)


def test_a_patch_depends_on_the_generator_alone():
    case = build_case((9, 10, 11))
    for first, second in zip(draw(case, (4, 5, 6)), draw(case, (4, 5, 6)), strict=True):
        np.testing.assert_array_equal(first.image_CIJK, second.image_CIJK)
