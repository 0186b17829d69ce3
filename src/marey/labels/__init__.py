"""Class names: made readable, and embedded as vectors."""
