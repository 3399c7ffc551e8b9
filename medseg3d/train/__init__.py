"""From a data set to a bundle."""

from medseg3d.extras import require_extra

require_extra("lightning_fabric", extra="train")  # looked for, not imported: that takes seconds
