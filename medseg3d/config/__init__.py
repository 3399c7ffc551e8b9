"""One typed, frozen section per verb, and how they are read."""
