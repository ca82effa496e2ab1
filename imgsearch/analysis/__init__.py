"""Measure the quality of a collection, and the speed of a machine."""
