"""How far patches are halved: published plans, and laws for any patch."""

from itertools import pairwise
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg3d.errors import ConfigError
from medseg3d.plan.topology import (
    MIN_EDGE,
    largest_topology,
    plan_topology,
    smaller_topology,
)

ALL = (2, 2, 2)


def test_hippocampus_is_halved_as_by_nnunet():
    plan = largest_topology((36, 50, 35), (1.0, 1.0, 1.0))
    assert plan.patch == (40, 56, 40)
    assert plan.strides == (ALL,) * 3


def test_brain_tumours_come_down_to_the_patch_of_nnunet():
    plan = largest_topology((140, 171, 137), (1.0, 1.0, 1.0))
    sizes = [plan.patch]
    while plan.voxels > 128**3:
        plan = smaller_topology(plan, (140, 171, 137), (1.0, 1.0, 1.0))
        sizes.append(plan.patch)
    assert sizes[0] == (160, 192, 160)
    assert sizes[-1] == (128, 128, 128)
    assert plan.strides == (ALL,) * 5


def test_prostate_is_halved_and_convolved_late_along_its_coarse_axis():
    plan = plan_topology((320, 256, 20), (0.62, 0.62, 3.6))  # nnU-Net's for MSD 5: 7, 6 and 2
    assert plan.strides[:3] == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert plan.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert [sum(step[axis] == 2 for step in plan.strides) for axis in range(3)] == [6, 6, 2]
    assert plan.patch == (320, 256, 20)


def test_one_axis_alone_is_halved_down_to_six_voxels_only():
    assert plan_topology((12, 4), (1.0, 1.0)).strides == ((2, 1),)
    with pytest.raises(ConfigError, match=r"patches of 11×4 voxels are too small .* of 8 voxels"):
        plan_topology((11, 4), (1.0, 1.0))


def test_the_largest_patch_is_a_cube_in_mm_as_far_as_images_reach():
    plan = largest_topology((1000, 1000, 1000), (1.0, 1.0, 2.0))
    assert plan.patch == (384, 384, 192)  # of 322, 322 and 161 voxels, which is 256³ in all


SIZES = st.integers(2, 3).flatmap(
    lambda dims: st.tuples(
        st.tuples(*[st.integers(12, 300)] * dims), st.tuples(*[st.floats(0.2, 8)] * dims)
    )
)


@given(given_size=SIZES)
@settings(deadline=None, max_examples=100)
def test_a_patch_is_divisible_holds_the_size_and_leaves_four_voxels_where_halved(given_size):
    size, spacing_mm = given_size
    plan = plan_topology(size, spacing_mm)
    divisors = [prod(steps) for steps in zip(*plan.strides, strict=True)]
    for length, wanted, divisor in zip(plan.patch, size, divisors, strict=True):
        assert length % divisor == 0
        assert wanted <= length < wanted + divisor
        assert divisor == 1 or length // divisor >= MIN_EDGE
    assert len(plan.kernels) == len(plan.strides) + 1


@pytest.mark.slow
@given(given_size=SIZES)
@settings(deadline=None, max_examples=50)
def test_shrinking_ends_and_never_grows(given_size):
    shape, spacing_mm = given_size
    plan = largest_topology(shape, spacing_mm)
    seen = [plan.voxels]
    while plan := smaller_topology(plan, shape, spacing_mm):
        seen.append(plan.voxels)
    assert all(later < earlier for earlier, later in pairwise(seen))
    assert seen[-1] <= max(16 ** len(shape), prod(shape))
