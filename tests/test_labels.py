"""Label maps and schemes: integers are integers, names are unique, regions may overlap."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medseg3d.errors import ConfigError, LabelError
from medseg3d.labels import (
    IGNORED,
    LabelScheme,
    as_label_map,
    channels_to_values,
    drop_ignored,
    region_masks,
    regions_to_values,
    require_values,
    values_to_channels,
)
from medseg3d.terms import TERMS, Term

BRATS = LabelScheme(
    name="brats2020",
    values={1: "necrosis", 2: "oedema", 4: "enhancing"},
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
    colors={"TC": "#112233"},
)


def block(*values: object, dtype: object = None) -> np.ndarray:
    return np.array(values, dtype).reshape(-1, 1, 1)


@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=20),
    noise=st.floats(-9e-4, 9e-4),
    dtype=st.sampled_from(["f8", "i4", "u2", "i8", "u8"]),
)
def test_what_is_close_to_an_integer_is_that_integer(values, noise, dtype):
    stored = block(*values, dtype=dtype)
    read = as_label_map(stored + noise if dtype == "f8" else stored)
    np.testing.assert_array_equal(read, block(*values))
    assert read.dtype == (np.uint8 if max(values) < 256 else np.uint16)


def test_a_mask_is_a_label_map_of_0_and_1():
    read = as_label_map(block(True, False))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, block(1, 0))


def test_a_mask_that_header_scaling_left_just_below_1_is_1():
    np.testing.assert_array_equal(as_label_map(block(0, 0.99999997, -1e-9)), block(0, 1, 0))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (block(0, 0.5, 1.002, 7), r"mask\.nii: 2 voxels hold no integer, e\.g\. \[0\.5, 1\.002\]"),
        (block(0, np.nan), r"1 voxels hold no integer, e\.g\. \[nan\]"),
        (block(np.inf, -np.inf), "2 voxels hold no integer"),
        (block(-1, 3), r"values from -1 to 3; a label map holds 0 to 65535"),
        (block(-1.0, 3.0), r"values from -1 to 3"),
        (block(65536), "values from 65536 to 65536"),
        (block(1e30), "a label map holds 0 to 65535"),
        (block(2**64 - 1, dtype="u8"), "a label map holds 0 to 65535"),
    ],
)
def test_what_is_no_label_map_is_refused(array, said):
    with pytest.raises(LabelError, match=said):
        as_label_map(array, source="mask.nii")


def test_values_without_regions_are_regions_of_their_own():
    scheme = LabelScheme(values={2: "posterior", 1: "anterior"})
    assert scheme.regions == {"anterior": (1,), "posterior": (2,)}
    assert scheme.channel_values == (0, 1, 2)


def test_regions_may_overlap():
    masks = dict(region_masks(block(0, 1, 2, 4), BRATS))
    assert [*masks] == ["WT", "TC", "ET"]
    np.testing.assert_array_equal(masks["WT"].ravel(), [False, True, True, True])
    np.testing.assert_array_equal(masks["TC"].ravel(), [False, True, False, True])
    np.testing.assert_array_equal(masks["ET"].ravel(), [False, False, False, True])


def test_regions_take_their_colour_or_the_palettes():
    assert BRATS.region_color("TC") == "#112233"
    assert BRATS.region_color("WT") != BRATS.region_color("ET")
    many = LabelScheme(values={value: f"organ {value}" for value in range(1, 20)})
    assert many.region_color("organ 1") == many.region_color("organ 8")


def test_codes_name_ready_made_terms_or_are_written_out():
    liver = {"category": "123037004 |Anatomical Structure|", "type": "10200004 |Liver|"}
    scheme = LabelScheme.model_validate(
        {
            "values": {1: "left", 2: "right", 3: "liver"},
            "regions": {"kidneys": (1, 2), "liver": (3,)},
            "codes": {"left": "kidney_left", "kidneys": TERMS["kidney_right"], "liver": liver},
        }
    )
    assert scheme.term_of("left") == TERMS["kidney_left"]
    assert scheme.term_of("kidneys") == TERMS["kidney_right"]
    assert scheme.term_of("liver") == Term.model_validate(liver)
    assert LabelScheme.model_validate(scheme.model_dump(mode="json")) == scheme
    assert LabelScheme(**scheme.model_dump()) == scheme


def test_a_label_without_code_is_told_with_what_to_do():
    scheme = LabelScheme(values={1: "liver", 2: "mass"}, codes={"liver": TERMS["liver"]})
    with pytest.raises(ConfigError) as error:
        scheme.term_of("mass")
    assert str(error.value) == (
        "label 'mass' of scheme 'labels' has no code, which DICOM needs; codes are for ['liver']. "
        "Name a ready-made term with --set labels.codes.mass=liver (or another of medseg3d.terms), "
        "or give one with category and type in YAML"
    )


def test_viewers_show_the_colour_that_is_set_or_customary_or_the_palettes():
    scheme = LabelScheme(
        values={1: "liver", 2: "spleen", 3: "mass"},
        regions={"organs": (1, 2), "spleen": (2,)},
        colors={"spleen": "#112233"},
        codes={"liver": TERMS["liver"], "spleen": TERMS["spleen"], "organs": TERMS["hippocampus"]},
    )
    assert scheme.display_color("spleen") == "#112233"
    assert scheme.display_color("liver") == TERMS["liver"].color
    assert scheme.display_color("organs") == scheme.region_color("organs")
    assert len({scheme.display_color(name) for name in scheme.names}) == 4
    assert scheme.region_color("liver") != TERMS["liver"].color


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        ({1: "Left_Kidney", 2: "kidney-R"}, {0: "left from right"}),
        ({1: "posterior", 2: "leftover"}, {1: "front from back"}),
        ({1: "liver"}, {}),
    ],
)
def test_what_a_flip_would_make_wrong_is_told_by_names(names, sides):
    assert LabelScheme(values=names).sides == sides


def test_channels_count_from_background_in_ascending_order():
    label_map = block(0, 1, 2, 4, 4, dtype="u1")
    channels = values_to_channels(label_map, BRATS)
    np.testing.assert_array_equal(channels, block(0, 1, 2, 3, 3))
    np.testing.assert_array_equal(channels_to_values(channels, BRATS), label_map)
    assert channels.dtype == np.uint8


@pytest.mark.parametrize("ignore", [3, 9, 60000])
def test_what_is_to_be_ignored_has_no_channel_and_comes_back(ignore):
    scheme = BRATS.model_copy(update={"ignore": ignore})
    label_map = block(0, 1, ignore, 4, dtype="u2")

    channels = values_to_channels(label_map, scheme)

    np.testing.assert_array_equal(channels, block(0, 1, IGNORED, 3))
    assert channels.dtype == np.uint8
    np.testing.assert_array_equal(channels_to_values(channels, scheme), label_map)
    assert ignore not in channels_to_values(block(0, 1, 2, 3), scheme)
    assert scheme.channel_values == BRATS.channel_values


def test_more_values_than_indices_below_the_ignored_one_are_not_trained_on():
    most = LabelScheme(values={value: str(value) for value in range(1, 255)})
    np.testing.assert_array_equal(values_to_channels(block(254), most), block(254))
    more = LabelScheme(name="atlas", values={value: str(value) for value in range(1, 256)})
    with pytest.raises(ConfigError, match="scheme 'atlas' has 255 values; training takes 254 at"):
        values_to_channels(block(1), more)


def test_what_is_to_be_ignored_is_background_on_both_sides():
    scheme = BRATS.model_copy(update={"ignore": 9})
    reference, predicted = block(0, 9, 9, 4, dtype="u1"), block(1, 1, 0, 2, dtype="u1")

    dropped = drop_ignored(reference, predicted, scheme)

    np.testing.assert_array_equal(dropped[0], block(0, 0, 0, 4))
    np.testing.assert_array_equal(dropped[1], block(1, 0, 0, 2))
    assert [side.dtype for side in dropped] == [np.uint8, np.uint8]
    assert drop_ignored(predicted, reference, scheme) == (predicted, reference)
    assert drop_ignored(reference, predicted, BRATS) == (reference, predicted)


def test_large_values_come_back_from_channels():
    scheme = LabelScheme(values={7: "a", 300: "b", 65535: "c"})
    label_map = block(0, 7, 300, 65535, dtype="u2")
    back = channels_to_values(values_to_channels(label_map, scheme), scheme)
    np.testing.assert_array_equal(back, label_map)
    assert back.dtype == np.uint16


@given(
    regions=st.dictionaries(
        st.sampled_from("abcde"), st.sets(st.integers(1, 4), min_size=1), min_size=1
    )
)
def test_every_value_is_painted_back_from_its_regions_or_the_scheme_is_refused(regions):
    scheme = LabelScheme(values=dict(enumerate("wxyz", start=1)), regions=regions)
    label_map = block(0, 1, 2, 3, 4, dtype="u1")
    masks = np.stack([mask for _, mask in region_masks(label_map, scheme)])
    try:
        painted = regions_to_values(masks, scheme)
    except ConfigError:
        told_apart = len({tuple(of) for of in masks.reshape(len(masks), 5).T}) == 5
        assert len(regions) != 4 or not told_apart or not nested(regions)
    else:
        np.testing.assert_array_equal(painted, label_map)


def nested(regions):
    sets = [set(values) for values in regions.values()]
    return all(a <= b or b <= a or not a & b for a in sets for b in sets)


@pytest.mark.parametrize("regions", [["WT", "TC", "ET"], ["ET", "WT", "TC"], ["TC", "ET", "WT"]])
def test_brats_is_painted_whole_tumour_first_in_whatever_order_the_channels_are(regions):
    brats = BRATS.model_copy(update={"regions": {name: BRATS.regions[name] for name in regions}})
    label_map = block(0, 1, 2, 4, 4, 2)
    masks = np.stack([mask for _, mask in region_masks(label_map, brats)])

    painted = regions_to_values(masks, brats)

    assert brats.painted == {"WT": 2, "TC": 1, "ET": 4}
    assert [*brats.painted] == ["WT", "TC", "ET"]
    np.testing.assert_array_equal(painted, label_map)
    assert painted.dtype == np.uint8


def test_the_smallest_region_is_painted_even_outside_of_the_others():
    masks = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=bool).reshape(3, 3, 1, 1)
    np.testing.assert_array_equal(regions_to_values(masks, BRATS), block(4, 2, 1))


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        (
            {"WT": (1, 2, 4), "ET": (4,)},
            "region 'WT' has 2 values of its own, [1, 2], and needs one: a network of regions "
            "paints them over one another, the smallest last; change labels.regions, or let the "
            "network predict values",
        ),
        ({"WT": (1, 2, 4), "TC": (4, 1), "ET": (4,), "same": (4,)}, "region 'ET' has 0 values"),
        ({"TC": (1, 4), "ET": (4,)}, "no region paints value [2]; add one to labels.regions"),
    ],
)
def test_regions_that_cannot_be_painted_are_refused(regions, said):
    scheme = LabelScheme(values=BRATS.values, regions=regions)
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        _ = scheme.painted


def test_foreign_values_are_named_and_counted():
    require_values(block(0, 1, 2, 4), BRATS, source="case.nii")
    with pytest.raises(LabelError) as error:
        require_values(block(0, 3, 3, 4, 9), BRATS, source="case.nii")
    assert str(error.value) == (
        "case.nii: holds 3 (2 voxels), 9 (1 voxels); scheme 'brats2020' knows [0, 1, 2, 4]. "
        "Choose the scheme the file was made with, or relabel the file."
    )


def test_only_references_hold_what_is_to_be_ignored():
    scheme = BRATS.model_copy(update={"ignore": 9})
    require_values(block(0, 9, 4), scheme, source="reference", reference=True)
    with pytest.raises(LabelError, match=r"predicted: holds 9 \(1 voxels\); .* \[0, 1, 2, 4\]"):
        require_values(block(0, 9, 4), scheme, source="predicted")
    with pytest.raises(LabelError, match=r"holds 3 \(1 voxels\); .* knows \[0, 1, 2, 4, 9\]"):
        require_values(block(3, 9), scheme, source="reference", reference=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"values": {1: "a"}, "ignore": 1}, "ignore is 1, which values call an annotated one"),
        ({"values": {1: "a"}, "ignore": 0}, "greater than or equal to 1"),
        ({"values": {}}, "at least 1 item"),
        ({"values": {0: "background"}}, "greater than or equal to 1"),
        ({"values": {70000: "far"}}, "less than or equal to 65535"),
        ({"values": {1: "a", 2: "a"}}, "two values share a name"),
        ({"values": {1: "a"}, "regions": {"b": (1, 3)}}, r"region 'b' holds \[3\], values are \[1"),
        ({"values": {1: "a"}, "regions": {"b": ()}}, "region 'b' is made of no value"),
        ({"values": {1: "a"}, "colors": {"b": "#000000"}}, r"colours for \['b'\], regions are"),
        ({"values": {1: "a"}, "colour": {}}, "Extra inputs are not permitted"),
        ({"values": {1: "a"}, "codes": {"b": "liver"}}, r"codes for \['b'\], names are \['a'\]"),
        ({"values": {1: "a"}, "codes": {"a": "livr"}}, r"no term 'livr'; did you mean 'liver'\?"),
        ({"values": {1: "a"}, "codes": {"a": "xyz"}}, "no term 'xyz'; known are liver, spleen, "),
        ({"values": {1: "a"}, "codes": {"a": {"type": "10200004 |Liver|"}}}, "codes.a.category"),
    ],
)
def test_a_scheme_that_makes_no_sense_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        LabelScheme.model_validate(fields)
