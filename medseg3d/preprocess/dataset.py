"""A whole data set, preprocessed once into a store."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Final

from medseg3d.config.preprocess import PreprocessConfig
from medseg3d.data.cases import Case, read_images
from medseg3d.data.store import Store
from medseg3d.errors import ConfigError, MedSegError
from medseg3d.io.files import read_label_map
from medseg3d.labels import LabelScheme, values_to_channels
from medseg3d.preprocess.pipeline import preprocess_volume

PREPROCESSING: Final = 2
"""Counted up when the same files and configuration give other voxels than before."""


def preprocess_cases(
    cases: Sequence[Case],
    store: Store,
    config: PreprocessConfig,
    labels: LabelScheme,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Bring every case into the store, except those that are there already, from the same files.

    Raises:
        FormatError: a file is not what it claims to be, or holds NaN.
        GridError: a case's files do not lie on one grid.
        LabelError: a reference holds values that the scheme does not know.
    """
    for number, case in enumerate(cases):
        key = _key(case, config, labels)
        if not store.holds(case.id, key):
            try:
                _preprocess_case(case, key, store, config, labels)
            except MedSegError as error:
                raise type(error)(f"case '{case.id}': {error}") from error
        if progress:
            progress(number + 1, len(cases))


def changed_cases(
    cases: Sequence[Case], store: Store, config: PreprocessConfig, labels: LabelScheme
) -> list[str]:
    """Name the cases that the store holds, but made from other files or in another way."""
    return [
        case.id
        for case in cases
        if store.holds(case.id) and not store.holds(case.id, _key(case, config, labels))
    ]


def _preprocess_case(
    case: Case, key: str, store: Store, config: PreprocessConfig, labels: LabelScheme
) -> None:
    image = read_images(case.paths, config)
    if case.reference is None:
        raise ConfigError("there is no reference to train on; set data.reference")
    preprocessed = preprocess_volume(image, config)
    label_map = preprocessed.follow(read_label_map(case.reference, labels))
    store.save(
        case.id,
        key,
        image_CIJK=preprocessed.volume.array_CIJK,
        channels_IJK=values_to_channels(label_map, labels),
        spacing_mm=preprocessed.volume.spacing_mm,
    )


def _key(case: Case, config: PreprocessConfig, labels: LabelScheme) -> str:
    """Name what a stored case is made from: its files as they are now, and what is done to them."""
    stats = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) if file else None
        for file in (*case.paths, case.reference)
    ]
    made_from = [PREPROCESSING, stats, config.model_dump(mode="json"), labels.channel_values]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
