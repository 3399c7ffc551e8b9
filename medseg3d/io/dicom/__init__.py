"""DICOM: series into volumes, label maps into segmentations.

headers (bytes to datasets) → frames (planes and what is said of them) → stacks (frames of one
volume, in order) → series (the doors: find_series, read_series) → pixels.
"""

from medseg3d.extras import import_extra

import_extra("pydicom", extra="dicom")
