"""What the names of actions mean: made readable, embedded, and compared with what a model saw."""
