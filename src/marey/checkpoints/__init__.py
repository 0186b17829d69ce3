"""Checkpoints: our folder format, the bundled weights, and readers of public formats."""
