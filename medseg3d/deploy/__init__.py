"""From a trained bundle to one that is smaller or runs elsewhere."""
