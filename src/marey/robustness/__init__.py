"""Change a clip, naturally or adversarially, and measure what is left of a model's answers."""
