"""The embedded store, a folder of Lance datasets."""
