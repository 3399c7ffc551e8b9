"""Overlays: the patient the right way round, to scale, outlined in the colours of the regions."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from medseg3d.errors import GridError, LabelError
from medseg3d.geometry.orient import reorient_volume
from medseg3d.labels import LabelScheme
from medseg3d.report.overlay import OPACITY, clearest_channel, draw_overlay
from medseg3d.volume import Volume

LABELS = LabelScheme(values={1: "inner", 2: "outer"})
RAS = np.eye(4)


def volume(array: np.ndarray, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(array[np.newaxis], np.diag((*spacing_mm, 1.0)))


def ball(shape: tuple[int, int, int], *, radius: float, value: int = 1) -> np.ndarray:
    away = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    return np.where(np.linalg.norm(away, axis=-1) < radius, value, 0).astype(np.uint8)


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(float) / 255


def colored(picture: bytes, region: str) -> np.ndarray:
    """Find pixels of a region's colour; WebP blurs colours somewhat."""
    difference = np.abs(pixels(picture) - to_rgb(LABELS.region_color(region))).max(axis=-1)
    return difference < 0.2


def test_the_patient_is_seen_from_the_feet_and_from_the_left() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (30, 30, 30)).astype(np.float32)
    image[:10, 20:, 20:] += 100.0  # left, front and top of the patient, in RAS
    label_map = np.zeros((30, 30, 30), np.uint8)
    label_map[5, 25, 25] = 1
    picture = pixels(draw_overlay(volume(image), {"reference": volume(label_map)}, labels=LABELS))
    planes = np.split(picture[:, : picture.shape[1] // 3 * 3].mean(axis=-1), 3, axis=1)
    corners = []
    for plane in planes:
        rows, columns = np.nonzero(plane > 0.6)
        top, left = rows.mean() < plane.shape[0] / 2, columns.mean() < plane.shape[1] / 2
        corners.append(("top" if top else "bottom", "left" if left else "right"))
    assert corners == [("top", "right"), ("top", "right"), ("top", "left")]


def test_the_order_of_voxel_axes_in_the_file_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    image = volume(rng.random((12, 16, 20), dtype=np.float32), (1.0, 1.2, 1.5))
    label_map = volume(ball((12, 16, 20), radius=4), (1.0, 1.2, 1.5))
    first = draw_overlay(image, {"reference": label_map}, labels=LABELS)
    turned = {"reference": reorient_volume(label_map, "SPL")}
    assert draw_overlay(reorient_volume(image, "SPL"), turned, labels=LABELS) == first


def test_voxels_that_are_no_cubes_are_drawn_to_scale() -> None:
    label_map = np.ones((40, 20, 10), np.uint8)
    picture = draw_overlay(
        None, {"reference": volume(label_map, (1.0, 2.0, 8.0))}, labels=LABELS
    )  # 40 × 40 × 80 mm
    height, width, _ = pixels(picture).shape
    assert width / height == pytest.approx(40 / 40 + 40 / 80 + 40 / 80, rel=0.01)


def test_reference_and_prediction_are_both_in_sight_where_they_agree() -> None:
    label_map = volume(ball((40, 40, 40), radius=12, value=2))
    sides = {"reference": label_map, "predicted": label_map}
    both, area, outline = (
        draw_overlay(None, dict.fromkeys(some, label_map), labels=LABELS)
        for some in (sides, ["reference"], ["predicted"])
    )
    middle = pixels(area).shape[0] // 2
    color = np.array(to_rgb(LABELS.region_color("outer")))
    inside = OPACITY * color + (1 - OPACITY) * 0.25
    assert pixels(area)[middle, middle] == pytest.approx(inside, abs=0.05)
    assert pixels(both)[middle, middle] == pytest.approx(inside, abs=0.05)
    assert pixels(outline)[middle, middle] == pytest.approx(0.25, abs=0.05)
    assert colored(outline, "outer").sum() > 1000
    assert colored(both, "outer").sum() == pytest.approx(colored(outline, "outer").sum(), rel=0.2)
    assert not colored(area, "outer").any()


def test_areas_that_overlap_do_not_mix_their_colours() -> None:
    labels = LabelScheme(values={1: "rim", 2: "core"}, regions={"whole": (1, 2), "core": (2,)})
    array = np.maximum(ball((40, 40, 40), radius=16), ball((40, 40, 40), radius=8, value=2))
    picture = pixels(draw_overlay(None, {"reference": volume(array)}, labels=labels))
    middle = picture.shape[0] // 2
    core = OPACITY * np.array(to_rgb(labels.region_color("core"))) + (1 - OPACITY) * 0.25
    assert picture[middle, middle] == pytest.approx(core, abs=0.05)


def test_the_outline_runs_around_the_region() -> None:
    grey = volume(np.linspace(0, 1, 40**3, dtype=np.float32).reshape(40, 40, 40))
    label_map = volume(ball((40, 40, 40), radius=10))
    found = colored(draw_overlay(grey, {"predicted": label_map}, labels=LABELS), "inner")
    size = found.shape[0]
    rows, columns = np.nonzero(found[:, :size])
    radius = np.hypot(rows - size / 2, columns - size / 2) / size * 40
    assert radius.min() > 8.5
    assert radius.max() < 11.0


def test_the_fullest_slice_is_drawn() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (20, 20, 20)).astype(np.float32)
    image[..., 13] += 50.0
    label_map = np.zeros((20, 20, 20), np.uint8)
    label_map[8:12, 8:12, 13] = 1
    label_map[9:11, 9:11, 4] = 1
    picture = pixels(draw_overlay(volume(image), {"reference": volume(label_map)}, labels=LABELS))
    assert np.median(picture[:, : picture.shape[0]]) > 0.9


def test_the_slice_with_most_disagreement_is_drawn() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (20, 20, 20)).astype(np.float32)
    image[..., 4] += 50.0
    reference = np.zeros((20, 20, 20), np.uint8)
    reference[4:16, 4:16, 13] = 1
    predicted = reference.copy()
    predicted[9:11, 9:11, 4] = 1
    sides = {"reference": volume(reference), "predicted": volume(predicted)}
    picture = pixels(draw_overlay(volume(image), sides, labels=LABELS))
    assert np.median(picture[:, : picture.shape[0]]) > 0.9


