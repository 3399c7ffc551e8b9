"""What can go wrong, as one small tree.

MedSegError
├─ ConfigError        cannot be run as asked; every fault with its path and the nearest known key
├─ FormatError        a file is not what it claims to be
│  └─ SeriesError     slices missing, doubled, unevenly spaced, of mixed orientation, tilted
├─ GridError          two volumes are not on one grid, or an array does not fit where it is put
├─ LabelError         values outside the LabelScheme, or no integers at all
├─ BundleError        a model file is incomplete, damaged, or of another version
└─ MissingExtraError  an optional dependency is not installed; the message is the pip line

Every class but the last is also a ValueError; MissingExtraError is also an ImportError.
A message says what went wrong, what was got, what was expected, and what to do.
"""


class MedSegError(Exception):
    """Root of every error that medseg3d raises on purpose."""


class ConfigError(MedSegError, ValueError):
    """The run cannot be done as asked; lists every fault at once."""


class FormatError(MedSegError, ValueError):
    """A file is not what it claims to be."""


class SeriesError(FormatError):
    """A DICOM series is not one regular stack of slices."""


class GridError(MedSegError, ValueError):
    """Two volumes do not lie on one grid, or an array does not fit its place."""


class LabelError(MedSegError, ValueError):
    """A label map holds values that its LabelScheme does not know, or no integers."""


class BundleError(MedSegError, ValueError):
    """A model file is incomplete, damaged, foreign, or of another version."""


class MissingExtraError(MedSegError, ImportError):
    """An optional dependency is not installed."""
