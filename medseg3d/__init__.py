"""medseg3d turns medical volumes into label maps.

Nouns        Volume, Grid, LabelScheme, Bundle, and the errors under MedSegError
Files        read_volume, write_volume, load_bundle, save_bundle, load_config
DICOM        find_series, read_series, write_dicom_seg, read_dicom_seg
Geometry     resample_volume, reorient_volume, preprocess_volume (… .restore)
Networks     NETS, build_net
Prediction   predict_logits, predict_labels (arrays), predict_case (files to a Volume)
Scores       SCHEMES, score_case, score_cases
Training     train_run, train_folds

Everything is loaded on first use, so importing medseg3d costs nothing. The command line has the
same verbs: `medseg3d --help`. Not a medical device: results are for research.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg3d.config.load import load_config
    from medseg3d.errors import (
        BundleError,
        ConfigError,
        FormatError,
        GridError,
        LabelError,
        MedSegError,
        MissingExtraError,
        SeriesError,
    )
    from medseg3d.evaluate.folder import score_cases
    from medseg3d.evaluate.schemes import SCHEMES
    from medseg3d.evaluate.score import score_case
    from medseg3d.geometry.orient import reorient_volume
    from medseg3d.geometry.resample import resample_volume
    from medseg3d.io.dicom.read import read_series
    from medseg3d.io.dicom.seg import write_dicom_seg
    from medseg3d.io.dicom.seg_read import read_dicom_seg
    from medseg3d.io.dicom.series import find_series
    from medseg3d.io.files import read_volume, write_volume
    from medseg3d.labels import LabelScheme
    from medseg3d.nets.bundle import Bundle, load_bundle, save_bundle
    from medseg3d.nets.presets import NETS, build_net
    from medseg3d.predict.case import predict_case
    from medseg3d.predict.sliding import predict_labels, predict_logits
    from medseg3d.preprocess.pipeline import preprocess_volume
    from medseg3d.train.folds import train_folds
    from medseg3d.train.run import train_run
    from medseg3d.volume import Grid, Volume

__version__ = "0.1.0"

_HOMES = {
    "config.load": ["load_config"],
    "errors": [
        "BundleError",
        "ConfigError",
        "FormatError",
        "GridError",
        "LabelError",
        "MedSegError",
        "MissingExtraError",
        "SeriesError",
    ],
    "evaluate.schemes": ["SCHEMES"],
    "evaluate.folder": ["score_cases"],
    "evaluate.score": ["score_case"],
    "geometry.orient": ["reorient_volume"],
    "geometry.resample": ["resample_volume"],
    "io.dicom.read": ["read_series"],
    "io.dicom.seg": ["write_dicom_seg"],
    "io.dicom.seg_read": ["read_dicom_seg"],
    "io.dicom.series": ["find_series"],
    "io.files": ["read_volume", "write_volume"],
    "labels": ["LabelScheme"],
    "nets.bundle": ["Bundle", "load_bundle", "save_bundle"],
    "nets.presets": ["NETS", "build_net"],
    "predict.case": ["predict_case"],
    "predict.sliding": ["predict_labels", "predict_logits"],
    "preprocess.pipeline": ["preprocess_volume"],
    "train.folds": ["train_folds"],
    "train.run": ["train_run"],
    "volume": ["Grid", "Volume"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "NETS",
    "SCHEMES",
    "Bundle",
    "BundleError",
    "ConfigError",
    "FormatError",
    "Grid",
    "GridError",
    "LabelError",
    "LabelScheme",
    "MedSegError",
    "MissingExtraError",
    "SeriesError",
    "Volume",
    "build_net",
    "find_series",
    "load_bundle",
    "load_config",
    "predict_case",
    "predict_labels",
    "predict_logits",
    "preprocess_volume",
    "read_dicom_seg",
    "read_series",
    "read_volume",
    "reorient_volume",
    "resample_volume",
    "save_bundle",
    "score_case",
    "score_cases",
    "train_folds",
    "train_run",
    "write_dicom_seg",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'medseg3d' has no attribute '{name}'")
    value = getattr(import_module(f"medseg3d.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
