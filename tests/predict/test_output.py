"""Results as NIfTI, or as DICOM that belongs to the scan it was made from."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread

from medseg3d.errors import ConfigError, MedSegError
from medseg3d.io.dicom.read import read_series
from medseg3d.io.dicom.seg_read import read_dicom_seg
from medseg3d.io.dicom.series import find_stack
from medseg3d.io.files import read_volume, write_volume
from medseg3d.nets.bundle import Bundle, save_bundle
from medseg3d.predict.case import Predicted, prepare_case
from medseg3d.predict.cases import predict_inputs
from medseg3d.predict.output import CaseFiles, Output, write_case
from medseg3d.volume import Volume

CODED = ("labels.codes.one=liver", "labels.codes.four=spleen", "predict.tile_size=[128,128,4]")
SEG = Output("dicom-seg")


@pytest.fixture
def model(tmp_path: Path, build_bundle: Callable[..., Bundle]) -> Path:
    save_bundle(build_bundle("ct"), tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.fixture
def liver(shared_data: Path) -> Path:
    return shared_data / "dicom/ct_liver_with_seg/dicom"


@pytest.fixture
def tilted(shared_data: Path) -> Path:
    return shared_data / "dicom/ct_gantry_tilt_phantom/dicom"


def predict(model: Path, source: Path, out: Path, **how: Output | tuple[str, ...]) -> Path:
    (done,) = predict_inputs(model, [source], out, **{"settings": CODED, **how})
    assert done.reason is None
    assert done.path
    return done.path


def test_a_folder_of_dicom_gives_nifti_on_its_grid(model: Path, liver: Path, tmp_path: Path):
    written = predict(model, liver, tmp_path / "out")
    assert written == tmp_path / "out/dicom.nii.gz"
    label_map, image = read_volume(written), read_series(liver)
    assert label_map.shape_IJK == image.shape_IJK
    np.testing.assert_allclose(label_map.affine, image.affine, atol=1e-4)


@pytest.mark.slow
def test_a_segmentation_holds_the_same_voxels_and_names_its_model(
    model: Path, liver: Path, tmp_path: Path
):
    nifti = read_volume(predict(model, liver, tmp_path / "nifti"))
    written = predict(model, liver, tmp_path / "seg", output=SEG)
    seg = read_dicom_seg(written, grid=read_series(liver).grid)
    values = {name: v for name, v in {"one": 1, "four": 4}.items() if v in nifti.array_CIJK}
    assert [segment.name for segment in seg.segments] == [*values]
    for mask, segment in zip(seg.masks.array_CIJK, seg.segments, strict=True):
        np.testing.assert_array_equal(mask, nifti.array_CIJK[0] == values[segment.name])
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert digest.encode() in written.read_bytes()


@pytest.mark.slow
def test_tilted_slices_get_the_labels_that_lie_on_them(model: Path, tilted: Path, tmp_path: Path):
    (refused,) = predict_inputs(model, [tilted], tmp_path / "out", settings=CODED)
    assert "tilted by 18.50 degrees" in str(refused.reason)
    settings = (*CODED, "preprocess.tilt=correct")
    nifti = read_volume(predict(model, tilted, tmp_path / "nifti", settings=settings))
    assert nifti.shape_IJK == (512, 521, 6)
    written = predict(model, tilted, tmp_path / "seg", output=SEG, settings=settings)
    seg = read_dicom_seg(written, grid=read_series(tilted, tilt="keep").grid)
    assert seg.masks.shape_IJK == (512, 512, 6)
    volumes = [
        float(np.count_nonzero(array) * grid.voxel_mm3)
        for array, grid in ((seg.masks.array_CIJK, seg.masks.grid), (nifti.array_CIJK, nifti.grid))
    ]
    # what lies beside the slices, where nothing was scanned, is in the corrected grid alone
    assert 0.9 < volumes[0] / volumes[1] < 1.05


def test_contours_belong_to_the_series(model: Path, shared_data: Path, tmp_path: Path):
    source = shared_data / "dicom/mr_sagittal_oblique_hitachi/dicom"
    written = predict(model, source, tmp_path / "rt", output=Output("rtstruct"))
    structures, image = dcmread(written), dcmread(next(source.iterdir()))
    assert structures.StudyInstanceUID == image.StudyInstanceUID
    names = {one.ROIName for one in structures.StructureSetROISequence}
    assert names
    assert names <= {"one", "four"}


@pytest.mark.slow
def test_a_volume_of_several_is_chosen_by_its_name(model: Path, shared_data: Path, tmp_path: Path):
    source = shared_data / "dicom/mr_epi_4d_ge/dicom"
    (refused,) = predict_inputs(model, [source], tmp_path / "none", settings=CODED)
    assert "'volume-2' (64×64×15)" in str(refused.reason)
    assert "--set preprocess.volume=" in str(refused.reason)
    settings = (*CODED, "preprocess.volume=volume-2")
    written = predict(model, source, tmp_path / "seg", output=SEG, settings=settings)
    stack = find_stack(source, "volume-2")
    seg = dcmread(written)
    [series] = seg.ReferencedSeriesSequence
    referred = {image.ReferencedSOPInstanceUID for image in series.ReferencedInstanceSequence}
    assert referred <= {frame.image_uid for frame in stack.frames}


@pytest.mark.parametrize("output_format", ["nifti", "dicom-seg", "rtstruct"])
def test_where_nothing_is_found_there_is_no_dicom_and_no_failure(
    build_bundle: Callable[..., Bundle], liver: Path, tmp_path: Path, output_format: str
):
    blind = build_bundle("ct")
    for weights in blind.net.parameters():
        torch.nn.init.zeros_(weights)
    save_bundle(blind, tmp_path / "blind.safetensors")
    (done,) = predict_inputs(
        tmp_path / "blind.safetensors", [liver], tmp_path / "out",
        output=Output(output_format), settings=CODED,
    )  # fmt: skip
    assert done.reason is None
    assert (done.path is not None) == (output_format == "nifti")
    assert [*(tmp_path / "out").iterdir()] == ([done.path] if done.path else [])


def test_where_the_label_map_cannot_be_written_its_maps_do_not_stay(
    build_bundle: Callable[..., Bundle], tmp_path: Path
):
    recipe, image = build_bundle("ct").recipe, tmp_path / "a.nii.gz"
    write_volume(Volume(np.ones((1, 8, 8, 8), np.float32), np.eye(4)), image)
    values_IJK = np.ones((8, 8, 8), np.uint8)
    out = tmp_path / "out"
    out.mkdir()

    with pytest.raises(MedSegError):  # an image that is no DICOM has no series
        write_case(
            Volume(values_IJK[np.newaxis], np.eye(4)),
            CaseFiles(out / "a.seg.dcm", uncertainty=out / "a_uncertainty.nii.gz"),
            predicted=Predicted(values_IJK, np.zeros((8, 8, 8), np.float32)),
            prepared=prepare_case(image, recipe),
            image=image,
            recipe=recipe,
            output=SEG,
        )

    assert not [*out.iterdir()]


def test_labels_without_codes_are_refused_before_anything_is_computed(
    model: Path, liver: Path, tmp_path: Path
):
    with pytest.raises(ConfigError, match="'one'"):
        [*predict_inputs(model, [liver], tmp_path / "out", output=SEG)]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_is_refused_before_anything_is_read(
    model: Path, tmp_path: Path, unchecked: None
):
    image = tmp_path / "damaged.nii.gz"
    image.touch()
    for output_format in ("dicom-seg", "rtstruct"):
        (refused,) = predict_inputs(
            model, [image], tmp_path / "out", output=Output(output_format), settings=CODED
        )
        assert f"{output_format} belongs to the DICOM it is made from" in str(refused.reason)
    with pytest.raises(ConfigError, match="output format 'png' is none of nifti, dicom-seg"):
        [*predict_inputs(model, [image], tmp_path / "out", output=Output("png"))]
