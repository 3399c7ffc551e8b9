"""What rules do to label maps: drawn examples, laws, and scipy's and cc3d's word for it."""

from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from medseg3d.config.postprocess import RegionRule
from medseg3d.datasets import DATASETS
from medseg3d.errors import ConfigError, GridError, LabelError
from medseg3d.io.files import read_label_map
from medseg3d.labels import LabelScheme
from medseg3d.predict.postprocess import postprocess_label_map
from medseg3d.volume import Volume

BRATS = DATASETS["brats2023"]
LIVER = LabelScheme(values={1: "liver", 2: "tumour"}, regions={"liver": (1,), "organ": (1, 2)})
AFFINE = np.diag([1.0, 0.8, 2.5, 1.0])

quick = settings(deadline=None, max_examples=80)
shapes = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
label_maps = shapes.flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 1, 2, 3]))
)
rules = st.builds(
    RegionRule,
    fill_holes=st.sampled_from([False, "NCR"]),
    smallest_component_mm3=st.sampled_from([0, 4, 8.5]),
    keep=st.sampled_from(["all", "largest"]),
    smallest_region_mm3=st.sampled_from([0, 30]),
    becomes=st.sampled_from([None, "ED"]),
)


def apply(
    label_map_IJK: np.ndarray,
    scheme: LabelScheme = LIVER,
    affine: np.ndarray = AFFINE,
    **by_region: dict[str, Any],
) -> np.ndarray:
    """Put one array right by rules as YAML has them."""
    parsed = {region: RegionRule.model_validate(rule) for region, rule in by_region.items()}
    done = postprocess_label_map(Volume(label_map_IJK[np.newaxis], affine), scheme, parsed)
    assert np.array_equal(done.affine, affine)
    return done.array_CIJK[0]


def draw(*rows: str) -> np.ndarray:
    """Turn a drawing of digits, `.` for 0, into a volume of one plane."""
    return np.array([[*row.replace(".", "0")] for row in rows], dtype=np.uint8)[..., np.newaxis]


def cube(size: int = 9, value: int = 1) -> np.ndarray:
    """Draw a cube with one voxel of background all around."""
    return np.pad(np.full((size - 2,) * 3, value, dtype=np.uint8), 1)


class TestComponents:
    TWO = draw(
        "11....",
        "..1...",
        ".....1",
        "2....1",
    )

    def test_the_largest_stays_and_voxels_hold_together_at_corners(self):
        assert (
            apply(self.TWO, liver={"keep": "largest"})
            == draw("11....", "..1...", "......", "2.....")
        ).all()

    def test_equally_large_ones_all_stay(self):
        drawn = draw("11..11..1")
        assert (apply(drawn, liver={"keep": "largest"}) == draw("11..11...")).all()

    @pytest.mark.parametrize(("least_mm3", "left"), [(4.0, 5), (4.001, 3), (6.0, 3), (6.001, 0)])
    def test_one_smaller_than_a_volume_goes_one_as_large_stays(self, least_mm3: float, left: int):
        kept = apply(self.TWO, liver={"smallest_component_mm3": least_mm3})  # voxels of 2 mm³
        assert np.count_nonzero(kept == 1) == left

    def test_a_volume_is_the_voxels_own_where_axes_are_slanted_and_turned(self):
        turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, -1]])
        shear = np.array([[1, 0, 0.4], [0, 1, 0], [0, 0, 1]])
        affine = np.eye(4)
        affine[:3, :3] = turn @ shear @ np.diag([0.1, 0.1, 0.3])  # 0.003 mm³ with edges of others
        drawn = draw("1111111")
        assert apply(drawn, affine=affine, liver={"smallest_component_mm3": 0.021}).any()
        assert not apply(drawn, affine=affine, liver={"smallest_component_mm3": 0.0211}).any()

    def test_a_volume_that_misses_a_threshold_by_the_headers_rounding_reaches_it(self):
        spacing = float(np.float32(0.7))  # 0.69999999
        drawn = draw("1111111111")
        affine = np.diag([spacing] * 3 + [1])
        assert apply(drawn, affine=affine, liver={"smallest_component_mm3": 3.43}).any()

    def test_the_largest_goes_too_if_it_is_too_small(self):
        rule = {"keep": "largest", "smallest_component_mm3": 7}
        assert not apply(draw("111.1"), liver=rule).any()

    def test_a_component_of_several_values_is_one_and_goes_with_all_of_them(self):
        drawn = draw("1122..12")
        assert (apply(drawn, organ={"keep": "largest"}) == draw("1122....")).all()
        assert (apply(drawn, tumour={"keep": "largest"}) == draw("1122..1.")).all()

    def test_what_is_taken_away_becomes_another_value(self):
        drawn = draw("222..2.1")
        assert (
            apply(drawn, tumour={"keep": "largest", "becomes": "liver"}) == draw("222..1.1")
        ).all()