def test_a_2d_image_is_one_panel() -> None:
    label_map = volume(np.ones((30, 60, 1), np.uint8))
    height, width, _ = pixels(draw_overlay(None, {"reference": label_map}, labels=LABELS)).shape
    assert height == pytest.approx(2 * width, abs=2)


def test_an_image_of_two_values_is_drawn() -> None:
    label_map = ball((20, 20, 20), radius=6)
    picture = pixels(
        draw_overlay(volume(5 * label_map), {"predicted": volume(label_map)}, labels=LABELS)
    )
    assert 0.1 < (picture.mean(axis=-1) > 0.9).mean() < 0.8


def test_empty_label_maps_show_the_middle_without_outlines() -> None:
    grey = volume(np.random.default_rng(0).random((20, 20, 20), dtype=np.float32))
    nothing = volume(np.zeros((20, 20, 20), np.uint8))
    picture = draw_overlay(grey, {"reference": nothing, "predicted": nothing}, labels=LABELS)
    assert not colored(picture, "inner").any()


def test_the_clearest_channel_is_the_one_in_which_the_label_stands_out() -> None:
    rng = np.random.default_rng(0)
    label_map = ball((20, 20, 20), radius=5)
    flat = rng.normal(100, 10, label_map.shape).astype(np.float32)
    images = {"flat": volume(flat), "bright": volume(flat + 60 * label_map)}
    assert clearest_channel(images, volume(label_map)) == "bright"
    assert clearest_channel(images, volume(np.zeros_like(label_map))) == "flat"


def test_an_image_on_another_grid_is_refused() -> None:
    label_map = volume(ball((20, 20, 20), radius=5))
    image = volume(np.ones((20, 20, 20), np.float32), (2.0, 1.0, 1.0))
    with pytest.raises(GridError, match="'reference' and 'image' do not lie on one grid"):
        draw_overlay(image, {"reference": label_map}, labels=LABELS)


def test_a_channel_on_another_grid_is_refused() -> None:
    label_map = volume(ball((20, 20, 20), radius=5))
    images = {"t1": volume(np.ones((20, 20, 21), np.float32))}
    with pytest.raises(GridError, match="'label map' and 't1' do not lie on one grid"):
        clearest_channel(images, label_map)


def test_foreign_values_are_refused() -> None:
    label_map = volume(ball((20, 20, 20), radius=5, value=9))
    with pytest.raises(LabelError, match="predicted: holds 9"):
        draw_overlay(None, {"predicted": label_map}, labels=LABELS)
