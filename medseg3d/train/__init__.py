"""From cases to a bundle."""
