"""Models run by torch."""