class TestHoles:
    def test_a_hole_is_filled_and_an_open_one_is_not(self):
        closed, opened = cube(), cube()
        closed[4, 4, 3:6] = 0
        opened[4, 4, 3:] = 0
        assert (apply(closed, liver={"fill_holes": True}) == cube()).all()
        assert (apply(opened, liver={"fill_holes": True}) == opened).all()

    def test_a_hole_at_the_border_of_the_volume_is_none(self):
        drawn = np.ones((5, 5, 5), dtype=np.uint8)
        drawn[0, 2, 2] = drawn[2, 2, 4] = drawn[2, 2, 2] = 0
        filled = apply(drawn, liver={"fill_holes": True})
        assert (filled[0, 2, 2], filled[2, 2, 4], filled[2, 2, 2]) == (0, 0, 1)

    def test_a_hole_that_leaks_at_a_corner_is_closed_as_the_mask_holds_there(self):
        drawn = draw(".....", "..1..", ".1.1.", "..1..", ".....")
        assert (apply(drawn, liver={"fill_holes": True})[2, 2]) == 1

    def test_another_value_inside_stays_and_what_touches_it_is_no_hole_of_this_region(self):
        drawn = draw(
            "1111111",
            "1.12.11",
            "1111111",
        )
        drawn = np.pad(drawn, ((1, 1), (1, 1), (0, 0)))
        filled = drawn.copy()
        filled[2, 2] = 1
        assert (apply(drawn, liver={"fill_holes": True}) == filled).all()
        filled[2, 5] = 2
        assert (apply(drawn, organ={"fill_holes": "tumour"}) != drawn).sum() == 2
        assert apply(drawn, organ={"fill_holes": "tumour"})[2, 5] == 2

    def test_holes_are_filled_before_components_are_measured(self):
        ring = draw(".......", ".111...", ".1.1.11", ".111.11", "......1")
        rule = {"fill_holes": True, "smallest_component_mm3": 18}
        assert np.count_nonzero(apply(ring, liver=rule)) == 9

    def test_holes_of_a_single_plane_are_those_of_the_plane_whichever_axis_is_thin(self):
        ring = draw(".....", ".111.", ".1.1.", ".111.", ".....")
        for axis in range(3):
            turned = np.moveaxis(ring, 2, axis)
            assert np.count_nonzero(apply(turned, liver={"fill_holes": True})) == 9


class TestWholeRegions:
    def test_enhancing_tumour_below_a_volume_is_necrosis(self):
        drawn = draw("233..", "2.1.3", "22222")
        rule = {"smallest_region_mm3": 6.1, "becomes": "NCR"}
        assert (apply(drawn, BRATS, ET=rule) == draw("211..", "2.1.1", "22222")).all()
        assert (apply(drawn, BRATS, ET={**rule, "smallest_region_mm3": 6}) == drawn).all()

    def test_what_is_left_of_its_components_counts(self):
        drawn = draw("3333.33")
        rule = {"smallest_component_mm3": 6, "smallest_region_mm3": 10}
        assert not apply(drawn, BRATS, ET=rule).any()
        rule = {"keep": "largest", "smallest_region_mm3": 8}
        assert np.count_nonzero(apply(drawn, BRATS, ET=rule)) == 4


