"""Helpers for developers and continuous integration; not part of the package."""
