"""From cases to a bundle."""

from medseg3d.extras import import_extra

import_extra("lightning_fabric", extra="train")