class TestSeveralRules:
    def test_they_follow_each_other_in_the_order_given(self):
        drawn = draw("11.3..1111")
        ET = {"smallest_region_mm3": 10, "becomes": "NCR"}
        NCR = {"keep": "largest"}
        first, second = apply(drawn, BRATS, ET=ET, NCR=NCR), apply(drawn, BRATS, NCR=NCR, ET=ET)
        assert (first == draw("......1111")).all()
        assert (second == draw("...1..1111")).all()

    def test_a_later_rule_sees_voxels_far_from_where_its_region_was(self):
        drawn = draw("1.........3")
        ET = {"smallest_region_mm3": 10, "becomes": "NCR"}
        assert not apply(drawn, BRATS, ET=ET, NCR={"smallest_region_mm3": 10}).any()

    def test_a_region_that_an_earlier_rule_took_away_is_none(self):
        drawn = draw("333")
        WT = {"smallest_region_mm3": 99}
        assert not apply(drawn, BRATS, WT=WT, ET={"keep": "largest", "fill_holes": True}).any()

    def test_none_leave_the_label_map_as_it_is(self):
        drawn = draw("123")
        volume = Volume(drawn[np.newaxis], AFFINE)
        assert postprocess_label_map(volume, BRATS, {}) is volume
        assert (apply(drawn, BRATS, ET={}) == drawn).all()


class TestLaws:
    @given(label_map=label_maps, rule=rules)
    @quick
    def test_twice_is_once(self, label_map: np.ndarray, rule: RegionRule):
        once = apply(label_map, BRATS, TC=rule.model_dump())
        assert np.array_equal(apply(once, BRATS, TC=rule.model_dump()), once)

    @given(label_map=label_maps, rule=rules)
    @quick
    def test_only_holes_gain_the_region_and_only_its_own_voxels_lose_it(
        self, label_map: np.ndarray, rule: RegionRule
    ):
        region = np.isin(label_map, (1, 3))
        before = label_map.copy()
        after = apply(label_map, BRATS, TC=rule.model_dump())
        changed = after != before
        gained = changed & np.isin(after, (1, 3))
        assert np.array_equal(label_map, before)
        assert not (changed & (label_map == 2)).any()
        assert (after[gained] == 1).all()
        assert (before[gained] == 0).all()
        if min(label_map.shape) > 1:
            assert not (gained & ~ndimage.binary_fill_holes(region)).any()
        assert set(after[changed & ~gained]) <= {2 if rule.becomes else 0}

    @given(label_map=label_maps, rule=rules, axes=st.permutations(range(3)), flip=st.booleans())
    @quick
    def test_turning_the_axes_turns_the_result(
        self, label_map: np.ndarray, rule: RegionRule, axes: list[int], flip: bool
    ):
        def turn(array: np.ndarray) -> np.ndarray:
            turned = array.transpose(axes)
            return turned[::-1] if flip else turned

        affine = AFFINE[:, [*axes, 3]] * np.array([-1 if flip else 1, 1, 1, 1])
        expected = turn(apply(label_map, BRATS, TC=rule.model_dump()))
        again = apply(turn(label_map), BRATS, affine, TC=rule.model_dump())
        assert np.array_equal(again, expected)

    @pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (4, 5, 6)])
    @pytest.mark.parametrize("value", [0, 3])
    def test_uniform_volumes_stay_as_they_are(self, shape: tuple[int, ...], value: int):
        flat = np.full(shape, value, dtype=np.uint8)
        rule = {"fill_holes": "NCR", "keep": "largest", "smallest_component_mm3": 0.1}
        assert np.array_equal(apply(flat, BRATS, TC=rule), flat)


