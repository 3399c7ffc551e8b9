"""Cases, splits, stored voxels, and random patches."""
