"""Pictures: the pixels that are stored, or a word why not."""

import resource
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg3d.errors import ConfigError, FormatError
from medseg3d.io.files import read_label_map, read_volume, write_volume
from medseg3d.volume import Volume

GREY = np.random.default_rng(0).integers(0, 250, (30, 40)).astype("u1")
FLAT = np.diag([-0.5, -0.25, 1, 1])


def save(path: Path, array: np.ndarray = GREY, *more: np.ndarray, **options: object) -> Path:
    pages = [Image.fromarray(page) for page in (array, *more)]
    pages[0].save(
        path, **({"save_all": True, "append_images": pages[1:]} if more else {}), **options
    )
    return path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.png", "u1"),
        ("a.png", "u2"),
        ("a.tif", "u1"),
        ("a.tiff", "u2"),
        ("a.tif", "i4"),
        ("A.TIF", "f4"),
    ],
)
def test_pixels_are_those_that_pillow_stored(tmp_path, name, dtype):
    volume = read_volume(save(tmp_path / name, (GREY * 3.0).astype(dtype)))
    assert volume.array_CIJK.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array_CIJK[0, :, :, 0], (GREY * 3.0).astype(dtype).T)
    np.testing.assert_array_equal(volume.affine, np.diag([-1, -1, 1, 1]))


def test_a_jpeg_is_read_with_the_pixels_of_pillow(tmp_path):
    path = save(tmp_path / "a.jpg", dpi=(254, 127))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array_CIJK[0, :, :, 0], np.asarray(Image.open(path)).T)
    np.testing.assert_allclose(volume.spacing_mm, (0.1, 0.2, 1))


