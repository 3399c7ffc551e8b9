"""Moving volumes between grids: turned, cut, resampled."""
