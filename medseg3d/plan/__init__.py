"""From what a data set is measured to be to a configuration, with a reason for every choice."""