class TestAgainstOthers:
    """Masks of one value, where scipy's and cc3d's functions mean the same."""

    @pytest.fixture(params=[0.02, 0.3, 0.6, 0.85])
    def mask(self, request: pytest.FixtureRequest) -> np.ndarray:
        rng = np.random.default_rng(7)
        return rng.random((40, 30, 25)) < request.param

    def test_filled_holes_are_scipys(self, mask: np.ndarray):
        filled = apply(mask.astype(np.uint8), liver={"fill_holes": True})
        assert np.array_equal(filled.astype(bool), ndimage.binary_fill_holes(mask))

    def test_the_largest_component_is_cc3ds(self, mask: np.ndarray):
        kept = apply(mask.astype(np.uint8), liver={"keep": "largest"})
        found = cc3d.connected_components(mask, connectivity=26)
        sizes = np.bincount(found[mask])
        assert np.array_equal(kept.astype(bool), mask & (sizes == sizes.max())[found])

    @pytest.mark.parametrize("voxels", [2, 5])
    def test_small_components_are_cc3ds_dust(self, mask: np.ndarray, voxels: int):
        least = {"smallest_component_mm3": voxels * 2.0}
        kept = apply(mask.astype(np.uint8), liver=least)
        dusted = cc3d.dust(mask, threshold=voxels, connectivity=26)
        assert np.array_equal(kept.astype(bool), dusted.astype(bool))


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, ">u2"])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_any_integers_in_any_memory_order(self, dtype: Any, order: str):
        drawn = draw("11.1", "...2")
        kept = apply(np.array(drawn, dtype=dtype, order=order), liver={"keep": "largest"})
        assert kept.tolist() == draw("11..", "...2").tolist()

    def test_a_value_beyond_the_files_integers_fits(self):
        scheme = LabelScheme(values={1: "a", 300: "b"})
        done = apply(draw("1"), scheme, a={"smallest_region_mm3": 9, "becomes": "b"})
        assert done.tolist() == [[[300]]]

    def test_values_the_scheme_does_not_know_stay(self):
        drawn = np.pad(draw("111", "191", "111"), ((1, 1), (1, 1), (0, 0)))
        assert (apply(drawn, liver={"fill_holes": True, "keep": "largest"}) == drawn).all()


class TestFaults:
    def test_several_channels_are_refused(self):
        two = Volume(np.zeros((2, 3, 3, 3), dtype=np.uint8), AFFINE)
        with pytest.raises(GridError, match="one channel, got 2; decide on one value per voxel"):
            postprocess_label_map(two, LIVER, {"liver": RegionRule()})

    def test_an_image_is_refused(self):
        image = Volume(np.full((1, 3, 3, 3), 0.5, dtype=np.float32), AFFINE)
        with pytest.raises(LabelError, match="hold no integer"):
            postprocess_label_map(image, LIVER, {"liver": RegionRule()})

    def test_rules_for_another_scheme_are_refused(self):
        with pytest.raises(ConfigError, match=r"postprocess\.ET: no region or value; known are"):
            apply(draw("1"), LIVER, ET={"keep": "largest"})


@pytest.mark.parametrize("case", ["brats_2013_pat0001_1", "brats_2013_pat0006_1"])
def test_a_real_tumour_is_what_scipy_and_cc3d_make_of_it(brats: Path, case: str):
    label_map = read_label_map(brats / case / "OTMultiClass.nii.gz")
    rule = RegionRule(fill_holes="ED", keep="largest")

    done = postprocess_label_map(label_map, DATASETS["brats2015"], {"WT": rule}).array_CIJK[0]

    filled = ndimage.binary_fill_holes(label_map.array_CIJK[0] > 0)
    assert np.array_equal(done > 0, cc3d.largest_k(filled, k=1, connectivity=26).astype(bool))