def test_pages_of_a_tiff_are_the_third_axis(tmp_path):
    volume = read_volume(save(tmp_path / "a.tif", GREY, GREY + 1, GREY + 2))
    assert volume.shape_IJK == (40, 30, 3)
    for k in range(3):
        np.testing.assert_array_equal(volume.array_CIJK[0, :, :, k], GREY.T + k)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_colours_are_channels_where_asked_for(tmp_path, name):
    options = {"subsampling": 0} if name == "a.jpg" else {}
    path = save(tmp_path / name, np.stack([GREY, GREY // 2, GREY // 3], axis=-1), **options)
    with pytest.raises(FormatError, match=r"has four axes, 3 volumes of \(40, 30, 1\) voxels; exp"):
        read_volume(path)
    volume = read_volume(path, fourth_axis="channels")
    expected = np.asarray(Image.open(path)).transpose(2, 1, 0)
    rounding = 1 if name == "a.jpg" else 0
    np.testing.assert_allclose(volume.array_CIJK[..., 0], expected, atol=rounding)


def palette() -> Image.Image:
    image = Image.fromarray(GREY % 3, "L").convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return image


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_numbers_that_itk_would_change_are_refused(tmp_path, name):
    palette().save(tmp_path / f"palette-{name}")
    with pytest.raises(FormatError, match=r"holds numbers of a palette, .* Save it as grey of 8"):
        read_volume(tmp_path / f"palette-{name}")
    with pytest.raises(FormatError, match="has pixels of 1 bits, which would be stretched to 8"):
        read_volume(save(tmp_path / f"bits-{name}", GREY > 9))


def test_pages_that_differ_are_refused(tmp_path):
    for number, other in enumerate([GREY[:9], np.stack([GREY] * 3, axis=-1), GREY.astype("f4")]):
        path = save(tmp_path / f"{number}.tif", GREY, other)
        with pytest.raises(
            FormatError, match=r"has pages that differ \(.*\)\. Split the file first"
        ):
            read_volume(path)


def test_pages_that_go_round_in_a_circle_are_refused(tmp_path):
    data = bytearray(save(tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(data[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[after : after + 4] = data[4:8]
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FormatError, match="its pages go round in a circle"):
        read_volume(tmp_path / "a.tif")
    data[4:8] = bytes(4)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FormatError, match="is damaged: it has no page"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_picture_cut_off_is_refused(tmp_path, name):
    options = {"compression": "tiff_lzw"} if name == "a.tif" else {}
    path = save(tmp_path / name, **options)
    whole = path.read_bytes()
    for end in [0, 1, 7, 20, *range(40, len(whole) - 40, 97), len(whole) - 40, len(whole) - 13]:
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError) as error:
            read_volume(path)
        assert str(error.value).startswith(f"'{path}'")


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path):
    path = save(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        FormatError, match=r"cannot be read as a picture \(.*\)\. Copy or export it"
    ):
        read_volume(path)


def test_a_png_that_promises_too_much_takes_no_memory(tmp_path):
    data = bytearray(save(tmp_path / "a.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(
        FormatError, match=r"promises 60000×60000×1 pixels; a file of its size hold"
    ):
        read_volume(tmp_path / "a.png")


def test_a_tiff_that_promises_too_much_takes_no_memory(tmp_path):
    data = save(tmp_path / "a.tif").read_bytes()
    tall = b"\x01\x01\x04\0\x01\0\0\0" + (1_700_000_000).to_bytes(4, "little")
    height = data.index(b"\x01\x01\x04\0\x01\0\0\0")
    (tmp_path / "a.tif").write_bytes(data[:height] + tall + data[height + 12 :])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match=r"promises 40×1700000000×1 pixels; a file of its size"):
        read_volume(tmp_path / "a.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_text_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_text("Dear colleague")
    with pytest.raises(FormatError, match="is no PNG, TIFF or JPEG"):
        read_volume(tmp_path / "a.png")
    with pytest.raises(FormatError, match="no such file"):
        read_volume(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.png", "u1"), ("a.png", "u2"), ("a.png", "bool"), ("a.tif", "i2"), ("a.tif", "f4")],
)
def test_what_is_written_comes_back_with_its_pixel_size(tmp_path, caplog, name, dtype):
    array = np.random.default_rng(0).integers(0, 2, (1, 7, 5, 1)).astype(dtype)
    write_volume(Volume(array, FLAT), tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.array_CIJK.dtype == (np.uint8 if dtype == "bool" else np.dtype(dtype))
    np.testing.assert_array_equal(volume.array_CIJK, array)
    np.testing.assert_allclose(volume.affine, FLAT, rtol=1e-6)
    assert not caplog.records
    before = (tmp_path / name).read_bytes()
    write_volume(Volume(array, FLAT), tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_label_maps_colours_and_pages_come_back(tmp_path):
    labels = Volume(np.arange(60, dtype="u1").reshape(1, 12, 5, 1) % 5, FLAT)
    write_volume(labels, tmp_path / "labels.png")
    np.testing.assert_array_equal(
        read_label_map(tmp_path / "labels.png").array_CIJK, labels.array_CIJK
    )
    for name, shape in (("colours.png", (3, 6, 5, 1)), ("pages.tif", (1, 6, 5, 4))):
        volume = Volume(
            np.arange(np.prod(shape), dtype="u1").reshape(shape), np.diag([-1, -1, 1, 1.0])
        )
        write_volume(volume, tmp_path / name)
        read = read_volume(tmp_path / name, fourth_axis="channels")
        np.testing.assert_array_equal(read.array_CIJK, volume.array_CIJK)


def test_a_place_that_a_picture_does_not_keep_is_logged(tmp_path, caplog):
    write_volume(Volume(np.ones((1, 7, 5, 1), "u1"), np.diag([2, 2, 3, 1.0])), tmp_path / "a.png")
    (record,) = caplog.records
    assert (
        "a.png' does not keep where the image lies in the world: orientation RAS" in record.message
    )


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("a.png", (1, 7, 5, 2), "u1"),
        ("a.png", (2, 7, 5, 1), "u1"),
        ("a.png", (1, 7, 5, 1), "f4"),
        ("a.png", (1, 7, 5, 1), "i2"),
        ("a.tif", (1, 7, 5, 1), "f8"),
        ("a.tif", (1, 7, 5, 1), "i8"),
    ],
)
def test_what_a_picture_cannot_hold_is_not_written(tmp_path, name, shape, dtype):
    with pytest.raises(ConfigError, match=r"cannot hold .* Convert the array, or write \.nii\.gz"):
        write_volume(Volume(np.ones(shape, dtype), FLAT), tmp_path / name)
    assert not [*tmp_path.iterdir()]
