"""Index large folders of pictures and find the ones that look like a given picture."""

__version__ = "0.1.0"
